//! Certificates for tests: roots of a trust domain, and whatever is none.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose, SanType, date_time_ymd};

pub const NOW: u64 = 1_800_000_000;
pub const YEAR: u64 = 365 * 86_400;

/// What a certificate says; [`Says::root`] is a good one.
pub struct Says {
    pub name: String,
    pub id: Option<String>,
    pub ca: bool,
    pub usages: Vec<KeyUsagePurpose>,
    pub life: (u64, u64),
}

impl Says {
    pub fn root(trust_domain: &str) -> Self {
        Self {
            name: format!("{trust_domain} root"),
            id: Some(format!("spiffe://{trust_domain}")),
            ca: true,
            usages: vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign],
            life: (NOW - YEAR, NOW + YEAR),
        }
    }

    pub fn sign(&self) -> rcgen::Certificate {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, self.name.clone());
        params.is_ca = if self.ca { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::ExplicitNoCa };
        params.key_usages = self.usages.clone();
        params.subject_alt_names = self.id.iter().map(|id| SanType::URI(id.as_str().try_into().unwrap())).collect();
        let at = |seconds| date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds);
        (params.not_before, params.not_after) = (at(self.life.0), at(self.life.1));
        params.self_signed(&KeyPair::generate().unwrap()).unwrap()
    }
}

pub fn root(trust_domain: &str) -> rcgen::Certificate {
    Says::root(trust_domain).sign()
}

/// A SPIFFE bundle with these roots, and a key for JWTs that is none.
pub fn spiffe_bundle(roots: &[rcgen::Certificate]) -> String {
    let x5c = |root: &rcgen::Certificate| root.pem().lines().filter(|line| !line.starts_with('-')).collect::<String>();
    let key = |root| serde_json::json!({ "use": "x509-svid", "kty": "EC", "x5c": [x5c(root)] });
    let jwt = serde_json::json!({ "use": "jwt-svid", "kty": "EC", "kid": "1", "crv": "P-256", "x": "a", "y": "b" });
    let keys: Vec<_> = roots.iter().map(key).chain([jwt]).collect();
    serde_json::json!({ "keys": keys, "spiffe_sequence": 1, "spiffe_refresh_hint": 300 }).to_string()
}

/// A TrustBundle with these lines in its spec.
pub fn trust_bundle(name: &str, spec: &str) -> String {
    let lines: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    format!("apiVersion: sluice.dev/v1alpha1\nkind: TrustBundle\nmetadata: {{ name: {name} }}\nspec:\n{lines}")
}

/// `roots` with one entry of text.
pub fn inline(pem: &str) -> String {
    let lines: String = pem.lines().map(|line| format!("      {line}\n")).collect();
    format!("roots:\n  - pem: |\n{lines}")
}
