//! The maps' bytes: what `bpf/steer.h` lays out in C, written and read in Rust.
//!
//! Nothing is cast: each key and value is put together byte by byte, and its length is compared
//! with the map's when it is used.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use libbpf_rs::{MapCore, MapFlags, MapHandle};

use crate::{Action, Bypass, Capture, CaptureKind, Error, FlowTuple, Port, Result, Side, Source, sys};

pub const LAYOUT: u32 = 3;
pub const SCOPE_INBOUND: u32 = 0xffff_ffff;
pub const SCOPE_GUARDED: u32 = 0xffff_fffe;

/// Every map of `bpf/maps.h`, all pinned under these names.
pub const NAMES: [&str; 13] = [
    "settings",
    "ports",
    "xsks",
    "flows",
    "sources",
    "source_prefixes",
    "captures",
    "addresses",
    "denied",
    "passed",
    "guarded",
    "bypasses",
    "counters",
];

/// `enum outcome`, in its order.
pub const OUTCOMES: [&str; 18] = [
    "pass",
    "passed_unmatched",
    "passed_absent",
    "pre_existing",
    "passed_bypass",
    "to_worker_flow",
    "to_worker_syn",
    "to_worker_unknown",
    "to_worker_icmp",
    "drop_fragment",
    "drop_unparsable",
    "drop_spoofed",
    "drop_denied",
    "drop_absent",
    "drop_vlan",
    "guard_drop",
    "shield_drop",
    "guard_bypass",
];

/// A map and its name.
#[derive(Debug)]
pub struct Table {
    pub name: &'static str,
    pub handle: MapHandle,
}

pub type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

impl Table {
    pub fn capacity(&self) -> usize {
        self.handle.max_entries() as usize
    }

    pub fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        sys::update(&self.handle, key, value).map_err(|error| match error.raw_os_error() {
            // Hashes say the one, tries the other.
            Some(libc::E2BIG | libc::ENOSPC) => {
                Error::Full { map: self.name, capacity: self.capacity(), wanted: self.capacity() + 1 }
            }
            _ => Error::System { what: format!("writing to the map {}", self.name), source: error },
        })
    }

    /// Removing what is not there is no error: a worker's entry may have been taken by its session.
    pub fn remove(&self, key: &[u8]) -> Result<()> {
        match self.handle.delete(key) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == libbpf_rs::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(Error::bpf(format!("removing from the map {}", self.name))(error)),
        }
    }

    pub fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.handle.lookup(key, MapFlags::ANY).map_err(Error::bpf(format!("reading the map {}", self.name)))
    }

    /// All entries. What changes meanwhile may be missed or be there; the walk ends in any case.
    pub fn entries(&self) -> Result<Entries> {
        let mut entries = Entries::new();
        // The kernel starts a walk again when the key it stands on is deleted under it.
        for key in self.handle.keys().take(4 * self.capacity()) {
            if let Some(value) = self.value(&key)? {
                entries.insert(key, value);
            }
        }
        Ok(entries)
    }
}

pub fn address(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn read_address(bytes: &[u8]) -> Option<IpAddr> {
    Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).to_canonical())
}

/// Length of a prefix in the maps' 128 bits, cut to the family's width.
fn prefix_length((address, length): (IpAddr, u8)) -> u32 {
    match address {
        IpAddr::V4(_) => 96 + u32::from(length.min(32)),
        IpAddr::V6(_) => u32::from(length.min(128)),
    }
}

/// The prefix's address with the bits past its length zero: a trie keeps what it is given.
fn prefix_address(prefix: (IpAddr, u8)) -> [u8; 16] {
    let bits = u128::from_be_bytes(address(prefix.0));
    let mask = u128::MAX.checked_shl(128 - prefix_length(prefix)).unwrap_or(0);
    (bits & mask).to_be_bytes()
}

pub fn settings(on_absent_pass: bool, grace_ns: u64) -> Vec<u8> {
    concat(&[&LAYOUT.to_ne_bytes(), &u32::from(on_absent_pass).to_ne_bytes(), &grace_ns.to_ne_bytes()])
}

pub fn port(port: &Port) -> Vec<u8> {
    let side = match port.side {
        Side::Inside => 0,
        Side::Outside => 1,
    };
    concat(&[&port.index.to_ne_bytes(), &[side, 0]])
}

/// The index in a value of the ports map.
pub fn port_index(value: &[u8]) -> Option<u16> {
    Some(u16::from_ne_bytes(value.get(..2)?.try_into().ok()?))
}

pub fn flow_key(flow: &FlowTuple) -> [u8; 40] {
    let mut key = [0; 40];
    key[..16].copy_from_slice(&address(flow.source.ip()));
    key[16..32].copy_from_slice(&address(flow.destination.ip()));
    key[32..34].copy_from_slice(&flow.source.port().to_be_bytes());
    key[34..36].copy_from_slice(&flow.destination.port().to_be_bytes());
    key[36..38].copy_from_slice(&flow.port.to_ne_bytes());
    key
}

pub fn read_flow(key: &[u8]) -> Option<FlowTuple> {
    let port = |at: usize| key.get(at..at + 2)?.try_into().ok().map(u16::from_be_bytes);
    Some(FlowTuple {
        port: u16::from_ne_bytes(key.get(36..38)?.try_into().ok()?),
        source: SocketAddr::new(read_address(key.get(..16)?)?, port(32)?),
        destination: SocketAddr::new(read_address(key.get(16..32)?)?, port(34)?),
    })
}

