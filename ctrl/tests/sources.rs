//! Several identity sources at once: who gets an SVID from which, what one that fails does to the
//! others, and files that change under it all.

mod counting;
mod openssl;
mod words;

use std::path::Path;
use std::time::Duration;

use counting::{Counting, wanted};
use ctrl::clock::now;
use ctrl::config::{Gateway, SpiffeId, TrustDomain};
use ctrl::rotate::{Identities, Refreshed, Wanted};
use ctrl::source::embedded_ca::{init, issue_node};
use ctrl::source::{News, Opened, Source, Sources};
use openssl::*;
use words::{gateway, load};

const EMBEDDED: &str = "identity: { source: embedded, embedded: { directory: ca/node-a, ttl: 1h } }";

/// A Gateway in `directory` with these entries under `spec.identity.sources`.
fn configured(directory: &Path, sources: &str) -> Gateway {
    let text = gateway(EMBEDDED, &format!("identity: {{ sources: [{sources}] }}"));
    let file = directory.join("gateway.yaml").display().to_string();
    load(&[(&file, &text)]).unwrap_or_else(|faults| panic!("{faults:#?}")).gateway
}

fn authority(directory: &Path) {
    let domain = TrustDomain::parse("example.com").unwrap();
    init(&directory.join("root-ca"), &domain, now()).unwrap();
    issue_node(&directory.join("root-ca"), "node-a", &directory.join("ca"), now()).unwrap();
}

fn wants(path: &str, workload: &str) -> Wanted {
    Wanted {
        workload: workload.into(),
        ..wanted(SpiffeId::parse(&format!("spiffe://example.com/{path}")).unwrap(), &[])
    }
}

fn frontend() -> Wanted {
    wants("myapp/app/frontend", "shop/frontend")
}

/// Identities as the control process drives them.
struct World {
    identities: Identities,
    wanted: Vec<Wanted>,
    news: News,
}

impl World {
    fn open(gateway: &Gateway, wanted: &[Wanted]) -> Self {
        let news = News::default();
        let Opened { sources, .. } = Sources::open(gateway, &news, now());
        Self { identities: Identities::new(sources, 1), wanted: wanted.to_vec(), news }
    }

    /// Refreshes on each news until `want` holds.
    async fn until(&mut self, what: &str, want: impl Fn(&Identities) -> bool) {
        let met = async {
            loop {
                self.identities.refresh(&self.wanted, now());
                if want(&self.identities) {
                    break;
                }
                self.news.notified().await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(20), met).await.is_err() {
            panic!("{what}: {:?}", self.identities);
        }
    }

    fn serial(&self) -> Option<String> {
        serial(&self.identities)
    }
}

fn serial(identities: &Identities) -> Option<String> {
    identities.svid(&frontend().id).map(|(svid, _)| svid.serial.clone())
}

fn fault(identities: &Identities) -> String {
    identities.errors().into_iter().map(|failure| failure.reason).collect()
}

fn files_of<'a>(leaf: &'a Leaf, root: &'a str) -> [(&'static str, &'a str); 3] {
    [("tls.crt", leaf.certificate.as_str()), ("tls.key", &leaf.key), ("ca.crt", root)]
}

const CERTS: &str = "{ name: certs, source: files, files: { directory: certs } }";

#[tokio::test]
async fn files_are_followed_over_swaps_truncation_and_renames_and_a_torn_write_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let gateway = configured(directory.path(), CERTS);
    let certs = directory.path().join("certs");
    let ca = Authority::new();
    let (root, leaves) = (ca.root(), [ca.svid(), ca.svid(), ca.svid(), ca.svid(), ca.svid()]);
    let mut world = World::open(&gateway, &[frontend()]);
    world.identities.refresh(&world.wanted, now());
    let waiting = |world: &World| world.identities.errors().iter().map(|failure| failure.waiting).collect::<Vec<_>>();
    assert_eq!(waiting(&world), [true], "not to have been read yet is no fault");
    world.until("it is named", |identities| fault(identities).contains("certs: No such file")).await;
    assert_eq!(waiting(&world), [false]);

    // The volume is mounted later than the gateway starts.
    volume(&certs, "1", &files_of(&leaves[0], &root), 0o400);
    let is = |leaf: &Leaf| {
        let want = leaf.serial();
        move |identities: &Identities| serial(identities) == Some(want.clone()) && identities.errors().is_empty()
    };
    world.until("the first is taken", is(&leaves[0])).await;
    volume(&certs, "2", &files_of(&leaves[1], &root), 0o400);
    world.until("a swap of ..data", is(&leaves[1])).await;

    // Files in their place, as others write them.
    std::fs::remove_dir_all(&certs).unwrap();
    let lay = |leaf: &Leaf| files_of(leaf, &root).iter().for_each(|(name, content)| put(&certs, name, content));
    lay(&leaves[2]);
    world.until("another directory in its place", is(&leaves[2])).await;
    lay(&leaves[3]);
    world.until("truncated in place", is(&leaves[3])).await;
    for (name, content) in files_of(&leaves[4], &root) {
        put(&certs, ".aside", content);
        std::fs::rename(certs.join(".aside"), certs.join(name)).unwrap();
    }
    world.until("renamed over", is(&leaves[4])).await;

    put(&certs, "tls.key", &leaves[0].key);
    let torn = certs.join("tls.key").display().to_string();
    world.until("a torn write is named", |identities| fault(identities).starts_with(&torn)).await;
    assert!(fault(&world.identities).contains("is not that of the certificate in"), "{}", fault(&world.identities));
    assert_eq!(world.serial(), Some(leaves[4].serial()), "the old one stays in force");
    lay(&leaves[0]);
    world.until("the right ones after it", is(&leaves[0])).await;
}

