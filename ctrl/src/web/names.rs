//! What the names of URLs stand for, and which of it is not asked.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use tonic::codegen::Service;

/// Where an exchange may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    Anywhere,
    /// Neither this node itself nor what is on its links alone: for who may write no file of it. A URL with such
    /// an address in it is refused when it is read; what a name stands for is known here at the earliest.
    Away,
}

/// The system's resolver.
#[derive(Debug, Clone)]
pub struct Names {
    system: GaiResolver,
    reach: Reach,
}

impl Names {
    pub fn new(reach: Reach) -> Self {
        Self { system: GaiResolver::new(), reach }
    }
}

type Addresses = std::vec::IntoIter<SocketAddr>;

impl Service<Name> for Names {
    type Response = Addresses;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Addresses>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.system.poll_ready(context)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (found, reach, host) = (self.system.call(name.clone()), self.reach, name.to_string());
        Box::pin(async move { allowed(reach, &host, found.await?.collect()) })
    }
}

fn allowed(reach: Reach, host: &str, mut all: Vec<SocketAddr>) -> io::Result<Addresses> {
    if reach == Reach::Away {
        let found = all.first().map(SocketAddr::ip);
        all.retain(|at| !is_near(at.ip()));
        if let (true, Some(found)) = (all.is_empty(), found) {
            return Err(io::Error::other(format!(
                "{host} stands for {found}, which is the node itself, or on its link; no object of the API has that asked"
            )));
        }
    }
    Ok(all.into_iter())
}

/// The node itself, or what each node has on a link of its own, such as a cloud's metadata service.
pub fn is_near(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local() || v4.octets()[0] == 0 || v4.octets()[0] >= 224,
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unspecified() || v6.is_unicast_link_local() || v6.is_multicast(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_the_node_itself_is_asked_for_files_only() {
        let at = |text: &str| -> SocketAddr { text.parse().unwrap() };
        let (near, far) = (at("127.0.0.1:0"), at("198.18.0.1:0"));
        let asked = |reach, all: &[SocketAddr]| allowed(reach, "crl.partner.org", all.to_vec()).map(Iterator::collect);
        assert_eq!(asked(Reach::Away, &[near, far, at("[fe80::1]:0")]).unwrap(), [far]);
        assert_eq!(asked(Reach::Anywhere, &[near]).unwrap(), [near]);
        assert_eq!(asked(Reach::Away, &[]).unwrap(), Vec::<SocketAddr>::new());
        let said = asked(Reach::Away, &[near]).map(|all: Vec<_>| all.len()).unwrap_err().to_string();
        assert!(said.starts_with("crl.partner.org stands for 127.0.0.1, which is the node itself"), "{said}");
    }
}
