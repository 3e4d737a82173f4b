//! Sluice from outside: the whole gateway in a simulation, and rigs of real packets.

pub mod sim;