#[tokio::test]
async fn a_changed_bundle_takes_effect_and_the_roots_of_all_sources_are_united_once_each() {
    let directory = tempfile::tempdir().unwrap();
    authority(directory.path());
    let node_ca = "{ name: node-ca, source: embedded, embedded: { directory: ca } }";
    let certs = "{ name: certs, source: files, files: { directory: certs }, workloads: [shop/frontend] }";
    let gateway = configured(directory.path(), &format!("{certs}, {node_ca}"));
    let (ca, next) = (Authority::new(), Authority::new());
    let certs = directory.path().join("certs");
    let leaf = ca.svid();
    let embedded = std::fs::read_to_string(directory.path().join("ca/bundle.pem")).unwrap();
    volume(&certs, "1", &files_of(&leaf, &(ca.root() + &embedded)), 0o400);
    let mut world = World::open(&gateway, &[frontend(), wants("other", "shop/other")]);
    let roots = |count: usize| move |identities: &Identities| identities.bundle(now()).roots.len() == count;
    world.until("two roots, of which one is both sources'", roots(2)).await;
    assert_eq!(world.serial(), Some(leaf.serial()));
    assert_eq!(world.identities.bundle(now()).trust_domain, "example.com");
    assert_eq!(world.identities.source_of(&frontend().id), Some("certs"));
    assert_eq!(world.identities.source_of(&wants("other", "shop/other").id), Some("node-ca"));
    assert_eq!(world.identities.iter().count(), 2);
    volume(&certs, "2", &files_of(&leaf, &(ca.root() + &next.root())), 0o400);
    world.until("the next root beside", roots(3)).await;
    // A bundle that would trust nobody is not taken.
    volume(&certs, "3", &files_of(&leaf, ""), 0o400);
    world.until("an empty bundle is named", |i| fault(i).contains("ca.crt: holds no certificate")).await;
    assert_eq!(world.identities.bundle(now()).roots.len(), 3);
    // What a workload that is gone had brought goes with it.
    world.wanted.remove(0);
    world.until("the embedded CA's root is left", roots(1)).await;
}

#[tokio::test]
async fn a_source_that_is_down_leaves_its_own_workloads_alone_without_an_svid_until_it_opens() {
    let directory = tempfile::tempdir().unwrap();
    let node_ca = "{ name: node-ca, source: embedded, embedded: { directory: ca } }";
    let certs = "{ name: certs, source: files, files: { directory: certs }, workloads: [shop/frontend] }";
    let gateway = configured(directory.path(), &format!("{certs}, {node_ca}"));
    let ca = Authority::new();
    let leaf = ca.svid();
    volume(&directory.path().join("certs"), "1", &files_of(&leaf, &ca.root()), 0o400);
    let other = wants("other", "shop/other");
    let mut world = World::open(&gateway, &[frontend(), other.clone()]);
    world.until("the files are taken", |i| serial(i).is_some()).await;
    assert!(world.identities.svid(&other.id).is_none());
    let [failure] = world.identities.errors().try_into().unwrap();
    assert_eq!(failure.id, other.id);
    assert!(failure.reason.starts_with("its identity source node-ca does not open: "), "{failure:?}");
    let warned = world.identities.warnings(now()).join("\n");
    assert!(warned.contains("identity source node-ca does not open") && warned.contains("ca/node.key"), "{warned}");

    authority(directory.path());
    let due = world.identities.next_due().expect("it is tried again");
    assert!((now()..=now() + 60).contains(&due), "{due}");
    world.identities.refresh(&world.wanted, due.max(now()));
    assert!(world.identities.svid(&other.id).is_some() && world.identities.errors().is_empty());
}

