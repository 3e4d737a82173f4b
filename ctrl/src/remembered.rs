//! What outlives a restart of this process, and of the machine where `stateDirectory` says so: whom its identity sources had peers verified by, which CRLs were
//! taken, what was fetched, which pods this node had, and where Services of its cluster led.
//!
//! ```text
//!   0         8                    40
//!   "SLTRUST\1"  SHA-256 of the rest  sections: a name and bytes each (postcard)
//! ```
//! A section is decoded by itself, so that one whose layout another build has changed costs the others nothing.
//!
//! None of it is secret. SVIDs are not in it, since their keys are in no file: the dataplane goes on with
//! those that it has ([`snapshot::Workload::svid`]). What is here decides who is trusted, so a file that
//! others could have written is not read.

use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use serde::Serialize;
use serde::de::DeserializeOwned;
use snapshot::codec::{from_message, to_message};
use tracing::warn;

use crate::attest::pods::Pods;
use crate::services::cluster::AllLed;
use crate::source::OfSource;
use crate::{crls, fetch, version};

/// Bytes of the file. Some sources of 100 roots, a hundred federated bundles: far below it.
const MOST: u64 = 64 << 20;
const MAGIC: [u8; 8] = *b"SLTRUST\x01";

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    pub trusted: Vec<OfSource>,
    pub crls: crls::Known,
    /// Of this node, as the Kubernetes API had them last.
    pub pods: Pods,
    pub services: AllLed,
    pub fetched: fetch::Known,
}

/// A name with the number of its layout, and what postcard makes of it. Where a type in it changes, so has the
/// number to: bytes say nothing of themselves, and those of another layout may decode into anything.
type Section = (String, Vec<u8>);

const TRUSTED: &str = "trusted/1";
const CRLS: &str = "crls/1";
const FETCHED: &str = "fetched/1";
const SERVICES: &str = "services/1";
const PODS: &str = "pods/1";

/// Keeps a [`Memory`] in `<state>.trust`: of [`Admin`](crate::config::gateway::Admin).
#[derive(Debug)]
pub struct Remembered {
    path: PathBuf,
    boot: String,
    last: Memory,
    /// What of the last one a restart will not know.
    problems: Vec<String>,
}

impl Remembered {
    /// With what the process before has kept. A file that is missing is the first start; one that is damaged
    /// or somebody else's counts as missing, and so does a section of another build, with a warning.
    ///
    /// `boot` names this start of the machine ([`boot_id`]).
    pub fn open(state: &Path, boot: &str) -> (Self, Memory) {
        let mut path = state.as_os_str().to_owned();
        path.push(".trust");
        let path = PathBuf::from(path);
        let last = match read(&path) {
            Ok(sections) => decode(&sections, &path, boot),
            Err(Unread::Missing) => Memory::default(),
            Err(Unread::Bad(why)) => {
                warn!(path = %path.display(), why, "what was trusted before the restart is not known");
                Memory::default()
            }
        };
        (Self { path, boot: boot.to_owned(), last: last.clone(), problems: vec![] }, last)
    }

    /// Writes what differs from what is there. A disk that is full costs no snapshot.
    pub fn keep(&mut self, memory: Memory) {
        if memory == self.last {
            return;
        }
        match self.write(&memory) {
            Ok(left_out) => (self.last, self.problems) = (memory, left_out),
            Err(why) => {
                self.problems =
                    vec![format!("{}: {why}; a restart will not know what is trusted now", self.path.display())];
            }
        }
    }

    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// Returns what was too much.
    fn write(&self, memory: &Memory) -> anyhow::Result<Vec<String>> {
        let (sections, left_out) = fit(encode(memory, &self.boot)?, MOST);
        version::replace_for_good(&self.path, &whole(&sections)?)?;
        let in_words = |(name, size)| {
            format!(
                "{}: {name} has {size} bytes, which are more than the {MOST} of the file leave to it; a restart will \
                 not know it",
                self.path.display()
            )
        };
        Ok(left_out.into_iter().map(in_words).collect())
    }
}

/// The most important first: what does not fit is one of the later ones.
fn encode(memory: &Memory, boot: &str) -> anyhow::Result<Vec<Section>> {
    let Memory { trusted, crls, pods, services, fetched } = memory;
    fn section(name: &str, content: &impl Serialize) -> anyhow::Result<Section> {
        Ok((name.into(), to_message(content)?))
    }
    Ok(vec![
        section(TRUSTED, trusted)?,
        section(CRLS, crls)?,
        section(FETCHED, fetched)?,
        section(SERVICES, services)?,
        section(&pods_of(boot), pods)?,
    ])
}

fn decode(sections: &[Section], path: &Path, boot: &str) -> Memory {
    Memory {
        trusted: section(sections, TRUSTED, path),
        crls: section(sections, CRLS, path),
        fetched: section(sections, FETCHED, path),
        services: section(sections, SERVICES, path),
        pods: section(sections, &pods_of(boot), path),
    }
}

