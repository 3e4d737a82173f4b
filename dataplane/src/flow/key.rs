//! The name of a flow: the port it arrives on and its 4-tuple as received, not normalised.

use std::net::{IpAddr, SocketAddr};

use crate::io::PortId;

/// Small and flat, since it is hashed for every packet. IPv4 is held as its mapped IPv6 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowKey {
    source: u128,
    destination: u128,
    source_port: u16,
    destination_port: u16,
    port: PortId,
}

impl FlowKey {
    pub fn new(port: PortId, source: SocketAddr, destination: SocketAddr) -> Self {
        Self {
            source: bits(source.ip()),
            destination: bits(destination.ip()),
            source_port: source.port(),
            destination_port: destination.port(),
            port,
        }
    }

    pub fn port(&self) -> PortId {
        self.port
    }

    pub fn source(&self) -> SocketAddr {
        SocketAddr::new(address(self.source), self.source_port)
    }

    pub fn destination(&self) -> SocketAddr {
        SocketAddr::new(address(self.destination), self.destination_port)
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn address(bits: u128) -> IpAddr {
    IpAddr::V6(std::net::Ipv6Addr::from_bits(bits)).to_canonical()
}

/// The same number for both directions of a 4-tuple on any port: which core owns it. `seed` is one
/// for all cores of this process, and not to be guessed (4-tuples are the attacker's to choose).
pub fn owner(source: SocketAddr, destination: SocketAddr, seed: u64, cores: usize) -> usize {
    let half = |end: SocketAddr| {
        let address = bits(end.ip());
        let folded = (address >> 64) as u64 ^ address as u64 ^ u64::from(end.port()).rotate_left(48);
        mix(folded ^ seed)
    };
    (mix(half(source).wrapping_add(half(destination))) % cores as u64) as usize
}

/// Finalizer of MurmurHash3: every input bit reaches every output bit.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    x = (x ^ (x >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_gives_back_what_it_was_made_of() {
        for (a, b) in [("198.18.1.2:1", "198.18.2.2:65535"), ("[2001:db8::1]:5", "[2001:db8::2]:6")] {
            let (a, b) = (a.parse().unwrap(), b.parse().unwrap());
            let key = FlowKey::new(PortId(3), a, b);
            assert_eq!((key.port(), key.source(), key.destination()), (PortId(3), a, b));
            assert_ne!(key, FlowKey::new(PortId(3), b, a));
        }
    }

    #[test]
    fn both_directions_have_one_owner_and_owners_share_evenly() {
        let server = "198.18.2.2:3000".parse().unwrap();
        let mut counts = [0; 4];
        for port in 1..=4000 {
            let client = SocketAddr::new("198.18.1.2".parse().unwrap(), port);
            let core = owner(client, server, 7, 4);
            assert_eq!(core, owner(server, client, 7, 4));
            counts[core] += 1;
        }
        assert!(counts.iter().all(|&n| (800..1200).contains(&n)), "{counts:?}");
    }
}
