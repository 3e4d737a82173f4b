//! From a leaf up to a root of its trust domain: the path, and every certificate on it held to the
//! rules (RFC 5280 §6.1, RFC 4158).
//!
//! ```text
//!   leaf ──signed by?──▶ issuer 1 ──signed by?──▶ … ──signed by?──▶ root
//!     └──────────── judged together, once a root has been reached ───┘
//! ```
//! Whoever presents a chain chooses how hard it is to search. So what is presented is bounded before
//! it is parsed, each signature is checked once, and a [`Budget`] ends the search. webpki is not
//! asked for the path: it refuses every URI below a CA that constrains URIs, where X509-SVID §4.2
//! wants it compared, and knows no keyUsage.

use ::snapshot::RefuseReason::{PeerBadCertificate, PeerUntrusted};
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm};

use super::certificate::{Certificate, Fault, Place, oids};
use super::constraints::COMPARED;
use super::credentials::Roots;
use super::identity::quoted;
use super::issued::Issued;
use super::verified::Role;
use super::{Refusal, rules};

/// Certificates that a peer may present, its leaf among them.
pub(super) const MAX_PRESENTED: usize = 8;

/// Bytes of one. An SVID has 1 to 2 KiB; with a SPIFFE ID and signatures as long as they come, 12.
pub(super) const MAX_CERTIFICATE: usize = 16 << 10;

/// Refuses before anything of it is parsed.
pub(super) fn check_size(leaf: &CertificateDer<'_>, above: &[CertificateDer<'_>]) -> Result<(), Refusal> {
    let count = 1 + above.len();
    if count > MAX_PRESENTED {
        let what = format!("{count} certificates were presented; {MAX_PRESENTED} are the most");
        return Err(Refusal::new(PeerBadCertificate, what));
    }
    let sizes = std::iter::once(leaf).chain(above).map(|der| der.len());
    match sizes.enumerate().find(|(_, size)| *size > MAX_CERTIFICATE) {
        Some((index, size)) => {
            let what = format!("it has {size} bytes; {MAX_CERTIFICATE} are the most");
            Err(Fault::bad(what).of(&Place::presented(index)))
        }
        None => Ok(()),
    }
}

/// What a path is asked for.
pub(super) struct Question<'q> {
    pub algorithms: &'q [&'q dyn SignatureVerificationAlgorithm],
    pub roots: &'q Roots,
    pub role: Role,
    /// Seconds since the epoch.
    pub now: i64,
}

/// The seconds, both included, in which every certificate of a path is valid.
pub(super) type Window = (i64, i64);

/// What was found to be right.
pub(super) struct Path {
    pub valid: Window,
    /// Where it ends; indexes the roots that were asked.
    pub root: usize,
    /// Of each certificate below it, the leaf's first.
    pub issued: Vec<Issued>,
}

impl Question<'_> {
    /// `leaf` has passed [`rules::leaf`]; `above` is what was presented with it.
    pub fn answer(&self, leaf: Certificate<'_>, above: &[CertificateDer<'_>]) -> Result<Path, Refusal> {
        let mut certificates = vec![leaf];
        let mut refusal = Best::default();
        for (index, der) in above.iter().enumerate() {
            match Certificate::read(der) {
                Ok(certificate) => certificates.push(certificate),
                // It may be one that the path does not need (RFC 8446 §4.4.2).
                Err(fault) => refusal.note(Rank::Unreadable, || fault.of(&Place::presented(index + 1))),
            }
        }
        let mut search = Search {
            question: self,
            certificates: &certificates,
            checked: Vec::new(),
            budget: Budget::default(),
            refusal,
        };
        search.climb(&mut vec![0]).ok_or_else(|| search.refusal.take())
    }
}

/// What is left of what one verdict may cost.
struct Budget {
    /// The costliest, on the larger curves, take a millisecond on a slow machine.
    signatures: usize,
    /// Candidates looked at.
    candidates: usize,
    compared: usize,
}

pub(super) const SIGNATURES: usize = 16;
const CANDIDATES: usize = 64;

impl Default for Budget {
    fn default() -> Self {
        Self { signatures: SIGNATURES, candidates: CANDIDATES, compared: COMPARED }
    }
}

/// How much a refusal tells: a path that is complete and wrong says more than one that is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    NoIssuer,
    Unreadable,
    NotSigned,
    Weak,
    Exhausted,
    Judged,
}

/// The first refusal of the highest rank.
#[derive(Default)]
struct Best(Option<(Rank, Refusal)>);

