//! Whether the files of an identity are right together, before any of them is taken.
//!
//! What they hold is held to the rules of [`svid`].

use std::path::{Path, PathBuf};

use super::layout::Paths;
use super::pem::{Blocks, blocks};
use super::read;
use crate::source::IssuedSvid;
use crate::source::svid::{self, Expected, Fault, Origin, key};

/// An SVID with its key and the roots that it came with; all of it right when it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub issued: IssuedSvid,
    /// DER, without those that have expired.
    pub roots: Vec<Vec<u8>>,
    /// What is taken and still not as it should be.
    pub warnings: Vec<String>,
    pub certificate: PathBuf,
    /// `namespace/name`.
    pub workload: String,
}

impl Identity {
    /// What time alone changes.
    pub fn check_time(&self, now: u64) -> Result<(), Fault> {
        let life = (self.issued.svid.not_before, self.issued.svid.not_after);
        svid::within(&self.certificate, "its chain", life, now)
    }
}

pub fn check(paths: &Paths, expected: &Expected, now: u64) -> Result<Identity, Fault> {
    let files = Files::read(paths)?;
    let (chain, found_roots) = files.certificates(paths)?;
    let origin = Origin { certificate: &paths.certificate, key: &paths.key, bundle: &paths.bundle };
    let issued = svid::check_leaf(&chain, || files.key(paths), &origin, expected, now)?;
    let mut warnings = files.warnings;
    let roots = svid::check_roots(&found_roots, expected.trust_domain.as_str(), &paths.bundle, now, &mut warnings)?;
    svid::check_chain(&chain, &roots, &origin, now, &mut warnings)?;
    Ok(Identity {
        issued,
        roots,
        warnings,
        certificate: paths.certificate.clone(),
        workload: expected.workload.clone(),
    })
}

/// Certificates, as they are signed.
type Ders = Vec<Vec<u8>>;

/// All blocks of all files; a file that is two of them is read once, so that it is one state.
struct Files {
    certificate: Blocks,
    key: Option<Blocks>,
    bundle: Option<Blocks>,
    warnings: Vec<String>,
}

impl Files {
    fn read(paths: &Paths) -> Result<Self, Fault> {
        let mut warnings = Vec::new();
        let mut one = |path: &Path| -> Result<Blocks, Fault> {
            let content = read::read(path)?;
            let found = blocks(path, &content.bytes)?;
            if !found.keys.is_empty() || found.encrypted {
                warnings.extend(check_mode(path, content.mode)?);
            }
            Ok(found)
        };
        let certificate = one(&paths.certificate)?;
        let key = if paths.key == paths.certificate { None } else { Some(one(&paths.key)?) };
        let bundle = if paths.bundle == paths.certificate { None } else { Some(one(&paths.bundle)?) };
        Ok(Self { certificate, key, bundle, warnings })
    }

    /// The chain, leaf first and without a root, and the roots. Where there is one file for both, the
    /// self-signed ones of it are the roots.
    fn certificates(&self, paths: &Paths) -> Result<(Ders, Ders), Fault> {
        let given = &self.certificate.certificates;
        let Some((leaf, rest)) = given.split_first() else {
            return Err(Fault::NoCertificate { path: paths.certificate.clone() });
        };
        let (own_roots, between): (Vec<_>, Vec<_>) = rest.iter().cloned().partition(|one| svid::self_signed(one));
        let chain: Vec<_> = std::iter::once(leaf.clone()).chain(between).collect();
        match &self.bundle {
            None if own_roots.is_empty() => Err(Fault::NoRoot { path: paths.bundle.clone() }),
            None => Ok((chain, own_roots)),
            Some(bundle) if bundle.certificates.is_empty() => Err(Fault::NoCertificate { path: paths.bundle.clone() }),
            Some(bundle) => Ok((chain, bundle.certificates.clone())),
        }
    }

    fn key(&self, paths: &Paths) -> Result<key::Key, Fault> {
        let found = self.key.as_ref().unwrap_or(&self.certificate);
        let path = paths.key.clone();
        match found.keys.as_slice() {
            _ if found.encrypted => Err(Fault::EncryptedKey { path }),
            [] => Err(Fault::NoKey { path }),
            [(form, der)] => key::import(*form, der).ok_or(Fault::KeyKind { path, wanted: key::KINDS }),
            several => Err(Fault::SeveralKeys { path, count: several.len() }),
        }
    }
}

/// Refused where everybody can read it, as the embedded CA's key is, though a group may (`fsGroup`).
/// In a volume of the kubelet that is only warned about: its files are 0644 unless the pod's author
/// says otherwise, and no other user reaches the directory of a pod's volumes.
fn check_mode(path: &Path, mode: u32) -> Result<Option<String>, Fault> {
    if mode & 0o007 == 0 {
        return Ok(None);
    }
    let volume = path.with_file_name("..data").symlink_metadata().is_ok();
    if !volume {
        return Err(Fault::Mode { path: path.to_owned(), mode });
    }
    let shown = path.display();
    Ok(Some(format!("{shown}: mode {mode:04o} lets everybody read a private key; set defaultMode: 0400 on the volume")))
}