pub fn source(source: &Source) -> Vec<u8> {
    concat(&[&source.set.to_ne_bytes(), &source.port.to_ne_bytes(), &source.mac.unwrap_or([0; 6])])
}

/// None if the source is a single address, which the `sources` hash holds.
pub fn source_prefix_key(source: &Source) -> Option<Vec<u8>> {
    let length = prefix_length(source.prefix);
    (length < 128).then(|| {
        concat(&[&(32 + length).to_ne_bytes(), &u32::from(source.port).to_ne_bytes(), &prefix_address(source.prefix)])
    })
}

pub fn prefix_key(prefix: (IpAddr, u8)) -> Vec<u8> {
    concat(&[&prefix_length(prefix).to_ne_bytes(), &prefix_address(prefix)])
}

fn scope(kind: CaptureKind) -> u32 {
    match kind {
        CaptureKind::Inbound => SCOPE_INBOUND,
        CaptureKind::Outbound { set } => set,
    }
}

pub fn capture_key(capture: &Capture) -> Vec<u8> {
    let destination = capture.destination.map_or([0; 16], address);
    concat(&[&scope(capture.kind).to_ne_bytes(), &destination, &capture.port.to_be_bytes(), &[0; 2]])
}

pub fn capture(capture: &Capture, since: u64) -> Vec<u8> {
    let action = match capture.action {
        Action::Take => 0,
        Action::Leave => 1,
    };
    concat(&[&since.to_ne_bytes(), &[action, u8::from(capture.protected)], &[0; 6]])
}

/// The entry of `addresses` that makes a capture's key be looked for at all.
pub fn capture_address_key(capture_key: &[u8]) -> Vec<u8> {
    capture_key[..20].to_vec()
}

pub fn guarded_key(destination: IpAddr, port: u16) -> Vec<u8> {
    concat(&[&address(destination), &port.to_be_bytes(), &[0; 2]])
}

pub fn bypass_key(bypass: &Bypass) -> Vec<u8> {
    let to = bypass.destination;
    concat(&[&address(bypass.source), &address(to.ip()), &to.port().to_be_bytes(), &[0; 2]])
}

pub fn read_bypass(key: &[u8]) -> Option<Bypass> {
    let port = u16::from_be_bytes(key.get(32..34)?.try_into().ok()?);
    let destination = SocketAddr::new(read_address(key.get(16..32)?)?, port);
    Some(Bypass { source: read_address(key.get(..16)?)?, destination })
}

pub fn guarded_address_key(destination: IpAddr) -> Vec<u8> {
    concat(&[&SCOPE_GUARDED.to_ne_bytes(), &address(destination)])
}

fn concat(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = include_str!("../bpf/steer.h");

    #[test]
    fn counters_have_the_names_and_order_of_the_header() {
        let body = HEADER.split("enum outcome {").nth(1).unwrap().split("};").next().unwrap();
        let names: Vec<String> = body
            .lines()
            .filter_map(|line| line.trim().split(',').next())
            .map(str::to_lowercase)
            .filter(|name| !name.is_empty() && name != "outcomes")
            .collect();
        assert_eq!(names, OUTCOMES);
    }

    #[test]
    fn constants_are_those_of_the_header() {
        for (name, value) in [
            ("LAYOUT", format!("{LAYOUT}")),
            ("MAX_PORTS", format!("{}", crate::MAX_PORTS)),
            ("MAX_QUEUES", format!("{}", crate::MAX_QUEUES)),
            ("SCOPE_INBOUND", format!("{SCOPE_INBOUND:#x}U")),
            ("SCOPE_GUARDED", format!("{SCOPE_GUARDED:#x}U")),
        ] {
            let line = HEADER.lines().find(|line| line.starts_with(&format!("#define {name} "))).unwrap();
            assert_eq!(line.split_whitespace().nth(2), Some(value.as_str()), "{name}");
        }
    }

    #[test]
    fn a_flow_reads_back_as_it_was_written() {
        for (source, destination) in
            [("198.18.1.2:40000", "198.18.2.2:3000"), ("[2001:db8::1]:1", "[2001:db8::2]:65535")]
        {
            let flow =
                FlowTuple { port: 7, source: source.parse().unwrap(), destination: destination.parse().unwrap() };
            assert_eq!(read_flow(&flow_key(&flow)), Some(flow));
        }
        assert_eq!(read_flow(&[0; 39][..37]), None);
    }

    #[test]
    fn a_bypass_reads_back_as_it_was_written() {
        for (source, destination) in [("198.18.1.1", "198.18.1.2:3000"), ("2001:db8::1", "[2001:db8::2]:65535")] {
            let bypass = Bypass { source: source.parse().unwrap(), destination: destination.parse().unwrap() };
            assert_eq!(read_bypass(&bypass_key(&bypass)), Some(bypass));
        }
    }

    #[test]
    fn a_prefix_loses_the_bits_past_its_length() {
        let key = prefix_key(("198.18.1.77".parse().unwrap(), 24));
        assert_eq!(key, prefix_key(("198.18.1.0".parse().unwrap(), 24)));
        assert_eq!(key[..4], 120u32.to_ne_bytes());
        assert_eq!(prefix_key(("2001:db8::1".parse().unwrap(), 0))[4..], [0; 16]);
    }
}