impl Best {
    /// The words are made only if they are kept: names may be as long as a certificate.
    fn note(&mut self, rank: Rank, refusal: impl FnOnce() -> Refusal) {
        if self.0.as_ref().is_none_or(|(best, _)| rank > *best) {
            self.0 = Some((rank, refusal()));
        }
    }

    fn take(&mut self) -> Refusal {
        let refusal = self.0.take().map(|(_, refusal)| refusal);
        refusal.unwrap_or_else(|| Refusal::new(PeerUntrusted, "no path leads to a root"))
    }
}

/// Who may have signed: a presented certificate or a root, by index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Presented(usize),
    Root(usize),
}

struct Search<'s, 'c> {
    question: &'s Question<'s>,
    /// The leaf, and what could be read of the rest.
    certificates: &'s [Certificate<'c>],
    /// Signatures that were checked: which certificate, by whom, and whether it is so.
    checked: Vec<(usize, By, bool)>,
    budget: Budget,
    refusal: Best,
}

impl Search<'_, '_> {
    /// Goes on from the last of `path`, which are indices of certificates, the leaf's first.
    fn climb(&mut self, path: &mut Vec<usize>) -> Option<Path> {
        let top = path[path.len() - 1];
        self.at_a_root(path, top).or_else(|| self.by_an_issuer(path, top))
    }

    fn at_a_root(&mut self, path: &[usize], top: usize) -> Option<Path> {
        let (roots, child) = (self.question.roots, &self.certificates[top]);
        for index in roots.named(child.issuer, child.issuer_key_id()) {
            self.look()?;
            let root = match Certificate::read(roots.der(index)) {
                Ok(root) => root,
                Err(fault) => {
                    let place = || Place::Root(format!("number {} of {}", index + 1, roots.trust_domain()));
                    self.refusal.note(Rank::Judged, || fault.of(&place()));
                    continue;
                }
            };
            if self.signed(path, top, &root, By::Root(index)) {
                match self.judge(path, &root) {
                    Ok(valid) => {
                        let issued = path.iter().map(|&at| Issued::of(&self.certificates[at])).collect();
                        return Some(Path { valid, root: index, issued });
                    }
                    Err(refusal) => self.refusal.note(Rank::Judged, || refusal),
                }
            }
        }
        None
    }

    fn by_an_issuer(&mut self, path: &mut Vec<usize>, top: usize) -> Option<Path> {
        let (certificates, mut named) = (self.certificates, self.question.roots.has(self.certificates[top].issuer));
        for (index, issuer) in certificates.iter().enumerate().skip(1) {
            // RFC 4158 §5.2: a name and key once in a path.
            let twice = |&at: &usize| certificates[at].subject == issuer.subject && certificates[at].key == issuer.key;
            if issuer.subject != certificates[top].issuer || path.iter().any(twice) {
                continue;
            }
            named = true;
            self.look()?;
            if self.signed(path, top, issuer, By::Presented(index)) {
                path.push(index);
                let found = self.climb(path);
                path.pop();
                if found.is_some() {
                    return found;
                }
            }
        }
        if !named {
            let trust_domain = self.question.roots.trust_domain();
            self.refusal.note(Rank::NoIssuer, || {
                let issuer = certificates[top].issuer_called();
                let what = format!("its issuer {issuer} is no root of {trust_domain} and was not presented");
                Fault::new(PeerUntrusted, what).of(&place(certificates, path, path.len() - 1))
            });
        }
        None
    }

    /// None when enough was looked at.
    fn look(&mut self) -> Option<()> {
        let left = self.budget.candidates.checked_sub(1).filter(|_| self.budget.signatures > 0);
        match left {
            Some(left) => self.budget.candidates = left,
            None => {
                let what = || format!("no path was found with {SIGNATURES} signature checks, which are the most");
                self.refusal.note(Rank::Exhausted, || Refusal::new(PeerUntrusted, what()));
            }
        }
        left.map(drop)
    }

    /// Whether `issuer` has signed the certificate at `top`, the last of `path`.
    fn signed(&mut self, path: &[usize], top: usize, issuer: &Certificate<'_>, by: By) -> bool {
        if let Some((.., so)) = self.checked.iter().find(|(child, whom, _)| (*child, *whom) == (top, by)) {
            return *so;
        }
        let so = self.check_signature(path, top, issuer, by);
        self.checked.push((top, by, so));
        so
    }

