//! Packets, rigs and simulations that test Sluice from outside.
//!
//! [`packet`] builds frames by hand, good ones and bad ones; [`netns`] lays cables between network
//! namespaces, runs real programs in them and captures what crosses a wire; [`stream`] reads a
//! capture the way an eavesdropper would; [`load`] and [`rounds`] move bytes over kernel sockets and check each;
//! [`played`] are the servers that no registry ships; [`sim`] runs two whole gateways in one thread, in simulated time.

pub mod calls;
pub mod load;
pub mod netns;
pub mod packet;
pub mod played;
pub mod rounds;
#[cfg(feature = "sim")]
pub mod sim;
pub mod stream;
