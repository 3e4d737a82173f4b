//! Virtual addresses: what each stands for, by address and port.

use std::net::SocketAddr;

use super::Map;

/// One virtual address of a Service.
#[derive(Debug)]
pub struct Virtual {
    /// Index into the snapshot's services.
    pub service: u32,
    pub address: SocketAddr,
    /// Those that take calls now.
    pub endpoints: Box<[SocketAddr]>,
}

#[derive(Debug, Default)]
pub struct Virtuals {
    by_address: Map<SocketAddr, Virtual>,
}

impl Virtuals {
    /// The snapshot has been checked: indices lead somewhere.
    pub fn new(services: &[::snapshot::Service]) -> Self {
        let mut by_address = Map::default();
        for (service, of) in (0..).zip(services) {
            for each in &of.virtual_addresses {
                let endpoint = |&index: &u32| canonical(of.endpoints[index as usize].address);
                let endpoints = each.endpoints.iter().map(endpoint).collect();
                let address = canonical(each.address);
                by_address.insert(address, Virtual { service, address, endpoints });
            }
        }
        Self { by_address }
    }

    pub fn find(&self, address: SocketAddr) -> Option<&Virtual> {
        if self.by_address.is_empty() {
            return None;
        }
        self.by_address.get(&canonical(address))
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
