//! The whole gateway in one thread, from one seed: two of them, real workers under real snapshots,
//! between stock TCP stacks, on links that lose, repeat, reorder and corrupt frames.
//!
//! ```text
//!   hosts ── in0 [node-a] out0 ── wire ── out0 [node-b] in0 ── hosts
//!                                  │
//!                         direct mTLS peers, legacy hosts
//! ```
//! Nothing sleeps: the clock jumps to the next event. Nothing is random: the same seed gives the
//! same [trace](trace::Trace), on every machine. After each event the [`oracle`] looks at what left
//! and at what arrived.

pub mod after;
pub mod attestor;
pub mod call;
pub mod chance;
pub mod clock;
pub mod end;
pub mod faults;
pub mod gateway;
pub mod host;
pub mod link;
pub mod oracle;
pub mod peer;
pub mod pki;
pub mod scenario;
pub mod setup;
pub mod topology;
pub mod trace;
pub mod trust;
pub mod wire;
pub mod world;

pub use call::{Begin, Call, CallId, Expect, Finish, Script, Side};
pub use scenario::{Outcome, run};
pub use setup::{Setup, Shown};
pub use world::{Broken, World};
