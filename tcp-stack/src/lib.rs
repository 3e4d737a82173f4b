//! A sans-IO TCP connection: segments, time and randomness come in as arguments.
//!
//! A [`Connection`] is one end of one TCP connection, over IPv4 or IPv6. It owns its two rings
//! and nothing else: segments are shown to it with [`Connection::on_segment`], it writes its own
//! into whatever [`Output`] lends, and it says with [`Connection::poll_at`] when it wants to be
//! asked again. What connections of one core share, the interfaces and the secret of the initial
//! sequence numbers, is their [`Stack`].
//!
//! ```text
//!            on_segment                     recv
//!  packets ─────────────▶ ┌────────────┐ ─────────▶ bytes in order
//!                         │ Connection │
//!  Output  ◀───────────── └────────────┘ ◀───────── bytes to send
//!            transmit                       send
//! ```
//!
//! The TCP inside is smoltcp's socket, alone in its own socket set. Around it stands what that
//! socket does not do: chosen initial sequence numbers, RFC 5961's care about RST and SYN,
//! delayed acknowledgements only where they are safe, a user timeout that counts from the first
//! unanswered byte, and reuse of one connection's memory for many lives.

#![forbid(unsafe_code)]

mod config;
mod connection;
mod device;
mod end;
mod guard;
mod isn;
mod life;
mod output;
mod reset;
mod segment;
mod stack;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

#[cfg(test)]
mod tests;

pub use config::Config;
pub use connection::Connection;
pub use end::{End, State};
pub use output::Output;
pub use reset::{ack_for, rst_for};
pub use smoltcp::time::{Duration, Instant};
pub use stack::Stack;
