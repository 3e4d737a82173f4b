//! Who may call whom, in two steps: where a call goes and how, then whether the peer may.
//!
//! [`Compiled::route`](crate::snapshot::Compiled::route) answers for a captured SYN, from addresses
//! alone and before any cryptography; [`decide`] answers once the peer is authenticated, and again
//! for living connections when a newer snapshot came into force. [`explain`](explain::explain) asks
//! the same two and puts the steps into sentences, and [`captures`] asks them what steering has to
//! hand to us: there is one policy, in one place.

pub mod allow;
pub mod attest;
mod beforehand;
mod behind;
pub mod bypass;
pub mod captures;
pub mod decide;
pub mod explain;
mod explain_behind;
mod explain_caller;
pub mod lost;
pub mod miss;
pub mod replay;
pub mod revoked;
pub mod route;
pub mod rules;
pub mod shadow;
mod tell;

#[cfg(test)]
mod tests;

pub use allow::AllowList;
pub use attest::{Known, Listener, Proof, Wanted, Witnesses};
pub use bypass::{Bypasses, admitted};
pub use captures::Captures;
pub use decide::{Standing, Verdict, Wire, at_once, decide};
pub use explain::explain;
pub use lost::{Lost, What, living};
pub use miss::why_not;
pub use replay::replay;
pub use revoked::{Revoked, distrusted};
pub use route::{Route, Why};
pub use rules::{Ends, Rules};
pub use shadow::{Shadow, Would, shadow};
