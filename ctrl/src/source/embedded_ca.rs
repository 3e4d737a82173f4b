//! The embedded CA: a root made once and put away, an intermediate per node, SVIDs from that.
//!
//! ```text
//!   root.crt, root.key    10 years, path length 1    `sluice ca init`, then off the nodes
//!        │ signs
//!   node.crt, node.key    1 year, path length 0      `sluice ca issue-node`, beside bundle.pem
//!        │ signs
//!   SVIDs                 minutes to hours           here, in memory only
//! ```
//! All keys are P-256. CAs carry their trust domain as a SPIFFE ID without a path (X509-SVID §3.2).
//! They carry no URI name constraint, although it would bind them to it: webpki, which rustls
//! verifies by, refuses every URI below a CA that has one.

use std::path::Path;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyUsagePurpose, SanType, SerialNumber,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use snapshot::channel::PrivateKey;
use snapshot::{Bundle, KeyId, Svid};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};
use zeroize::Zeroize as _;

use super::signer::Signer;
use super::{Error, IssuedSvid, Source, Wanted, keyfile};
use crate::config::roots::{broken_pem, signed_by};
use crate::config::{SpiffeId, TrustDomain};

/// Makes `root.crt` and `root.key` in `dir`.
pub fn init(dir: &Path, trust_domain: &TrustDomain, now: u64) -> Result<(), Error> {
    let mut params = ca_params(trust_domain, &format!("Sluice root of {trust_domain}"), 1, now, now + ROOT_LIFE)?;
    params.use_authority_key_identifier_extension = false;
    let (signer, pkcs8) = Signer::generate()?;
    let certificate = params.self_signed(&signer).map_err(crypto("root certificate"))?;
    keyfile::create_dir(dir)?;
    keyfile::absent(&[&dir.join("root.key"), &dir.join("root.crt")])?;
    keyfile::create(&dir.join("root.key"), keyfile::pem(&pkcs8).as_bytes(), 0o600)?;
    keyfile::create(&dir.join("root.crt"), certificate.pem().as_bytes(), 0o644)
}

/// Makes `node.crt`, `node.key` and `bundle.pem` in `out`, signed by the root in `root`.
pub fn issue_node(root: &Path, node: &str, out: &Path, now: u64) -> Result<(), Error> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if node.is_empty() || node.len() > 63 || !node.chars().all(allowed) {
        return Err(Error::Node(node.to_owned()));
    }
    let (root_crt, root_key) = (root.join("root.crt"), root.join("root.key"));
    let ca = Authority::open(&root_crt, &root_key)?;
    ca.check_valid(now)?;
    let domain = ca
        .trust_domain
        .as_ref()
        .ok_or_else(|| Error::File { path: root_crt, reason: "carries no SPIFFE ID of a trust domain".into() })?;
    let until = ca.not_after.min(now + NODE_LIFE);
    let params = ca_params(domain, &format!("Sluice node {node} of {domain}"), 0, now, until)?;
    let (signer, pkcs8) = Signer::generate()?;
    let certificate = params.signed_by(&signer, &ca.issuer).map_err(crypto("node certificate"))?;
    let [crt, key, bundle] = ["node.crt", "node.key", "bundle.pem"].map(|name| out.join(name));
    keyfile::create_dir(out)?;
    keyfile::absent(&[&crt, &key, &bundle])?;
    keyfile::create(&key, keyfile::pem(&pkcs8).as_bytes(), 0o600)?;
    keyfile::create(&crt, certificate.pem().as_bytes(), 0o644)?;
    keyfile::create(&bundle, keyfile::read_public(&root.join("root.crt"))?.as_bytes(), 0o644)
}

/// A node's intermediate, ready to sign.
#[derive(Debug)]
pub struct EmbeddedCa {
    node: Authority,
    roots: Vec<Vec<u8>>,
    trust_domain: TrustDomain,
    ttl: Duration,
}

