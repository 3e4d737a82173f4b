//! `spec.endpoint` of a TrustBundle: where the bundle of a trust domain is fetched from, and who has to be there
//! (SPIFFE Federation §5).
//!
//! ```text
//!   url: https://spire.partner.org:8443
//!   profile: https_web                # a certificate of the web, or of `roots: { file: web.pem }`
//!   profile: https_spiffe             # the SVID of exactly this ID
//!   endpointSPIFFEID: spiffe://partner.org/spire/server
//! ```
//! Whoever is there says whom to trust, so nobody is believed for being there first: `https_spiffe` begins with
//! the TrustBundle's own `roots`, or with the bundle of another trust domain.

use std::collections::HashMap;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};

use super::decode::{Faults, Field};
use super::trust::{Root, read_bytes};
use super::{Diagnostic, Place, SpiffeId, TrustBundle, TrustDomain, roots};
use crate::web::{BadUrl, Url, tls};

#[derive(Debug, Clone, PartialEq)]
pub struct Endpoint {
    pub url: Url,
    pub profile: Profile,
    /// Instead of what the bundle itself hints at.
    pub refresh: Option<Duration>,
    /// `spec.roots`: they hold until a bundle was got, and no longer.
    pub initial: Vec<Root>,
    pub place: Place,
    pub path: String,
}

/// Who has to be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Profile {
    /// A holder of the URL's name, by the system's roots or by these (PEM).
    Web { roots: Option<Vec<u8>> },
    /// Who has exactly this ID.
    Spiffe { id: SpiffeId },
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Web,
    Spiffe,
}

const PROFILES: &[(&str, Kind)] = &[("https_web", Kind::Web), ("https_spiffe", Kind::Spiffe)];

impl Profile {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Web { .. } => "https_web",
            Self::Spiffe { .. } => "https_spiffe",
        }
    }
}