#[tokio::test]
async fn a_source_that_no_longer_opens_goes_on_as_it_was_and_a_new_one_that_does_not_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    authority(directory.path());
    let node_ca = "{ name: node-ca, source: embedded, embedded: { directory: ca } }";
    let gateway = configured(directory.path(), node_ca);
    let mut world = World::open(&gateway, &[frontend()]);
    world.until("it issues", |i| serial(i).is_some()).await;
    let key = directory.path().join("ca/node.key");
    std::fs::rename(&key, directory.path().join("away")).unwrap();
    let reopened = world.identities.reopen(&gateway).unwrap();
    world.identities.replace_sources(&gateway, reopened);
    let warned = world.identities.warnings(now()).join("\n");
    assert!(
        warned.contains("node-ca does not open again, and goes on as it was") && warned.contains("node.key"),
        "{warned}"
    );
    world.identities.clock_jumped(now());
    let before = world.serial();
    world.identities.refresh(&world.wanted, now());
    assert!(world.serial() != before && world.identities.errors().is_empty(), "it still signs");
    let other = configured(directory.path(), "{ name: other, source: embedded, embedded: { directory: ca } }");
    assert!(world.identities.reopen(&other).is_err());
}

#[tokio::test]
async fn a_workload_moves_to_another_source_at_once_and_one_that_none_takes_is_named() {
    let directory = tempfile::tempdir().unwrap();
    authority(directory.path());
    let source = |name: &str, workloads: &str| {
        format!("{{ name: {name}, source: embedded, embedded: {{ directory: ca }}, workloads: [{workloads}] }}")
    };
    let before = configured(directory.path(), &source("a", "shop/*"));
    let after = configured(directory.path(), &format!("{}, {}", source("a", "shop/other"), source("b", "shop/*")));
    let (other, stray) = (wants("other", "shop/other"), wants("stray", "else/stray"));
    let mut world = World::open(&before, &[frontend(), other.clone(), stray.clone()]);
    world.until("two are issued", |i| i.iter().count() == 2).await;
    let [failure] = world.identities.errors().try_into().unwrap();
    assert_eq!(failure.id, stray.id);
    assert!(failure.reason.starts_with("no identity source takes it"), "{failure:?}");
    let serials =
        |world: &World| [&frontend().id, &other.id].map(|id| world.identities.svid(id).unwrap().0.serial.clone());
    let [moved, stayed] = serials(&world);
    let reopened = world.identities.reopen(&after).unwrap();
    world.identities.replace_sources(&after, reopened);
    world.identities.refresh(&world.wanted, now());
    let now = serials(&world);
    assert!(now[0] != moved && now[1] == stayed, "{now:?} after {moved} and {stayed}");
}

#[tokio::test]
async fn another_signer_signs_anew_at_once_in_a_new_directory_and_in_the_old_one() {
    let directory = tempfile::tempdir().unwrap();
    authority(directory.path());
    let (domain, next) = (TrustDomain::parse("example.com").unwrap(), directory.path().join("next-ca"));
    init(&next, &domain, now()).unwrap();
    issue_node(&next, "node-a", &directory.path().join("ca2"), now()).unwrap();
    let of = |ca: &str| configured(directory.path(), &format!("{{ name: own, source: embedded, embedded: {ca} }}"));
    let (first, second) = (of("{ directory: ca, ttl: 1h }"), of("{ directory: ca2, ttl: 1h }"));
    let mut world = World::open(&first, &[frontend()]);
    world.until("it issues", |i| serial(i).is_some()).await;
    let mut then = |gateway: &Gateway| {
        let reopened = world.identities.reopen(gateway).unwrap();
        world.identities.replace_sources(gateway, reopened);
        world.identities.refresh(&world.wanted, now());
        (world.serial(), world.identities.bundle(now()).roots)
    };

    let (old, old_roots) = then(&first);
    assert_eq!(then(&of("{ directory: ca, ttl: 2h }")).0, old, "the same signer, so it stays until it is due");
    let (new, new_roots) = then(&second);
    assert!(new != old && new_roots != old_roots, "{new:?} after {old:?}");
    assert_eq!(then(&second), (new.clone(), new_roots.clone()));
    // The node's CA is issued again, and its directory is said as before.
    for file in ["node.crt", "node.key", "bundle.pem"] {
        std::fs::remove_file(directory.path().join("ca2").join(file)).unwrap();
    }
    issue_node(&next, "node-a", &directory.path().join("ca2"), now()).unwrap();
    let (again, again_roots) = then(&second);
    assert!(again != new && again_roots == new_roots, "{again:?} after {new:?}");
}

