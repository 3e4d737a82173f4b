//! What is well-formed and still wrong or surprising: resources looked at together.

use std::collections::HashMap;

use snapshot::{SourceAddress, TlsMode};

use super::spiffe::MAX_ID;
use super::workload::selects;
use super::{
    Diagnostic, Gateway, Place, Resources, WorkloadIdentity, bypass, kubernetes, lint_claims, lint_policy,
    lint_service, proxy, trust,
};

/// Errors and warnings that no single field shows.
pub fn lint(resources: &Resources) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    twice(resources.identities.iter().map(|i| ("WorkloadIdentity", &i.name, &i.place)), &mut found);
    twice(resources.services.iter().map(|s| ("Service", &s.name, &s.place)), &mut found);
    twice(resources.policies.iter().map(|p| ("Policy", &p.name, &p.place)), &mut found);
    twice(resources.bundles.iter().map(|b| ("TrustBundle", &b.name, &b.place)), &mut found);
    let admitted = lint_policy::lint(resources, &mut found);
    trust::lint(resources, &mut found);
    kubernetes::lint(resources, &mut found);
    lint_service::lint(resources, &mut found);
    lint_claims::lint(resources, &mut found);
    for identity in &resources.identities {
        lists_and_modes(identity, admitted.contains(identity.name.as_str()), &mut found);
        if identity.selectors.is_empty() {
            let message = format!("{} has no selector: it is attested nowhere", identity.name);
            found.push(Diagnostic::warning(&identity.place, "spec.selectors", message));
        }
        egress(identity, resources, &mut found);
        proxy::lint(identity, &mut found);
        bypass::lint(identity, resources, &mut found);
        if let Some(gateway) = &resources.gateway {
            let length = identity.spiffe_id(&gateway.trust_domain).as_str().len();
            if length > MAX_ID {
                let message = format!("the SPIFFE ID would have {length} bytes, over the limit of {MAX_ID}");
                found.push(Diagnostic::error(&identity.place, "spec.workloadID", message));
            }
        }
    }
    if let Some(gateway) = &resources.gateway {
        sources(gateway, &resources.identities, &mut found);
    }
    found
}

/// Entries of identity sources that are for nobody, and one SPIFFE ID that would have two sources.
fn sources(gateway: &Gateway, identities: &[WorkloadIdentity], found: &mut Vec<Diagnostic>) {
    let named: Vec<_> = identities.iter().map(|i| (i, i.spiffe_id(&gateway.trust_domain))).collect();
    for source in &gateway.identity {
        for entry in source.workloads.iter().flatten() {
            if !named.iter().any(|(identity, id)| entry.matches(id, &identity.name)) {
                let message = format!("identity source {}: {entry} is no WorkloadIdentity here", source.name);
                found.push(Diagnostic::warning(&source.place, "spec.identity.sources.workloads", message));
            }
        }
    }
    let mut first: HashMap<&str, (&WorkloadIdentity, Option<&str>)> = HashMap::new();
    for (identity, id) in &named {
        let source = gateway.identity.iter().find(|source| source.takes(id, &identity.name));
        let source = source.map(|source| source.name.as_str());
        let (earlier, of) = *first.entry(&identity.workload_id).or_insert((identity, source));
        if of != source {
            let shown = |source: Option<&str>| source.map_or("none".to_owned(), |name| format!("{name:?}"));
            let message = format!(
                "{} and {} ({}) are one SPIFFE ID, and its source would be {} for one and {} for the other",
                identity.name,
                earlier.name,
                earlier.place,
                shown(source),
                shown(of)
            );
            let help = "name the SPIFFE ID in the source's `workloads`, or both resources";
            found.push(Diagnostic::error(&identity.place, "spec.workloadID", message).help(help));
        }
    }
}

fn twice<'r>(named: impl Iterator<Item = (&'static str, &'r String, &'r Place)>, found: &mut Vec<Diagnostic>) {
    let mut first = HashMap::new();
    for (kind, name, place) in named {
        if let Some(earlier) = first.insert(name, place) {
            let message = format!("{kind} {name} is given twice, first in {earlier}");
            found.push(Diagnostic::error(place, "metadata.name", message).help("rename or remove one of the two"));
        }
    }
}