    fn check_signature(&mut self, path: &[usize], top: usize, issuer: &Certificate<'_>, by: By) -> bool {
        let (certificates, child) = (self.certificates, &self.certificates[top]);
        let of_child = |fault: Fault| fault.of(&place(certificates, path, path.len() - 1));
        let of_it =
            |a: &&&dyn SignatureVerificationAlgorithm| a.signature_alg_id().as_ref() == child.signature_algorithm;
        let mut algorithms = self.question.algorithms.iter().filter(of_it).peekable();
        if algorithms.peek().is_none() {
            self.refusal.note(Rank::Weak, || {
                let what = format!("it is signed with {}, which is not accepted", signature(child.signature_algorithm));
                of_child(Fault::bad(what))
            });
            return false;
        }
        if let Err(fault) = issuer.key.check() {
            self.refusal.note(Rank::Weak, || match by {
                By::Presented(_) => fault.of(&Place::Issuer(path.len(), issuer.called())),
                By::Root(_) => fault.of(&Place::Root(issuer.called())),
            });
            return false;
        }
        let fits = algorithms.find(|a| a.public_key_alg_id().as_ref() == issuer.key.algorithm);
        let so = fits.is_some_and(|algorithm| {
            self.budget.signatures -= 1;
            algorithm.verify_signature(issuer.key.bits, child.signed(), child.signature).is_ok()
        });
        if !so {
            self.refusal.note(Rank::NotSigned, || {
                let what = format!("its signature is not by the key of its issuer {}", issuer.called());
                of_child(Fault::new(PeerUntrusted, what))
            });
        }
        so
    }

    /// Holds a path whose signatures are all right to the rules.
    fn judge(&mut self, path: &[usize], root: &Certificate<'_>) -> Result<Window, Refusal> {
        let chain: Vec<_> = path.iter().map(|&at| &self.certificates[at]).chain([root]).collect();
        let (last, role) = (path.len(), self.question.role);
        let certificates = self.certificates;
        let place = |at: usize| match at == last {
            true => Place::Root(root.called()),
            false => place(certificates, path, at),
        };
        let mut window = (i64::MIN, i64::MAX);
        for (at, certificate) in chain.iter().enumerate() {
            rules::time(certificate, self.question.now).map_err(|fault| fault.of(&place(at)))?;
            let (from, to) = certificate.validity();
            window = (window.0.max(from), window.1.min(to));
        }
        let mut below = 0;
        for (at, certificate) in chain.iter().enumerate() {
            let wrong = |fault: Fault| fault.of(&place(at));
            // What a root is for, beyond signing, is for who configured it to say (RFC 5280 §6.2).
            if at < last {
                rules::purpose(certificate, role).map_err(wrong)?;
            }
            if at > 0 {
                rules::signing(certificate, self.question.roots.trust_domain()).map_err(wrong)?;
                rules::path_length(certificate, below).map_err(wrong)?;
                below += u32::from(!certificate.self_issued());
            }
        }
        constrained(&chain, &mut self.budget.compared).map_err(|(at, fault)| fault.of(&place(at)))?;
        Ok(window)
    }
}

/// `at` counts in `path`.
fn place(certificates: &[Certificate<'_>], path: &[usize], at: usize) -> Place {
    match at {
        0 => Place::Leaf,
        at => Place::Issuer(at, certificates[path[at]].called()),
    }
}

/// RFC 5280 §6.1.3 (b) and (c): the names of each certificate lie within what those above it
/// permit. Those of a self-issued one count only if it is the leaf.
fn constrained(chain: &[&Certificate<'_>], budget: &mut usize) -> Result<(), (usize, Fault)> {
    for (at, issuer) in chain.iter().enumerate().skip(1) {
        let Some(constraints) = &issuer.constraints else { continue };
        for (below, certificate) in chain[..at].iter().enumerate() {
            if below == 0 || !certificate.self_issued() {
                constraints.check(certificate, budget).map_err(|fault| (below, fault))?;
            }
        }
    }
    Ok(())
}

/// A signature algorithm for people, with the names of those that are too weak.
fn signature(algorithm: &[u8]) -> String {
    let id = oids(algorithm);
    let name = match id.split(' ').next().unwrap_or_default() {
        "1.2.840.113549.1.1.4" => "md5WithRSAEncryption",
        "1.2.840.113549.1.1.5" => "sha1WithRSAEncryption",
        "1.2.840.10045.4.1" => "ecdsa-with-SHA1",
        "1.2.840.10040.4.3" => "dsa-with-sha1",
        _ => return quoted(&id),
    };
    format!("{name} ({id})")
}
