//! `connection.proxyProtocol` of a WorkloadIdentity: which of its ports are sent a header, and which would
//! wait for one in vain.

use snapshot::{ProxyHeaders, ProxyProtocol, TlsMode};

use super::decode::{Faults, Field};
use super::tree::Value;
use super::workload::by_port;
use super::{Diagnostic, WorkloadIdentity};

const PATH: &str = "spec.connection.proxyProtocol";

/// `proxyProtocol: { version: v2, ports: { "9090": none } }`.
pub fn decode(field: &Field<'_>, faults: &mut Faults<'_>) -> ProxyHeaders {
    if let Value::Text(_) = field.node.value {
        faults.refuse(field, "is not a mapping", "write proxyProtocol: { version: v2 }");
        return ProxyHeaders::default();
    }
    let Some(mut fields) = field.fields(faults) else { return ProxyHeaders::default() };
    let version = fields.optional("version").and_then(|field| field.choice(VERSIONS, faults));
    let ports = fields.optional("ports").map(|field| by_port(&field, VERSIONS, faults)).unwrap_or_default();
    fields.finish(faults);
    ProxyHeaders { version: version.unwrap_or_default(), ports: ports.into_iter().collect() }
}

/// What is not carried is not told about either: a service that waits for a header there waits for ever.
pub fn lint(identity: &WorkloadIdentity, found: &mut Vec<Diagnostic>) {
    let disabled = |port: &u16| *identity.ports.get(port).unwrap_or(&identity.mode) == TlsMode::Disable;
    let none_carried = identity.mode == TlsMode::Disable && identity.ports.values().all(|m| *m == TlsMode::Disable);
    let mut report = |path: String, what: String| {
        let message = format!("{what} is DISABLE: its connections are not touched, so no header is sent");
        let help = "use MUTUAL, PERMISSIVE or SIMPLE, or take the header out here and in the service's configuration";
        found.push(Diagnostic::error(&identity.place, path, message).help(help));
    };
    if identity.proxy.version == ProxyProtocol::V2 && none_carried {
        report(format!("{PATH}.version"), identity.name.clone());
    }
    for (port, _) in identity.proxy.ports.iter().filter(|(port, v)| *v == ProxyProtocol::V2 && disabled(port)) {
        report(format!("{PATH}.ports.{port}"), format!("{} on port {port}", identity.name));
    }
}

const VERSIONS: &[(&str, ProxyProtocol)] =
    &[(ProxyProtocol::None.name(), ProxyProtocol::None), (ProxyProtocol::V2.name(), ProxyProtocol::V2)];
