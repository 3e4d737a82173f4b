//! The loop of a core.

mod timers;