#[tokio::test]
async fn files_that_nobody_renews_are_warned_about_and_end_alone() {
    let directory = tempfile::tempdir().unwrap();
    authority(directory.path());
    let node_ca = "{ name: node-ca, source: embedded, embedded: { directory: ca, ttl: 7d } }";
    let certs = "{ name: certs, source: files, files: { directory: 'certs/{namespace}/{name}' }, workloads: [shop/*] }";
    let gateway = configured(directory.path(), &format!("{certs}, {node_ca}"));
    let ca = Authority::new();
    let leaf = ca.svid();
    volume(&directory.path().join("certs/shop/frontend"), "1", &files_of(&leaf, &ca.root()), 0o400);
    let other = wants("other", "else/other");
    let mut world = World::open(&gateway, &[frontend(), other.clone()]);
    world.until("both have SVIDs", |i| i.iter().count() == 2).await;
    let (svid, _) = world.identities.svid(&frontend().id).unwrap();
    let (from, end) = (svid.not_before, svid.not_after);
    let half = from + (end - from) / 2;
    let warned = |world: &World, at: u64| world.identities.warnings(at).join("\n");
    assert_eq!(warned(&world, half - 1), "");
    let past = warned(&world, half + 1);
    assert!(past.contains("certs/shop/frontend/tls.crt: the SVID of shop/frontend is past half its life"), "{past}");
    assert!(warned(&world, end - (end - from) / 20).contains("NoSvid"), "near its end");

    assert!(world.identities.next_due().unwrap() <= end, "its end is due");
    world.identities.refresh(&world.wanted, end - 1);
    assert!(serial(&world.identities).is_some());
    assert_ne!(world.identities.refresh(&world.wanted, end), Refreshed::Nothing, "its end is a change");
    assert_eq!(serial(&world.identities), None);
    assert!(world.identities.svid(&other.id).is_some(), "no other's");
    assert!(fault(&world.identities).contains("tls.crt: notAfter of its chain"), "{}", fault(&world.identities));
}

#[test]
fn whom_a_source_is_for_is_checked_against_the_workloads_that_there_are() {
    let sources = |workloads: &str| {
        let source =
            |name: &str, more: &str| format!("{{ name: {name}, source: files, files: {{ directory: {name} }}{more} }}");
        let entries = format!("{}, {}", source("a", &format!(", workloads: [{workloads}]")), source("b", ""));
        gateway(EMBEDDED, &format!("identity: {{ sources: [{entries}] }}"))
    };
    let said = |workloads: &str| {
        // The same workload under a second name, as two pods of one service have it.
        let twin = words::EXAMPLE.replace("name: frontend\n  namespace", "name: frontend-2\n  namespace");
        let twin = twin.split("---\n").nth(2).unwrap();
        let files = [("a.yaml", words::EXAMPLE), ("b.yaml", twin), ("g.yaml", &sources(workloads))];
        let found = load(&files).map_or_else(|faults| faults, |loaded| loaded.warnings);
        let all = words::words(&found).into_iter();
        all.filter(|line| !line.contains("no pod is known")).collect::<Vec<_>>()
    };
    for right in ["riptides-system/*", "spiffe://example.com/myapp/app/frontend", "spiffe://example.com/myapp/*"] {
        assert_eq!(said(right), Vec::<String>::new(), "{right}");
    }
    assert_eq!(
        said("shop/*, riptides-system/*"),
        [
            "g.yaml:13:25: warning: spec.identity.sources.workloads: identity source a: shop/* is no WorkloadIdentity here"
        ]
    );
    assert_eq!(
        said("riptides-system/frontend-2"),
        [
            "b.yaml:1:1: error: spec.workloadID: riptides-system/frontend-2 and riptides-system/frontend (a.yaml:35) are \
             one SPIFFE ID, and its source would be \"a\" for one and \"b\" for the other \
             [name the SPIFFE ID in the source's `workloads`, or both resources]"
        ]
    );
}

#[test]
fn a_jump_of_the_clock_asks_for_everything_anew_whatever_was_planned() {
    const YEAR: u64 = 365 * 86_400;
    let mut identities = Identities::new(Box::new(Counting::default()) as Box<dyn Source>, 1);
    let wanted = [frontend()];
    // The machine starts with its clock a year ahead.
    identities.refresh(&wanted, counting::NOW + YEAR);
    identities.refresh(&wanted, counting::NOW);
    let svid = |identities: &Identities| identities.svid(&wanted[0].id).unwrap().0.clone();
    assert!(svid(&identities).not_before > counting::NOW, "no peer would take it");
    identities.clock_jumped(counting::NOW);
    assert_ne!(identities.refresh(&wanted, counting::NOW), Refreshed::Nothing);
    assert!(svid(&identities).not_before < counting::NOW);
    assert!(identities.next_due().unwrap() < counting::NOW + 3_600);
}
