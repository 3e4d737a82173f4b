//! Initial sequence numbers: which one to take, and how to make the engine take it.
//!
//! *Which*: RFC 6528, a clock of 4 µs plus a keyed hash of the four-tuple, so that an outsider
//! cannot guess the next one, and that a new life of the same four-tuple starts above the old.
//!
//! *How*: smoltcp draws the number from a generator inside the `Interface`, a 64-bit permuted
//! congruential generator without output feedback. Each step can be undone, so there is a seed
//! whose second draw (the first becomes an IPv4 identification) is any number we like.

use std::net::{IpAddr, SocketAddr};

use smoltcp::time::Instant;

/// RFC 6528 §3: `ISN = M + F(localip, localport, remoteip, remoteport, secretkey)`.
pub(crate) fn choose(secret: &[u8; 16], local: SocketAddr, remote: SocketAddr, now: Instant) -> u32 {
    let clock = (now.total_micros() / 4) as u32;
    clock.wrapping_add(siphash(secret, &tuple(local, remote)) as u32)
}

/// The seed of an `Interface` whose first `connect` or accepted SYN takes `isn`.
pub(crate) fn seed(isn: u32) -> u64 {
    // With zero top bits the generator's output is bits 29 to 60 of its state; the bits below are
    // free. They are moved on until the first draw is one that `Interface::new` keeps.
    (0u64..)
        .map(|low| step_back((u64::from(isn) << 29) | low))
        .find(|&first| identification(first) != 0)
        .map(step_back)
        .expect("at most one in 65536 states gives an identification of zero")
}

fn step_back(state: u64) -> u64 {
    state.wrapping_sub(INCREMENT).wrapping_mul(MULTIPLIER_INVERSE)
}

/// What `Interface::new` draws first, and draws again while it is zero.
fn identification(state: u64) -> u16 {
    let drawn = (state >> (29 - (state >> 61))) as u32;
    (drawn ^ (drawn >> 16)) as u16
}

/// smoltcp 0.14 `src/rand.rs`; the tests of `connection` compare with what leaves on the wire.
const MULTIPLIER: u64 = 0xbb2e_fcec_3c39_611d;
const INCREMENT: u64 = 0x7590_ef39;
const MULTIPLIER_INVERSE: u64 = inverse(MULTIPLIER);

/// The inverse of an odd number modulo 2^64, by Newton's iteration: each step doubles the right bits.
const fn inverse(odd: u64) -> u64 {
    let mut guess = odd;
    let mut step = 0;
    while step < 6 {
        guess = guess.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(guess)));
        step += 1;
    }
    guess
}

fn tuple(local: SocketAddr, remote: SocketAddr) -> [u8; 36] {
    let mut bytes = [0; 36];
    for (half, end) in bytes.chunks_exact_mut(18).zip([local, remote]) {
        let ip = match end.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        half[..16].copy_from_slice(&ip.octets());
        half[16..].copy_from_slice(&end.port().to_be_bytes());
    }
    bytes
}

/// SipHash-2-4 (Aumasson and Bernstein, 2012).
fn siphash(key: &[u8; 16], message: &[u8]) -> u64 {
    let half = |at: usize| u64::from_le_bytes(key[at..at + 8].try_into().expect("eight bytes"));
    let (k0, k1) = (half(0), half(8));
    let mut v = [
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ];
    let mut absorb = |word: u64| {
        v[3] ^= word;
        round(&mut v);
        round(&mut v);
        v[0] ^= word;
    };
    let words = message.chunks_exact(8);
    let rest = words.remainder();
    words.for_each(|word| absorb(u64::from_le_bytes(word.try_into().expect("eight bytes"))));
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    last[7] = message.len() as u8;
    absorb(u64::from_le_bytes(last));
    v[2] ^= 0xff;
    (0..4).for_each(|_| round(&mut v));
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[2] = v[2].rotate_left(32);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn siphash_agrees_with_the_papers_vector() {
        let key: [u8; 16] = std::array::from_fn(|i| i as u8);
        let message: [u8; 15] = std::array::from_fn(|i| i as u8);
        assert_eq!(siphash(&key, &message), 0xa129_ca61_49be_45e5);
    }

    #[test]
    fn a_step_back_undoes_a_step() {
        for state in [0, 1, u64::MAX, 0x0123_4567_89ab_cdef] {
            assert_eq!(step_back(state).wrapping_mul(MULTIPLIER).wrapping_add(INCREMENT), state);
        }
    }

    #[test]
    fn the_isn_grows_with_time_and_differs_by_tuple_and_secret() {
        let (a, b) = ("198.18.0.1:80".parse().unwrap(), "198.18.0.2:4000".parse().unwrap());
        let other = "198.18.0.2:4001".parse().unwrap();
        let at = |secret: u8, remote, micros| choose(&[secret; 16], a, remote, Instant::from_micros(micros));
        assert_eq!(at(1, b, 4_000).wrapping_sub(at(1, b, 0)), 1_000);
        assert_ne!(at(1, b, 0), at(1, other, 0));
        assert_ne!(at(1, b, 0), at(2, b, 0));
    }
}
