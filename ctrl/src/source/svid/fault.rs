//! What can be wrong with an identity that somebody else issues: the file or socket that it came by, what
//! about it, the value, and what would be right.

use std::path::PathBuf;

use crate::config::SpiffeId;
use crate::rotate::utc;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("{}: has not been read yet", directory.display())]
    NotRead { directory: PathBuf },
    #[error("{}: {reason}", path.display())]
    Io { path: PathBuf, reason: String },
    #[error("{}: is no regular file", path.display())]
    NotAFile { path: PathBuf },
    #[error("{}: {size} bytes; at most {most} are read", path.display())]
    TooLarge { path: PathBuf, size: u64, most: u64 },
    #[error("{}: changed while it was read", path.display())]
    Changing { path: PathBuf },
    #[error(
        "{}: no layout that is known: want {wanted}, or `certificate`, `key` and `bundle` of the source; \
         there is {}", directory.display(), listed(found)
    )]
    Layout { directory: PathBuf, wanted: &'static str, found: Vec<String> },
    #[error(
        "{}: holds the files of two layouts ({first} and {second}): name `certificate`, `key` and `bundle` \
         in the source", directory.display()
    )]
    TwoLayouts { directory: PathBuf, first: &'static str, second: &'static str },
    #[error("{}: is missing; {role} is expected beside {beside}", path.display())]
    Missing { path: PathBuf, role: &'static str, beside: String },
    #[error(
        "{}: mode {mode:04o} lets everybody read a private key; run: chmod o-rwx {}",
        path.display(), path.display()
    )]
    Mode { path: PathBuf, mode: u32 },
    #[error("{}: {reason}", path.display())]
    Pem { path: PathBuf, reason: String },
    #[error("{}: holds no certificate (-----BEGIN CERTIFICATE-----)", path.display())]
    NoCertificate { path: PathBuf },
    #[error("{}: holds no private key; want PKCS#8, SEC1 (EC) or PKCS#1 (RSA) in PEM", path.display())]
    NoKey { path: PathBuf },
    #[error("{}: holds {count} private keys; want one", path.display())]
    SeveralKeys { path: PathBuf, count: usize },
    #[error(
        "{}: the private key is encrypted, and there is nobody to ask; decrypt it: openssl pkey -in {} -out NEW",
        path.display(), path.display()
    )]
    EncryptedKey { path: PathBuf },
    #[error("{}: the private key is none that TLS signs with here; want {wanted}", path.display())]
    KeyKind { path: PathBuf, wanted: &'static str },
    #[error("{}: {certificates} certificates; at most {most} make a chain", path.display())]
    LongChain { path: PathBuf, certificates: usize, most: usize },
    #[error(
        "{}: public key: {found}, is not that of the certificate in {} ({want})", key.display(), certificate.display()
    )]
    KeyMismatch { key: PathBuf, certificate: PathBuf, found: String, want: String },
    #[error("{}: certificate {nth}: {reason}", path.display())]
    Certificate { path: PathBuf, nth: usize, reason: String },
    #[error("{}: URI SAN: {found}; want {want} alone, which is the SPIFFE ID of {workload}", path.display())]
    OtherId { path: PathBuf, found: String, want: SpiffeId, workload: String },
    #[error("{}: URI SAN: {found}; want one of {want} alone", path.display())]
    NoneOf { path: PathBuf, found: String, want: String },
    #[error("{}: {field}: {found}; want {want} (X509-SVID §4)", path.display())]
    NotASvid { path: PathBuf, field: &'static str, found: &'static str, want: &'static str },
    #[error("{}: notBefore of {what}: {}; want a time before now, see the clocks", path.display(), utc(*at))]
    NotYetValid { path: PathBuf, what: String, at: u64 },
    #[error("{}: notAfter of {what}: {}; expired, want one that is renewed", path.display(), utc(*at))]
    Expired { path: PathBuf, what: String, at: u64 },
    #[error("{}: the chain leads to none of the {roots} roots in {}: {reason}", path.display(), bundle.display())]
    Chain { path: PathBuf, bundle: PathBuf, roots: usize, reason: String },
    #[error("{}: {count} certificates; at most {most} roots are taken of one bundle", path.display())]
    ManyRoots { path: PathBuf, count: usize, most: usize },
    #[error("{}: root {nth}: {reason}", path.display())]
    Root { path: PathBuf, nth: usize, reason: String },
    #[error(
        "{}: holds no root (a self-signed CA certificate): name a file with the roots as `bundle` of the source",
        path.display()
    )]
    NoRoot { path: PathBuf },
    #[error("{}: all {count} roots have expired, the last at {}", path.display(), utc(*at))]
    RootsExpired { path: PathBuf, count: usize, at: u64 },
}

fn listed(found: &[String]) -> String {
    match found {
        [] => "nothing".into(),
        some => some.join(", "),
    }
}