/// What a mode means for an inbound list (ARCHITECTURE.md, D11): the workload's, then its ports'.
/// `by_rule`: an allow of a Policy admits somebody.
fn lists_and_modes(identity: &WorkloadIdentity, by_rule: bool, found: &mut Vec<Diagnostic>) {
    list_and_mode(identity, by_rule, identity.mode, "", found);
    for (port, mode) in identity.ports.iter().filter(|(_, mode)| **mode != identity.mode) {
        list_and_mode(identity, by_rule, *mode, &format!(" on port {port}"), found);
    }
}

fn list_and_mode(
    identity: &WorkloadIdentity,
    by_rule: bool,
    mode: TlsMode,
    on_port: &str,
    found: &mut Vec<Diagnostic>,
) {
    const LIST: &str = "spec.allowedSPIFFEIDs.inbound";
    let name = &identity.name;
    let at = identity.inbound.as_ref().map_or(&identity.place, |list| &list.place);
    let is = format!("{name} is {}{on_port}", mode.name());
    let (message, help) = match (&identity.inbound, mode) {
        (None, TlsMode::Mutual) if by_rule => return,
        (None, TlsMode::Mutual) => (
            format!("{name} has no inbound list: under MUTUAL nobody may call it{on_port}"),
            "list who may, or write [] to say that nobody shall",
        ),
        (Some(_), TlsMode::Permissive) => (
            format!("{is}: callers in plain TCP are served whatever this list says"),
            "use MUTUAL once all callers have identities",
        ),
        (Some(_), TlsMode::Simple) => (
            format!("{is}: callers show no identity that this list could be compared with"),
            "use MUTUAL, or remove the list",
        ),
        (Some(_), TlsMode::Disable) if on_port.is_empty() => {
            (format!("{is}: nothing is compared with this list"), "use MUTUAL, or remove the list")
        }
        // One port that does its own TLS is what the override is for.
        (Some(_), TlsMode::Mutual | TlsMode::Disable)
        | (None, TlsMode::Permissive | TlsMode::Simple | TlsMode::Disable) => return,
    };
    // Of one port alone it is surprising; of the workload the list would mean nothing at all.
    let fault = match mode {
        TlsMode::Simple if on_port.is_empty() => Diagnostic::error(at, LIST, message),
        TlsMode::Mutual | TlsMode::Permissive | TlsMode::Simple | TlsMode::Disable => {
            Diagnostic::warning(at, LIST, message)
        }
    };
    found.push(fault.help(help));
}

fn egress(identity: &WorkloadIdentity, resources: &Resources, found: &mut Vec<Diagnostic>) {
    for (nth, rule) in identity.egress.iter().enumerate() {
        let path = format!("spec.egress[{nth}]");
        for (entry, selector) in rule.selectors.iter().enumerate() {
            if !resources.services.iter().any(|service| selects(selector, service)) {
                let message = "no Service has these labels: the entry matches nothing";
                found.push(Diagnostic::warning(&rule.place, format!("{path}.selectors[{entry}]"), message));
            }
        }
        let mode = rule.mode.unwrap_or(identity.mode);
        if rule.allowed.is_some() && matches!(mode, TlsMode::Permissive | TlsMode::Disable) {
            let message = format!(
                "the mode is {}: no server shows an identity that this list could be compared with",
                mode.name()
            );
            found.push(
                Diagnostic::warning(&rule.place, format!("{path}.allowedSPIFFEIDs"), message)
                    .help("use MUTUAL or SIMPLE"),
            );
        }
        if rule.source == SourceAddress::Node && mode == TlsMode::Disable {
            let message = "the mode is DISABLE: the call is not touched, and keeps the caller's address";
            found.push(
                Diagnostic::warning(&rule.place, format!("{path}.source"), message)
                    .help("use MUTUAL, SIMPLE or PERMISSIVE, or have the kernel masquerade"),
            );
        }
    }
}
