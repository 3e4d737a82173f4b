//! xdp-prog.
