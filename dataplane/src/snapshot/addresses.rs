//! Address tables: exact addresses and prefixes, the longest prefix wins.
//!
//! One hash table per distinct prefix length, longest first. A node has few lengths (mostly one per
//! family), so a lookup is one or two probes, however many workloads there are.

use std::net::IpAddr;

use ::snapshot::Prefix;

/// Keyed hashing, since addresses are the callers' choice.
pub type Map<K, V> = hashbrown::HashMap<K, V, foldhash::fast::RandomState>;

#[derive(Debug, Default)]
pub struct AddressTable {
    /// By (is IPv4, length), longest first.
    lengths: Vec<((bool, u8), Map<IpAddr, usize>)>,
}

impl AddressTable {
    /// What the prefix led to before, if anything.
    pub fn insert(&mut self, prefix: Prefix, value: usize) -> Option<usize> {
        let key = (prefix.address.is_ipv4(), prefix.length);
        let at = self.lengths.partition_point(|(have, _)| (have.1, have.0) > (key.1, key.0));
        if self.lengths.get(at).is_none_or(|(have, _)| *have != key) {
            self.lengths.insert(at, (key, Map::default()));
        }
        self.lengths[at].1.insert(prefix.address, value)
    }

    /// What exactly this prefix leads to.
    pub fn exact(&self, prefix: Prefix) -> Option<usize> {
        let mut tables = self.lengths.iter().filter(|(key, _)| *key == (prefix.address.is_ipv4(), prefix.length));
        tables.find_map(|(_, table)| table.get(&prefix.address).copied())
    }

    pub fn find(&self, address: IpAddr) -> Option<usize> {
        let address = address.to_canonical();
        let mut family = self.lengths.iter().filter(|((v4, _), _)| *v4 == address.is_ipv4());
        family.find_map(|((_, length), table)| table.get(&Prefix::new(address, *length).address).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_of_the_right_family_wins() {
        let mut table = AddressTable::default();
        for (prefix, length, value) in
            [("198.18.0.0", 15, 0), ("198.18.1.0", 24, 1), ("198.18.1.7", 32, 2), ("2001:db8::", 32, 3)]
        {
            assert_eq!(table.insert(Prefix::new(prefix.parse().unwrap(), length), value), None);
        }
        for (address, want) in [
            ("198.18.1.7", Some(2)),
            ("198.18.1.8", Some(1)),
            ("198.19.255.255", Some(0)),
            ("198.20.0.0", None),
            ("2001:db8:1::1", Some(3)),
            ("2001:db9::1", None),
            ("::ffff:198.18.1.7", Some(2)),
        ] {
            assert_eq!(table.find(address.parse().unwrap()), want, "{address}");
        }
        assert_eq!(table.insert(Prefix::host("198.18.1.7".parse().unwrap()), 9), Some(2));
    }
}
