//! Which root a peer's chain led to, in a form that outlasts the bundle that the root came in.
//!
//! A living connection stays as long as its root is trusted. The root may come again in another
//! file, in another place of the bundle, or signed anew for longer: what makes it the same root is
//! what a path is built to, its name, its key and the names that it is bound to.

use std::sync::Arc;

use ::snapshot::root_material;
use aws_lc_rs::digest::{SHA256, digest};
use rustls_pki_types::TrustAnchor;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::identity::quoted;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// SHA-256 of what makes it the same root.
    digest: [u8; 32],
    /// Its subject, for people.
    name: Box<str>,
}

impl Root {
    /// `der` is the certificate that `anchor` was read from.
    pub(super) fn of(anchor: &TrustAnchor<'_>, der: &[u8]) -> Arc<Self> {
        let constraints = anchor.name_constraints.as_ref().map(|names| names.as_ref());
        let material = root_material(&anchor.subject, &anchor.subject_public_key_info, constraints);
        let digest = digest(&SHA256, &material);
        let name = match X509Certificate::from_der(der) {
            Ok((_, certificate)) => quoted(&certificate.subject().to_string()).into(),
            Err(_) => "of an unreadable name".into(),
        };
        Arc::new(Self { digest: digest.as_ref().try_into().expect("SHA-256 has 32 bytes"), name })
    }

    /// Of a peer that only somebody's question is about.
    pub fn of_nobody() -> Arc<Self> {
        Arc::new(Self { digest: [0; 32], name: "nobody's".into() })
    }

    pub fn is(&self, other: &Self) -> bool {
        self.digest == other.digest
    }

    /// Lower-case hex.
    pub fn id(&self) -> String {
        self.digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub fn name(&self) -> &str {
        &self.name
    }
}
