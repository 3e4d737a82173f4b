//! The `TrustBundle` kind: the roots of a trust domain, and whom of it nobody speaks to any more.
//!
//! For the Gateway's own trust domain it adds to the roots of the identity source, so that roots
//! rotate by overlap. For any other it is federation: peers of that trust domain are verified against
//! its roots and no others.

use std::collections::HashMap;
use std::io::Read as _;
use std::path::Path;

use snapshot::check::MOST_REVOKED;
use snapshot::{Action, IdPattern, normal_serial};

use super::crls::{self, Crl, CrlUrl};
use super::decode::{Faults, Field};
use super::endpoint::{self, Endpoint};
use super::resource::Meta;
use super::roots::{self, Certificate};
use super::spiffe::parse_pattern;
use super::{Diagnostic, IdentitySource, Place, Resources, TrustDomain, fetched};
use crate::rotate::utc;

#[derive(Debug, Clone, PartialEq)]
pub struct TrustBundle {
    /// `namespace/name`.
    pub name: String,
    pub place: Place,
    pub trust_domain: TrustDomain,
    /// Each once, in the order of the file; of an endpoint, those that it gave last.
    pub roots: Vec<Root>,
    pub endpoint: Option<Endpoint>,
    pub revoked_ids: Vec<Revoked<IdPattern>>,
    pub revoked_serials: Vec<Revoked<String>>,
    /// Of files, and what was fetched.
    pub crls: Vec<Crl>,
    pub crl_urls: Vec<CrlUrl>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Root {
    pub certificate: Certificate,
    /// The file that it came from, as it is written, or the place of the text.
    pub from: String,
    pub place: Place,
    pub path: String,
}

/// One entry of a deny list.
#[derive(Debug, Clone, PartialEq)]
pub struct Revoked<T> {
    pub what: T,
    pub place: Place,
}

impl TrustBundle {
    pub fn decode(meta: Meta, spec: &Field<'_>, faults: &mut Faults<'_>) -> Option<Self> {
        let mut fields = spec.fields(faults)?;
        let help = "a name such as partner.org, in lower case and without spiffe://";
        let trust_domain = fields
            .required_such("trustDomain", help, faults)
            .and_then(|field| field.parsed(TrustDomain::parse, help, faults));
        let listed = fields.optional("roots");
        let revoked = fields.optional("revoked");
        let crls = fields.optional("crls");
        let endpoint = fields.optional("endpoint");
        if listed.is_none() && revoked.is_none() && crls.is_none() && endpoint.is_none() {
            let help = "give `roots`, `endpoint`, `revoked`, `crls`, or several of them";
            faults.error(spec.at(), &spec.path, "says neither whom to trust nor whom not to", help);
        }
        fields.finish(faults);
        // What the roots and IDs are compared with.
        let trust_domain = trust_domain.or_else(|| TrustDomain::parse("example.com").ok().filter(|_| spec.is_any()))?;
        let roots = listed.map(|list| decode_roots(&list, &trust_domain, faults));
        let (revoked_ids, revoked_serials) =
            revoked.and_then(|map| decode_revoked(&map, &trust_domain, faults)).unwrap_or_default();
        let (crls, crl_urls) = crls.map(|list| crls::decode(&list, &trust_domain, faults)).unwrap_or_default();
        let endpoint = endpoint.map(|map| endpoint::decode(&map, faults));
        // Roots that are at fault are not roots that are missing: nobody needs to hear that, too.
        let roots = roots.unwrap_or(Some(vec![]))?;
        let endpoint = endpoint.map_or(Some(None), |endpoint| endpoint.map(Some))?;
        let endpoint = endpoint.map(|endpoint| Endpoint { initial: roots.clone(), ..endpoint });
        let (name, place) = (meta.full_name(), meta.place);
        Some(Self { name, place, trust_domain, roots, endpoint, revoked_ids, revoked_serials, crls, crl_urls })
    }

    /// Of deny lists and CRLs.
    pub fn revokes(&self) -> usize {
        let of_crls = self.crls.iter().map(|crl| crl.list.serials.len()).sum::<usize>();
        self.revoked_ids.len() + self.revoked_serials.len() + of_crls
    }