impl EmbeddedCa {
    /// Reads `node.crt`, `node.key` and `bundle.pem`. The time to live is an hour until [`Self::with`].
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let (crt, bundle) = (dir.join("node.crt"), dir.join("bundle.pem"));
        let node = Authority::open(&crt, &dir.join("node.key"))?;
        let roots = certificates(&bundle)?;
        let fault = |reason: &str| Error::File { path: crt.clone(), reason: reason.into() };
        let trust_domain = node.trust_domain.clone();
        let trust_domain = trust_domain.ok_or_else(|| fault("carries no SPIFFE ID of a trust domain"))?;
        let last = node.chain.last().ok_or_else(|| fault("holds no certificate"))?;
        if !roots.iter().any(|root| signed_by(last, root)) {
            return Err(fault("is signed by none of the roots in bundle.pem"));
        }
        Ok(Self { node, roots, trust_domain, ttl: DEFAULT_TTL })
    }

    /// Of which its certificate says it is a CA.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// SVIDs live this long from now on.
    pub fn with(self, ttl: Duration) -> Self {
        Self { ttl, ..self }
    }

    /// When the node's own certificate ends, in seconds since the epoch.
    pub fn not_after(&self) -> u64 {
        self.node.not_after
    }

    /// Issues an SVID that lives `ttl`, or as long as its issuer if that is less.
    pub fn issue_svid(
        &self,
        id: &SpiffeId,
        dns_names: &[String],
        ttl: Duration,
        now: u64,
    ) -> Result<IssuedSvid, Error> {
        let ttl = ttl.as_secs();
        if ttl < SHORTEST_TTL {
            return Err(Error::Ttl(ttl));
        }
        self.node.check_valid(now)?;
        if id.trust_domain() != self.trust_domain.as_str() {
            return Err(Error::ForeignId { id: id.clone(), domain: self.trust_domain.clone() });
        }
        // Verifiers whose clock is a little behind take it too; a short life is not doubled by that.
        let not_before = now - BACK_DATED.min(ttl / 2);
        let not_after = now.saturating_add(ttl).min(self.node.not_after);
        let mut params = leaf_params(id, dns_names)?;
        set_life(&mut params, not_before, not_after)?;
        let (signer, pkcs8) = Signer::generate()?;
        let serial = random_serial()?;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        let leaf = params.signed_by(&signer, &self.node.issuer).map_err(crypto("SVID"))?;
        let mut chain = vec![leaf.der().to_vec()];
        chain.extend(self.node.chain.iter().cloned());
        let serial = serial.iter().map(|byte| format!("{byte:02x}")).collect();
        let svid = Svid { chain, key: KeyId(signer.key_id()), serial, not_before, not_after };
        Ok(IssuedSvid { svid, key: PrivateKey::new(pkcs8.to_vec()) })
    }
}

impl Source for EmbeddedCa {
    fn issue(&self, wanted: &Wanted, now: u64) -> Result<IssuedSvid, Error> {
        self.issue_svid(&wanted.id, &wanted.dns_names, self.ttl, now)
    }

    fn bundle(&self) -> Bundle {
        Bundle { trust_domain: self.trust_domain.to_string(), roots: self.roots.clone() }
    }

    /// Of another signer its root may be none of this node's any more.
    fn stands_by(&self, svid: &Svid) -> bool {
        svid.chain.get(1..) == Some(self.node.chain.as_slice())
    }

    fn warnings(&self, now: u64) -> Vec<String> {
        let left = self.node.not_after.saturating_sub(now);
        let until = crate::rotate::utc(self.node.not_after);
        match left {
            0 => vec![format!(
                "the node's CA certificate expired at {until}: no SVID is renewed; run sluice ca issue-node"
            )],
            _ if left < RENEW_NODE => {
                vec![format!("the node's CA certificate ends at {until}: run sluice ca issue-node before")]
            }
            _ => Vec::new(),
        }
    }
}

/// A CA's certificate with its key, read from files.
struct Authority {
    path: std::path::PathBuf,
    /// DER; the CA's own first, further intermediates after it.
    chain: Vec<Vec<u8>>,
    issuer: Issuer<'static, Signer>,
    trust_domain: Option<TrustDomain>,
    not_before: u64,
    not_after: u64,
}

