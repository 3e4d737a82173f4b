//! Where a connection's packets go: the seam to whoever owns the frames.

/// Lends memory for packets. A packet is an IP packet without a link header, and its IPv4 header
/// and TCP checksums are zero: the caller, who knows what the port can offload, fills them in.
pub trait Output {
    /// Whether a packet of `len` bytes can be taken now.
    fn ready(&mut self, len: usize) -> bool;

    /// Takes a packet of `len` bytes. `fill` writes all of it and is called exactly once; it is
    /// only asked for after `ready(n)` with `n >= len` was true.
    fn packet(&mut self, len: usize, fill: &mut dyn FnMut(&mut [u8]));
}
