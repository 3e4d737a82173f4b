//! What the connections of one core share: an engine for each MTU class, and the ISN secret.
//!
//! smoltcp takes the segment size from the `Interface` a socket is polled on, so there is one for
//! each size of packet that a path may need: the MTUs of the ports, and the plateaus of RFC 1191
//! §7 for paths that turn out to be narrower. They hold no addresses and no routes.

use std::net::SocketAddr;

use smoltcp::iface::{Config, Interface};
use smoltcp::time::Instant;
use smoltcp::wire::HardwareAddress;

use crate::device::Shape;
use crate::isn;

/// The engines and the secret that the connections of one core share.
pub struct Stack {
    secret: [u8; 16],
    /// By ascending MTU; never empty.
    classes: Vec<(usize, Interface)>,
}

impl Stack {
    /// An engine for each of `mtus` (576 to 65535, others are brought into that range) and for the
    /// usual narrower paths. `secret` keys the initial sequence numbers and must be random.
    pub fn new(secret: [u8; 16], mtus: &[usize], now: Instant) -> Self {
        let mut sizes: Vec<usize> = mtus.iter().map(|&mtu| mtu.clamp(MIN_MTU, MAX_MTU)).collect();
        let widest = sizes.iter().copied().max().unwrap_or(1500);
        sizes.extend(PLATEAUS.iter().filter(|&&plateau| plateau < widest));
        sizes.sort_unstable();
        sizes.dedup();
        Self { secret, classes: sizes.into_iter().map(|mtu| (mtu, interface(mtu, 0, now))).collect() }
    }

    /// An initial sequence number after RFC 6528.
    pub fn isn(&self, local: SocketAddr, remote: SocketAddr, now: Instant) -> u32 {
        isn::choose(&self.secret, local, remote, now)
    }

    /// The largest MTU class that fits into `mtu`; the smallest of all if none does.
    pub fn class(&self, mtu: usize) -> usize {
        self.classes[self.index(mtu)].0
    }

    /// The engine of the largest class that fits into `mtu`.
    pub(crate) fn interface(&mut self, mtu: usize) -> &mut Interface {
        let index = self.index(mtu);
        &mut self.classes[index].1
    }

    /// A throw-away engine of the same class whose next initial sequence number is `isn`.
    pub(crate) fn interface_for_isn(&self, isn: u32, mtu: usize, now: Instant) -> Interface {
        interface(self.class(mtu), isn::seed(isn), now)
    }

    fn index(&self, mtu: usize) -> usize {
        self.classes.partition_point(|&(class, _)| class <= mtu).saturating_sub(1)
    }
}

/// The smallest packets that every host takes: RFC 791 and RFC 8200 §5.
pub(crate) const MIN_MTU: usize = 576;
pub(crate) const MIN_MTU_V6: usize = 1280;
const MAX_MTU: usize = 65_535;
const PLATEAUS: &[usize] = &[MIN_MTU, 1006, MIN_MTU_V6, 1400, 1460, 1492, 1500, 2002, 4352, 8166, 17_914, 32_000];

/// An engine that accepts any address and needs no route to answer.
fn interface(mtu: usize, seed: u64, now: Instant) -> Interface {
    let mut config = Config::new(HardwareAddress::Ip);
    config.random_seed = seed;
    let mut interface = Interface::new(config, &mut Shape { mtu }, now);
    interface.set_any_ip(true);
    interface
}