impl Authority {
    fn open(crt: &Path, key: &Path) -> Result<Self, Error> {
        let fault = |reason: String| Error::File { path: crt.to_owned(), reason };
        let pem = keyfile::read(key)?;
        let mut pkcs8 = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| Error::File { path: key.to_owned(), reason: "holds no PKCS#8 private key".into() })?;
        let signer = Signer::from_pkcs8(pkcs8.secret_pkcs8_der())
            .map_err(|_| Error::File { path: key.to_owned(), reason: "holds no P-256 private key".into() });
        pkcs8.zeroize();
        let signer = signer?;
        let chain = certificates(crt)?;
        let own = chain.first().ok_or_else(|| fault("holds no certificate".into()))?;
        let (_, parsed) = X509Certificate::from_der(own).map_err(|error| fault(error.to_string()))?;
        if parsed.public_key().subject_public_key.data.as_ref() != signer.public_key() {
            return Err(fault(format!("does not belong to the key in {}", key.display())));
        }
        if !parsed.is_ca() {
            return Err(fault("is not a CA certificate".into()));
        }
        let seconds = |at: i64| u64::try_from(at).unwrap_or(0);
        let (not_before, not_after) =
            (seconds(parsed.validity().not_before.timestamp()), seconds(parsed.validity().not_after.timestamp()));
        let trust_domain = trust_domain_of(&parsed);
        let issuer = Issuer::from_ca_cert_der(&CertificateDer::from(own.as_slice()), signer)
            .map_err(|error| fault(error.to_string()))?;
        Ok(Self { path: crt.to_owned(), chain, issuer, trust_domain, not_before, not_after })
    }

    fn check_valid(&self, now: u64) -> Result<(), Error> {
        let wrong = |what, at| Err(Error::IssuerNotValid { path: self.path.clone(), what, at });
        match now {
            _ if now < self.not_before => wrong("is not valid before", self.not_before),
            _ if now >= self.not_after => wrong("expired at", self.not_after),
            _ => Ok(()),
        }
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("path", &self.path)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

fn ca_params(
    domain: &TrustDomain,
    name: &str,
    path_length: u8,
    now: u64,
    until: u64,
) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished_name(Some(name));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.subject_alt_names = vec![uri(&format!("spiffe://{domain}"))?];
    params.serial_number = Some(SerialNumber::from_slice(&random_serial()?));
    params.use_authority_key_identifier_extension = true;
    set_life(&mut params, now.saturating_sub(CA_BACK_DATED), until)?;
    Ok(params)
}

/// X509-SVID §4: one URI SAN, not a CA, digitalSignature (critical), both roles of TLS.
fn leaf_params(id: &SpiffeId, dns_names: &[String]) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished_name(None);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    params.subject_alt_names = vec![uri(id.as_str())?];
    for name in dns_names {
        let name = name.as_str().try_into().map_err(crypto("DNS SAN"))?;
        params.subject_alt_names.push(SanType::DnsName(name));
    }
    Ok(params)
}

/// `O=SPIFFE`: a subject that is empty would have to make the SAN critical (RFC 5280 §4.1.2.6).
fn distinguished_name(common_name: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "SPIFFE");
    if let Some(common_name) = common_name {
        // X.520 allows 64 characters; the SPIFFE ID is in the SAN in full.
        name.push(DnType::CommonName, common_name.chars().take(64).collect::<String>());
    }
    name
}

fn uri(text: &str) -> Result<SanType, Error> {
    Ok(SanType::URI(text.try_into().map_err(crypto("URI SAN"))?))
}

/// The trust domain in the one URI SAN of a CA.
fn trust_domain_of(certificate: &X509Certificate<'_>) -> Option<TrustDomain> {
    let names = certificate.subject_alternative_name().ok().flatten()?;
    let mut ids = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => uri.strip_prefix("spiffe://"),
        _ => None,
    });
    TrustDomain::parse(ids.next()?).ok()
}

fn certificates(path: &Path) -> Result<Vec<Vec<u8>>, Error> {
    let text = keyfile::read_public(path)?;
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(text.as_bytes()).map(|one| one.map(|der| der.to_vec())).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(Error::File { path: path.to_owned(), reason: "holds no certificate".into() }),
        Err(error) => Err(Error::File { path: path.to_owned(), reason: broken_pem(&error) }),
    }
}

/// 16 bytes, positive, without leading zeros, so that it reads the same everywhere (RFC 5280 §4.1.2.2).
fn random_serial() -> Result<[u8; 16], Error> {
    let mut serial = [0; 16];
    aws_lc_rs::rand::fill(&mut serial).map_err(|_| Error::Crypto { what: "serial", reason: "no randomness".into() })?;
    serial[0] = (serial[0] & 0x7f) | 0x40;
    Ok(serial)
}

/// Any times that a certificate can hold.
fn set_life(params: &mut CertificateParams, from: u64, until: u64) -> Result<(), Error> {
    if until >= YEAR_10000 {
        return Err(Error::Crypto { what: "validity", reason: format!("{until} s is past the year 9999") });
    }
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(from);
    params.not_after = epoch + Duration::from_secs(until);
    Ok(())
}

fn crypto(what: &'static str) -> impl Fn(rcgen::Error) -> Error {
    move |error| Error::Crypto { what, reason: error.to_string() }
}

const ROOT_LIFE: u64 = 3_652 * 86_400;
const NODE_LIFE: u64 = 365 * 86_400;
/// A node's CA with less left than this is warned about.
const RENEW_NODE: u64 = 30 * 86_400;
const CA_BACK_DATED: u64 = 300;
const BACK_DATED: u64 = 30;
const SHORTEST_TTL: u64 = 2;
const DEFAULT_TTL: Duration = Duration::from_secs(3_600);
const YEAR_10000: u64 = 253_402_300_800;