fn section<T: DeserializeOwned + Default>(sections: &[Section], name: &str, path: &Path) -> T {
    let Some((_, bytes)) = sections.iter().find(|(own, _)| own == name) else {
        warn!(path = %path.display(), section = name, "is not there: this part of what was known is not any more");
        return T::default();
    };
    from_message(bytes).unwrap_or_else(|why| {
        warn!(path = %path.display(), section = name, %why, "this part of what was known is not any more");
        T::default()
    })
}

/// Those that the file has room for, and the names and sizes of the others.
fn fit(sections: Vec<Section>, most: u64) -> (Vec<Section>, Vec<(String, usize)>) {
    let (mut room, mut left_out) = (most.saturating_sub(AROUND_ALL), Vec::new());
    let fits = |(name, bytes): &Section| {
        let size = (name.len() + bytes.len()) as u64 + AROUND_EACH;
        let fits = size <= room;
        match fits {
            true => room -= size,
            false => left_out.push((name.clone(), bytes.len())),
        }
        fits
    };
    (sections.into_iter().filter(fits).collect(), left_out)
}

fn whole(sections: &[Section]) -> anyhow::Result<Vec<u8>> {
    let body = to_message(&sections)?;
    Ok([&MAGIC[..], digest(&SHA256, &body).as_ref(), &body].concat())
}

/// Pods end with the machine, and their addresses are given to others: those of before its start say nothing.
fn pods_of(boot: &str) -> String {
    format!("{PODS}/{boot}")
}

/// Another with each start of the machine (random(4)); empty where there is none.
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

enum Unread {
    Missing,
    Bad(String),
}

fn read(path: &Path) -> Result<Vec<Section>, Unread> {
    let bad = |why: io::Error| Unread::Bad(why.to_string());
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Unread::Missing),
        Err(error) => return Err(bad(error)),
    };
    let about = file.metadata().map_err(bad)?;
    if about.uid() != rustix::process::geteuid().as_raw() || about.mode() & 0o022 != 0 {
        return Err(Unread::Bad(format!(
            "others may have written it (owner {}, mode {:04o})",
            about.uid(),
            about.mode() & 0o7777
        )));
    }
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes).map_err(bad)?;
    let rest = bytes.strip_prefix(&MAGIC).ok_or_else(|| Unread::Bad("is not as this build writes it".into()))?;
    match rest.split_at_checked(SHA256.output_len) {
        Some((sum, body)) if digest(&SHA256, body).as_ref() == sum => {
            from_message(body).map_err(|why| Unread::Bad(why.to_string()))
        }
        Some(_) | None => Err(Unread::Bad("is torn: its checksum does not match".into())),
    }
}

