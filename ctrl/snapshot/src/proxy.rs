//! `connection.proxyProtocol`: whether a service is told by a PROXY protocol header who calls it.

use serde::{Deserialize, Serialize};

/// What a service is sent before a connection's first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxyProtocol {
    #[default]
    None,
    /// The binary header of version 2: addresses, TLS, and the caller's SPIFFE ID.
    V2,
}

impl ProxyProtocol {
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::V2 => "v2",
        }
    }
}

/// What the service of one workload is sent.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ProxyHeaders {
    pub version: ProxyProtocol,
    /// Single service ports, where they differ.
    pub ports: Vec<(u16, ProxyProtocol)>,
}

impl ProxyHeaders {
    /// On one of its ports. There are few, so they are walked.
    pub fn of(&self, port: u16) -> ProxyProtocol {
        self.ports.iter().find(|(number, _)| *number == port).map_or(self.version, |(_, version)| *version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_says_otherwise_overrides_the_workload() {
        use ProxyProtocol::{None, V2};
        let headers = ProxyHeaders { version: V2, ports: vec![(80, None), (443, V2)] };
        assert_eq!([80, 443, 3000].map(|port| headers.of(port)), [None, V2, V2]);
        let headers = ProxyHeaders { version: None, ports: vec![(443, V2)] };
        assert_eq!([80, 443].map(|port| headers.of(port)), [None, V2]);
        assert_eq!(ProxyHeaders::default().of(443), None);
    }
}
