//! Packets, rigs and simulations that test Sluice from outside.
//!
//! [`packet`] builds frames by hand, good ones and bad ones; [`netns`] lays cables between network
//! namespaces, runs real programs in them and captures what crosses a wire; [`stream`] reads a
//! capture the way an eavesdropper would; [`load`] moves bytes over kernel sockets and checks each;
//! [`sim`] runs two whole gateways in one thread, in simulated time.

pub mod load;
pub mod netns;
pub mod packet;
#[cfg(feature = "sim")]
pub mod sim;
pub mod stream;