/// Magic, checksum, and how many sections there are.
const AROUND_ALL: u64 = 64;
/// Two lengths.
const AROUND_EACH: u64 = 20;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;

    use snapshot::Bundle;

    use super::*;
    use crate::attest::pods::Pod;
    use crate::services::cluster::Led;
    use crate::source::Trusted;

    fn memory() -> Memory {
        let federated = vec![Bundle { trust_domain: "partner.org".into(), roots: vec![vec![9]] }];
        let trusted = Trusted { roots: vec![vec![1, 2], vec![3]], federated };
        let of = OfSource { source: "spire".into(), trust_domain: "example.com".into(), trusted };
        Memory { trusted: vec![of], ..Memory::default() }
    }

    #[test]
    fn what_was_trusted_is_known_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let admin = directory.path().join("a.sock");
        let (mut first, before) = Remembered::open(&admin, "b1");
        assert_eq!(before, Memory::default());
        first.keep(memory());
        assert_eq!(Remembered::open(&admin, "b1").1, memory());
        first.keep(Memory::default());
        assert_eq!(Remembered::open(&admin, "b1").1, Memory::default(), "what is trusted no more is not kept");
    }

    /// What this build writes into the sections, byte for byte. If this fails, a type in one of them has changed:
    /// raise the number in its name.
    #[test]
    fn sections_have_the_layout_that_their_number_says() {
        fn again<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
            let read: T = from_message(bytes).unwrap();
            assert_eq!(to_message(&read).unwrap(), bytes);
        }
        let hash = [1; 32];
        let bundle = [1, 1, b'p', 1, 1, 9];
        again::<Vec<OfSource>>(&[&[1, 1, b's', 1, b'e', 1, 1, 8][..], &bundle].concat());
        again::<crls::Known>(&[&[1, 1, b'e'][..], &hash, &hash, &[1, b'n', 5]].concat());
        let bundles = [&[1, 1, b'e'][..], &hash, &[1, 1, 9, 1, 7, 1, 8, 1, 6, 5]].concat();
        let crls = [1, 1, b'e', 1, b'u', 1, 9, 5];
        let in_force = [1, 1, b'e', 1, b'f', 1, 9];
        again::<fetch::Known>(&[&bundles[..], &crls, &in_force].concat());
        let address = [0, 10, 0, 0, 1, 80];
        let led = [&[1, 1, b'n', 1][..], &address, &[1], &address, &[1], &address, &[1, 1, 1, b'p']].concat();
        again::<AllLed>(&led);
        let names = [1, b'n', 1, b's', 1, b'p', 1, b'u', 1, b'v', 1, b'a'];
        again::<Pods>(&[&[1][..], &names, &[1, 1, b'k', 1, b'v', 1, 0, 10, 0, 0, 1, 0]].concat());
    }

    #[test]
    fn pods_of_before_the_machine_started_again_are_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("node-a");
        let name = "shop/backend-7";
        let pod = Pod {
            namespace: "shop".into(),
            name: "backend-7".into(),
            uid: "u".into(),
            resource_version: "7".into(),
            service_account: "default".into(),
            labels: BTreeMap::new(),
            addresses: vec!["198.18.0.7".parse().unwrap()],
            host_network: false,
        };
        let all = Memory { pods: Arc::new([(name.to_owned(), pod)].into()), ..memory() };
        Remembered::open(&state, "b1").0.keep(all.clone());
        assert_eq!(Remembered::open(&state, "b1").1, all);
        assert_eq!(Remembered::open(&state, "b2").1, memory());
    }

    #[test]
    fn a_section_that_does_not_decode_costs_itself_alone() {
        let directory = tempfile::tempdir().unwrap();
        let admin = directory.path().join("a.sock");
        let led = Led { problem: Some("none".into()), ..Led::default() };
        let services = AllLed::new([("shop/backend".to_owned(), led)].into());
        let all = Memory { services: services.clone(), ..memory() };
        Remembered::open(&admin, "b1").0.keep(all.clone());
        assert_eq!(Remembered::open(&admin, "b1").1, all);
        let path = directory.path().join("a.sock.trust");
        let mut sections = encode(&all, "b1").unwrap();
        sections[0].1.push(0);
        sections.push(("later/1".into(), vec![1, 2, 3]));
        std::fs::write(&path, whole(&sections).unwrap()).unwrap();
        assert_eq!(Remembered::open(&admin, "b1").1, Memory { services, ..Memory::default() });
        sections.remove(3);
        std::fs::write(&path, whole(&sections).unwrap()).unwrap();
        assert_eq!(Remembered::open(&admin, "b1").1, Memory::default());
    }

    #[test]
    fn no_more_is_written_than_is_read_and_what_is_left_out_is_a_problem() {
        let sections: Vec<Section> = [("a", 100), ("b", 1000), ("c", 50)].map(|(n, l)| (n.into(), vec![0; l])).into();
        let all = whole(&sections).unwrap().len() as u64;
        assert_eq!(fit(sections.clone(), all + AROUND_ALL + 3 * AROUND_EACH), (sections.clone(), vec![]));
        let most = 300;
        let (fitting, left_out) = fit(sections.clone(), most);
        assert_eq!(fitting, [sections[0].clone(), sections[2].clone()]);
        assert_eq!(left_out, [("b".to_owned(), 1000)]);
        assert!(whole(&fitting).unwrap().len() as u64 <= most);

        let directory = tempfile::tempdir().unwrap();
        let admin = directory.path().join("a.sock");
        let mut remembered = Remembered::open(&admin, "b1").0;
        let problem = Some("x".repeat(MOST as usize));
        let services = AllLed::new([("shop/backend".to_owned(), Led { problem, ..Led::default() })].into());
        remembered.keep(Memory { services, ..memory() });
        let said = remembered.problems();
        assert!(said.len() == 1 && said[0].contains("a.sock.trust: services/1 has 67108"), "{said:?}");
        assert_eq!(Remembered::open(&admin, "b1").1, memory());
        remembered.keep(memory());
        assert_eq!(remembered.problems(), Vec::<String>::new());
    }

    #[test]
    fn a_file_that_is_torn_or_open_to_others_is_not_believed() {
        let directory = tempfile::tempdir().unwrap();
        let admin = directory.path().join("a.sock");
        Remembered::open(&admin, "b1").0.keep(memory());
        let path = directory.path().join("a.sock.trust");
        let whole = std::fs::read(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o620)).unwrap();
        assert_eq!(Remembered::open(&admin, "b1").1, Memory::default());
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        assert_eq!(Remembered::open(&admin, "b1").1, memory());
        for length in [0, 12, whole.len() - 1] {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert_eq!(Remembered::open(&admin, "b1").1, Memory::default(), "{length} bytes");
        }
    }
}