    /// Whether it says by which roots this trust domain is verified, so that no other source does.
    pub fn decides(&self, trust_domain: &str) -> bool {
        self.trust_domain.as_str() == trust_domain && (!self.roots.is_empty() || self.endpoint.is_some())
    }

    /// CRLs that are fetched, of which none was taken yet.
    pub fn awaited(&self) -> impl Iterator<Item = &CrlUrl> {
        self.crl_urls.iter().filter(|url| self.crls.iter().all(|crl| crl.path != url.path))
    }

    /// Whether its entry is gone, and it stays until its issuer's list comes by another.
    pub fn is_left(&self, crl: &Crl) -> bool {
        crl.is_fetched && self.crl_urls.iter().all(|url| url.path != crl.path)
    }

    /// Roots that are not over at `now`: a verifier that builds paths need not look at a root's own end.
    pub fn valid_roots(&self, now: u64) -> impl Iterator<Item = &Root> {
        self.roots.iter().filter(move |root| now <= root.certificate.not_after)
    }
}

/// None: something is wrong with one of them, and was noted.
fn decode_roots(list: &Field<'_>, trust_domain: &TrustDomain, faults: &mut Faults<'_>) -> Option<Vec<Root>> {
    let before = faults.found.len();
    let mut roots: Vec<Root> = Vec::new();
    let entries = list.list(faults)?;
    if entries.is_empty() {
        faults.error(list.at(), &list.path, "an empty list", "give at least one root, or leave the field out");
    }
    // No more is read than could be taken.
    for entry in entries.iter().take(roots::MOST + 1) {
        for root in decode_entry(entry, trust_domain, faults) {
            // The same root out of two files is one root.
            if roots.iter().all(|earlier| earlier.certificate.der != root.certificate.der) {
                roots.push(root);
            }
        }
    }
    let count = roots.len().max(entries.len());
    if count > roots::MOST {
        let message = format!("{count} roots; at most {} are taken", roots::MOST);
        faults.error(list.at(), &list.path, message, "take out those that nothing chains to any more");
    }
    (faults.found.len() == before).then_some(roots)
}

fn decode_entry(entry: &Field<'_>, trust_domain: &TrustDomain, faults: &mut Faults<'_>) -> Vec<Root> {
    let Some(mut fields) = entry.fields(faults) else { return vec![] };
    let (file, pem) = (fields.optional("file"), fields.optional("pem"));
    fields.finish(faults);
    let (field, read, from) = match (file, pem) {
        (Some(field), None) => {
            let Some(name) = field.text(faults) else { return vec![] };
            let read = read_file(name, faults).and_then(|text| roots::read(&text, trust_domain));
            let read = read.map_err(|why| format!("{name:?}: {why}"));
            (field, read, name.to_owned())
        }
        (None, Some(field)) => {
            let Some(text) = field.text(faults) else { return vec![] };
            let read = roots::read(text, trust_domain).map_err(|why| format!("the text {why}"));
            let from = faults.place(field.at()).to_string();
            (field, read, from)
        }
        (Some(_), Some(_)) | (None, None) => {
            let help = "file: PATH, or pem: with the text";
            faults.error(entry.at(), &entry.path, "a root has one origin", help);
            return vec![];
        }
    };
    let place = faults.place(field.at());
    match read {
        Ok(found) => found
            .into_iter()
            .map(|certificate| Root { certificate, from: from.clone(), place: place.clone(), path: field.path.clone() })
            .collect(),
        Err(why) => {
            faults.error(field.at(), &field.path, why, ROOT_HELP);
            vec![]
        }
    }
}

/// Only from below the configuration directory, which is what is watched: a root that was taken out
/// elsewhere would stay trusted here until something else changes.
pub(super) fn read_bytes(name: &str, largest: usize, faults: &Faults<'_>) -> Result<Vec<u8>, String> {
    let path = faults.below(name)?;
    if !path.is_file() {
        return Err("is not a file".into());
    }
    let read = |path: &Path| {
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(largest as u64 + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read(&path).map_err(|error: std::io::Error| error.to_string())?;
    if bytes.len() > largest {
        return Err(format!("is larger than {} MiB, the most that is read of one", largest >> 20));
    }
    Ok(bytes)
}

pub(super) fn read_file(name: &str, faults: &Faults<'_>) -> Result<String, String> {
    let bytes = read_bytes(name, roots::LARGEST, faults)?;
    String::from_utf8(bytes).map_err(|_| "is not text: it is neither PEM nor a SPIFFE bundle".into())
}

type Lists = (Vec<Revoked<IdPattern>>, Vec<Revoked<String>>);

fn decode_revoked(map: &Field<'_>, trust_domain: &TrustDomain, faults: &mut Faults<'_>) -> Option<Lists> {
    let mut fields = map.fields(faults)?;
    let (ids, serials) = (fields.optional("spiffeIDs"), fields.optional("serials"));
    if ids.is_none() && serials.is_none() {
        faults.error(map.at(), &map.path, "revokes nothing", "give `spiffeIDs`, `serials`, or both");
    }
    fields.finish(faults);
    let own = |text: &str| own_pattern(text, trust_domain);
    let help = format!("an ID such as spiffe://{trust_domain}/app, or all under a path: spiffe://{trust_domain}/app/*");
    let ids = ids.map(|list| decode_list(&list, own, &help, faults)).unwrap_or_default();
    let help = "hex in quotes, at most 20 bytes, as `openssl x509 -serial` and `sluice connections -o json` print it";
    let serial = |text: &str| normal_serial(text).ok_or("not a serial");
    let serials = serials.map(|list| decode_list(&list, serial, help, faults)).unwrap_or_default();
    Some((ids, serials))
}

fn decode_list<T, E: std::fmt::Display>(
    list: &Field<'_>,
    parse: impl Fn(&str) -> Result<T, E>,
    help: &str,
    faults: &mut Faults<'_>,
) -> Vec<Revoked<T>> {
    let entries = list.list(faults).unwrap_or_default();
    let one = |entry: &Field<'_>| {
        Some(Revoked { what: entry.parsed(&parse, help, faults)?, place: faults.place(entry.at()) })
    };
    entries.iter().filter_map(one).collect()
}

fn own_pattern(text: &str, trust_domain: &TrustDomain) -> Result<IdPattern, String> {
    let pattern = parse_pattern(text).map_err(|error| error.to_string())?;
    match domain_of(&pattern) {
        own if own == trust_domain.as_str() => Ok(pattern),
        other => Err(format!("is of trust domain {other}, this TrustBundle is for {trust_domain}")),
    }
}

/// The trust domain of a pattern that parsed.
pub(crate) fn domain_of(pattern: &IdPattern) -> &str {
    let (IdPattern::Exact(text) | IdPattern::Under(text)) = pattern;
    text.split('/').nth(2).unwrap_or_default()
}

/// What no TrustBundle shows by itself.
pub fn lint(resources: &Resources, found: &mut Vec<Diagnostic>) {
    let mut by_domain: HashMap<&str, &TrustBundle> = HashMap::new();
    for bundle in &resources.bundles {
        let domain = bundle.trust_domain.as_str();
        if let Some(earlier) = by_domain.insert(domain, bundle) {
            let message =
                format!("trust domain {domain} has a TrustBundle already, {} in {}", earlier.name, earlier.place);
            found.push(Diagnostic::error(&bundle.place, "spec.trustDomain", message).help("put both into one"));
        }
    }
    let revoked = resources.bundles.iter().map(TrustBundle::revokes).sum::<usize>();
    if revoked > MOST_REVOKED {
        let message = format!("all TrustBundles revoke {revoked} IDs and serials, at most {MOST_REVOKED} are taken");
        let help = "revoke by path (spiffe://…/*), or take out serials whose certificates have ended";
        found.push(Diagnostic::error(&resources.bundles[0].place, "spec.revoked", message).help(help));
    }
    let own = resources.gateway.as_ref().map(|gateway| &gateway.trust_domain);
    // An agent may bring the roots of any trust domain.
    let sources = resources.gateway.iter().flat_map(|gateway| &gateway.identity);
    let federates = sources.into_iter().any(|named| matches!(named.source, IdentitySource::Spire(_)));
    endpoint::lint(&by_domain, own, federates, found);
    fetched::lint(&resources.bundles, found);
    let Some(own) = own else { return };
    let rootless = |b: &&TrustBundle| b.trust_domain != *own && b.roots.is_empty() && b.endpoint.is_none();
    for bundle in resources.bundles.iter().filter(rootless).filter(|_| !federates) {
        let message = format!(
            "no root: {} is not this node's own trust domain, so nobody of it could be verified",
            bundle.trust_domain
        );
        found.push(Diagnostic::error(&bundle.place, "spec.roots", message).help("give at least one root"));
    }
    if let Some(bundle) = by_domain.get(own.as_str()) {
        revoked_here(bundle, resources, found);
    }
    without_bundle(resources, |domain| federates || domain == own.as_str() || by_domain.contains_key(domain), found);
}

/// A workload of the configuration that its own trust domain revokes.
fn revoked_here(own: &TrustBundle, resources: &Resources, found: &mut Vec<Diagnostic>) {
    let (mut exact, mut under) = (HashMap::new(), HashMap::new());
    for entry in &own.revoked_ids {
        match &entry.what {
            IdPattern::Exact(id) => exact.insert(id.as_str(), entry),
            IdPattern::Under(path) => under.insert(path.as_str(), entry),
        };
    }
    for identity in &resources.identities {
        let id = identity.spiffe_id(&own.trust_domain);
        let id = id.as_str();
        let mut paths = id.match_indices('/').map(|(at, _)| &id[..=at]);
        if let Some(entry) = exact.get(id).or_else(|| paths.find_map(|path| under.get(path))) {
            let message = format!("{} ({}) is revoked: its calls are refused", identity.name, identity.place);
            found.push(Diagnostic::warning(&entry.place, "spec.revoked.spiffeIDs", message));
        }
    }
}

/// Lists, and allows of policies, that name somebody who cannot be verified.
fn without_bundle(resources: &Resources, known: impl Fn(&str) -> bool, found: &mut Vec<Diagnostic>) {
    for identity in &resources.identities {
        let egress = identity.egress.iter().filter_map(|entry| entry.allowed.as_ref());
        for list in identity.inbound.iter().chain(&identity.outbound).chain(egress) {
            if let Some(foreign) = list.patterns.iter().find(|pattern| !known(domain_of(pattern))) {
                let message = format!("{foreign} is of a trust domain without a TrustBundle: nobody of it is admitted");
                let help = "add a TrustBundle with its roots, or take the entry out";
                found.push(Diagnostic::warning(&list.place, "spec.allowedSPIFFEIDs", message).help(help));
            }
        }
    }
    // Who cannot be verified is refused in any case, so a deny does no harm.
    let rules = resources.policies.iter().flat_map(|policy| &policy.rules);
    for rule in rules.filter(|rule| rule.rule.action == Action::Allow) {
        if let Some(foreign) = rule.rule.peers.iter().find(|pattern| !known(domain_of(pattern))) {
            let message = format!("{foreign} is of a trust domain without a TrustBundle: nobody of it is admitted");
            let help = "add a TrustBundle with its roots, or take the peer out";
            found.push(Diagnostic::warning(&rule.place, "spec.rules.peers", message).help(help));
        }
    }
}

/// Roots that are over, or soon, or not valid yet, and stale CRLs. Time is no fault of a file: a node whose partner has
/// let its root run out still starts, and admits nobody of that trust domain.
pub fn expiry(bundles: &[TrustBundle], now: u64) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for bundle in bundles {
        for Root { certificate, place, path, .. } in &bundle.roots {
            let (subject, begins, ends) = (&certificate.subject, certificate.not_before, certificate.not_after);
            let (message, help) = if now > ends {
                (format!("root {subject} expired at {}: nobody is verified by it", utc(ends)), "take it out")
            } else if now < begins {
                (format!("root {subject} is not valid before {}", utc(begins)), "check the clock, or wait")
            } else if ends - now < SOON {
                (format!("root {subject} ends at {}", utc(ends)), "put its successor beside it before that")
            } else {
                continue;
            };
            found.push(Diagnostic::warning(place, path, message).help(help));
        }
    }
    found.extend(crls::expiry(bundles, now));
    found
}

/// When the next root ends, or the next CRL is stale.
pub fn next_end(bundles: &[TrustBundle], now: u64) -> Option<u64> {
    let ends = bundles.iter().flat_map(|bundle| bundle.valid_roots(now)).map(|root| root.certificate.not_after);
    ends.chain(crls::next_stale(bundles, now)).min()
}

const ROOT_HELP: &str = "PEM certificates or a SPIFFE bundle (JSON), in a file below the configuration directory";
const SOON: u64 = 30 * 86_400;