impl Endpoint {
    /// What it begins with, and who has to be there. A bundle that was got goes on from there: with another, it does
    /// not, or what a wrong one said would be believed after it was corrected.
    pub fn origin(&self) -> [u8; 32] {
        let mut ders: Vec<_> = self.initial.iter().map(|root| root.certificate.der.as_slice()).collect();
        ders.sort_unstable();
        let host = self.url.host().to_ascii_lowercase();
        let server = format!("{} {}", host, self.url.port());
        let who: [&[u8]; 3] = match &self.profile {
            // By that name it proves who it is.
            Profile::Web { roots } => [b"web", server.as_bytes(), roots.as_deref().unwrap_or_default()],
            Profile::Spiffe { id } => [b"spiffe", id.as_str().as_bytes(), b""],
        };
        let mut context = Context::new(&SHA256);
        for part in who.into_iter().chain(ders) {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
    }
}

/// Without what it begins with.
pub fn decode(map: &Field<'_>, faults: &mut Faults<'_>) -> Option<Endpoint> {
    let mut fields = map.fields(faults)?;
    let url = fields.required("url", faults);
    let profile = fields.required("profile", faults);
    let (id, web) = (fields.optional("endpointSPIFFEID"), fields.optional("roots"));
    let refresh = fields.optional("refreshInterval");
    fields.finish(faults);
    let url = url.and_then(|field| decode_url(&field, false, faults));
    let kind = profile.and_then(|field| field.choice(PROFILES, faults));
    let refresh = refresh.map(|field| field.duration(SHORTEST..=LONGEST, faults));
    let given = |field: &Option<Field<'_>>| field.as_ref().map(|field| (field.at(), field.path.clone()));
    let (of_id, of_web) = (given(&id), given(&web));
    let id = id.map(|field| field.parsed(SpiffeId::parse, ID_HELP, faults));
    let web = web.map(|field| decode_web_roots(&field, faults));
    let profile = match (kind?, id, web) {
        (Kind::Web, None, roots) => Profile::Web { roots: roots.map_or(Some(None), |roots| roots.map(Some))? },
        (Kind::Spiffe, Some(id), None) => Profile::Spiffe { id: id? },
        (Kind::Web, Some(_), _) => {
            let (at, path) = of_id.expect("it is given");
            faults.error(at, &path, "is for the profile https_spiffe", "take it out, or change the profile");
            return None;
        }
        (Kind::Spiffe, _, Some(_)) => {
            let (at, path) = of_web.expect("it is given");
            let help = "take it out: `spec.roots` is what https_spiffe begins with";
            faults.error(at, &path, "is for the profile https_web", help);
            return None;
        }
        (Kind::Spiffe, None, None) => {
            faults.error(map.at(), &format!("{}.endpointSPIFFEID", map.path), "is missing", ID_HELP);
            return None;
        }
    };
    let refresh = refresh.map_or(Some(None), |refresh| refresh.map(Some))?;
    let (place, path) = (faults.place(map.at()), map.path.clone());
    Some(Endpoint { url: url?, profile, refresh, initial: vec![], place, path })
}

/// The value of one that is wrong is shown nowhere: it may hold a password.
pub fn decode_url(field: &Field<'_>, plain_too: bool, faults: &mut Faults<'_>) -> Option<Url> {
    let text = field.text(faults)?;
    let checked = Url::parse(text).and_then(|url| match url.is_plain() && !plain_too {
        true => Err(BadUrl::Scheme),
        false => Ok(url),
    });
    let help =
        if plain_too { "such as http://pki.partner.org/ca.crl" } else { "such as https://spire.partner.org:8443" };
    checked
        .map_err(|why| {
            let fault = Diagnostic::error(&faults.place(field.at()), &field.path, why.to_string());
            faults.found.push(fault.help(help));
        })
        .ok()
}

/// The PEM of a file that roots were found in.
fn decode_web_roots(map: &Field<'_>, faults: &mut Faults<'_>) -> Option<Vec<u8>> {
    let mut fields = map.fields(faults)?;
    let file = fields.required("file", faults);
    fields.finish(faults);
    let field = file?;
    let name = field.text(faults)?;
    let read = read_bytes(name, roots::LARGEST, faults);
    match read.and_then(|pem| tls::roots(&pem).map(|_| pem)) {
        Ok(pem) => Some(pem),
        Err(why) => {
            let help = "PEM certificates in a file below the configuration directory, or no `roots` for the system's";
            faults.error(field.at(), &field.path, format!("{name:?}: {why}"), help);
            None
        }
    }
}

/// By trust domain.
type Bundles<'b> = HashMap<&'b str, &'b TrustBundle>;

/// Endpoints that could not prove who they are, or whose bundle nobody would take. `own` is the Gateway's trust
/// domain, if there is one; `federates`: a source may bring the roots of others.
pub fn lint(by_domain: &Bundles<'_>, own: Option<&TrustDomain>, federates: bool, found: &mut Vec<Diagnostic>) {
    let mut endpoints: Vec<_> =
        by_domain.values().filter_map(|bundle| Some((*bundle, bundle.endpoint.as_ref()?))).collect();
    endpoints.sort_by_key(|(bundle, _)| &bundle.name);
    for (bundle, endpoint) in endpoints {
        let mut wrong = |path: &str, message: String, help: &str| {
            found.push(Diagnostic::error(&endpoint.place, path, message).help(help));
        };
        if own == Some(&bundle.trust_domain) {
            let message = format!(
                "{} is this node's own trust domain: its roots come from the identity sources",
                bundle.trust_domain
            );
            wrong("spec.endpoint", message, "take it out; `roots` are added to those of the sources");
            continue;
        }
        let Profile::Spiffe { id } = &endpoint.profile else { continue };
        if is_grounded(bundle, by_domain, own, federates) {
            continue;
        }
        match id.trust_domain() == bundle.trust_domain.as_str() {
            true => {
                let message = "no root to begin with: whoever answers first would be believed".to_owned();
                wrong("spec.roots", message, "give the bundle as it is now, in a file that came by another way");
            }
            false => {
                let message = format!("{id} is of a trust domain by whose bundle nobody can be verified here");
                let help = "add a TrustBundle with its roots, or `roots` here and an ID of the trust domain itself";
                wrong("spec.endpoint.endpointSPIFFEID", message, help);
            }
        }
    }
}

/// Whether its endpoint can be verified by something that was not fetched from it.
fn is_grounded(bundle: &TrustBundle, by_domain: &Bundles<'_>, own: Option<&TrustDomain>, federates: bool) -> bool {
    let mut at = bundle;
    // As many steps as there are bundles, or they go round.
    for _ in 0..=by_domain.len() {
        let Some(endpoint) = &at.endpoint else { return federates || !at.roots.is_empty() };
        let Profile::Spiffe { id } = &endpoint.profile else { return true };
        let domain = id.trust_domain();
        if domain == at.trust_domain.as_str() {
            return !endpoint.initial.is_empty();
        }
        // Without a Gateway nobody knows which one is the own.
        if own.is_none_or(|own| own.as_str() == domain) {
            return true;
        }
        match by_domain.get(domain) {
            Some(next) => at = next,
            None => return federates,
        }
    }
    false
}

/// Between two looks at what somebody else keeps.
pub const SHORTEST: Duration = Duration::from_secs(1);
pub const LONGEST: Duration = Duration::from_secs(7 * 86_400);
const ID_HELP: &str = "the ID of the endpoint's SVID, such as spiffe://partner.org/spire/server";
