//! Ports in memory: what a worker sees in a simulation instead of rings.
