//! The way into a Kubernetes API: HTTPS with a CA, tokens out of files, client certificates, programs that give
//! credentials, and what is told of those that fail, which never has a secret in it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ctrl::config::load_files;
use ctrl::kubernetes::listed::Patience;
use ctrl::kubernetes::{Feed, start_with};
use ctrl::source::News;
use ctrl::view::Watched;
use pktgen_tests::played::kube_api::{Api, Mood, PODS, Tls, pod};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

const DEADLINE: Duration = Duration::from_secs(40);
const SECRET: &str = "hunter2-is-no-good-token";

struct Rig {
    api: Api,
    directory: TempDir,
}

impl Rig {
    fn new(tls: Option<Tls>) -> Self {
        let api = Api::start_with(tls, |address| std::net::TcpListener::bind(address).unwrap());
        api.put(PODS, pod("shop/web-1", "node-a", "198.18.1.1", &[]));
        Self { api, directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        std::fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    /// A kubeconfig with these, which is followed.
    fn follow(&self, cluster: Value, user: Value) -> Follows {
        self.api.kubeconfig_of(self.directory.path(), cluster, user);
        let text = "apiVersion: sluice.dev/v1alpha1\nkind: Gateway\nmetadata: { name: node-a }\nspec:\n  trustDomain: example.com\n  \
                    ports: [{ interface: in0, side: inside }]\n  \
                    identity: { source: embedded, embedded: { directory: ca } }\n  \
                    kubernetes: { kubeconfig: kubeconfig, resources: none }\n";
        let loaded = load_files(&[(self.path("gateway.yaml"), text.into())]).unwrap_or_else(|f| panic!("{f:#?}"));
        let patience = Patience { back_off: Duration::from_millis(50), ..Patience::default() };
        Follows(start_with(&loaded.gateway, &News::default(), patience).expect("it is asked for"))
    }

    /// A program that says so, and how it ends.
    fn program(&self, says: &str, code: u8) -> PathBuf {
        let said = self.write("said", says);
        let program = self.write("credentials", &format!("#!/bin/sh\ncat {}\nexit {code}\n", said.display()));
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        program
    }
}

struct Follows(Feed);

impl Follows {
    async fn until(&self, what: &str, is: impl Fn(&Watched) -> bool) -> Watched {
        let until = Instant::now() + DEADLINE;
        loop {
            let shown = self.0.live().now().remove(0);
            assert!(!shown.problem.as_ref().is_some_and(|problem| problem.contains(SECRET)), "it tells: {shown:?}");
            if is(&shown) {
                return shown;
            }
            assert!(Instant::now() < until, "{what}: {shown:?}");
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn until_watched(&self) -> Watched {
        self.until("it is watched", |shown| shown.problem.is_none() && shown.since.is_some() && shown.known == Some(1))
            .await
    }

    async fn until_problem(&self, words: &str) -> String {
        let says = |shown: &Watched| shown.problem.as_ref().is_some_and(|problem| problem.contains(words));
        self.until(words, says).await.problem.unwrap()
    }
}

fn text(path: &Path) -> Value {
    json!(path.to_str().unwrap())
}

fn exec(program: &Path) -> Value {
    json!({ "exec": { "apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never",
        "command": text(program), "env": [{ "name": "SOME_KEY", "value": SECRET }] } })
}

fn credential(token: &str, expires: Option<&str>) -> String {
    let mut status = json!({ "token": token });
    if let Some(expires) = expires {
        status["expirationTimestamp"] = json!(expires);
    }
    json!({ "kind": "ExecCredential", "apiVersion": "client.authentication.k8s.io/v1", "status": status }).to_string()
}

#[tokio::test]
async fn a_server_is_known_by_its_ca_and_its_name_and_no_other_is_asked() {
    let tls = Tls::new();
    let rig = Rig::new(Some(tls.clone()));
    let user = json!({ "token": "let-me-in" });
    let ca = rig.write("ca.crt", &tls.ca());
    let shown = rig.follow(json!({ "certificate-authority": text(&ca) }), user.clone()).until_watched().await;
    assert!(shown.server.starts_with("https://127.0.0.1:"), "{}", shown.server);

    // Another CA, none but the system's, and another name.
    let asked = rig.api.look(|world| world.requests.len());
    let another = rig.write("another.crt", &Tls::new().ca());
    let problem =
        rig.follow(json!({ "certificate-authority": text(&another) }), user.clone()).until_problem("certificate").await;
    assert!(problem.contains("UnknownIssuer") || problem.contains("BadSignature"), "{problem}");
    rig.follow(json!({}), user.clone()).until_problem("certificate").await;
    let elsewhere = json!({ "certificate-authority": text(&ca), "tls-server-name": "kubernetes.default.svc" });
    let problem = rig.follow(elsewhere.clone(), user.clone()).until_problem("certificate").await;
    assert!(problem.contains("not valid for name"), "{problem}");
    assert_eq!(rig.api.look(|world| world.requests.len()), asked, "nobody was sent a token");
    rig.follow(json!({ "certificate-authority": "missing.crt" }), user.clone())
        .until_problem("certificate authority")
        .await;

    let named = Rig::new(Some(Tls::new().named("kubernetes.default.svc")));
    let ca = named.write("ca.crt", &named.api.ca().unwrap());
    let by_name = json!({ "certificate-authority": text(&ca), "tls-server-name": "kubernetes.default.svc" });
    named.follow(by_name, user).until_watched().await;
}

#[tokio::test]
async fn a_client_certificate_is_shown_where_the_server_asks_for_one() {
    let tls = Tls::new().asking_certificate();
    let rig = Rig::new(Some(tls.clone()));
    let ca = json!({ "certificate-authority": text(&rig.write("ca.crt", &tls.ca())) });
    let (certificate, key) = tls.client();
    let (certificate, key) = (rig.write("client.crt", &certificate), rig.write("client.key", &key));
    let user = json!({ "client-certificate": text(&certificate), "client-key": text(&key) });
    rig.follow(ca.clone(), user).until_watched().await;
    rig.follow(ca.clone(), json!({ "token": "let-me-in" })).until_problem("CertificateRequired").await;
    let (another, _) = Tls::new().client();
    let torn = json!({ "client-certificate": text(&rig.write("other.crt", &another)), "client-key": text(&key) });
    rig.follow(ca, torn).until_problem("no way to the API server").await;
}

#[tokio::test]
async fn a_token_that_rotates_is_read_again() {
    let rig = Rig::new(None);
    rig.api.tell(|world| world.token = Some("first".into()));
    let file = rig.write("token", "first");
    let follows = rig.follow(json!({}), json!({ "tokenFile": text(&file) }));
    follows.until_watched().await;
    // The server believes the old one no more, and the file has the next before anybody is refused.
    std::fs::write(&file, "second").unwrap();
    let watches = rig.api.asked("watch");
    rig.api.tell(|world| (world.token, world.mood) = (Some("second".into()), Mood::Curt));
    follows.until("it is asked again", |_| rig.api.asked("watch") > watches).await;
    rig.api.tell(|world| world.mood = Mood::Well);
    follows.until_watched().await;
    std::fs::write(&file, "third").unwrap();
    rig.api.tell(|world| world.mood = Mood::Curt);
    follows.until_problem("it does not know this token or certificate").await;
    rig.api.tell(|world| (world.token, world.mood) = (Some("third".into()), Mood::Well));
    follows.until_watched().await;
}

#[tokio::test]
async fn a_program_gives_the_token_and_what_it_prints_is_told_nobody() {
    let rig = Rig::new(None);
    rig.api.tell(|world| world.token = Some(SECRET.into()));
    let program = rig.program(&credential(SECRET, None), 0);
    rig.follow(json!({}), exec(&program)).until_watched().await;

    for (says, code, words) in [
        (credential(SECRET, None), 3, "the kubeconfig's command failed (exit status: 3)"),
        (SECRET.to_owned(), 0, "what the kubeconfig's command prints is no ExecCredential"),
        (format!("{{ \"status\": {{ \"token\": \"{SECRET}\" }} "), 0, "prints is no ExecCredential"),
        (format!("kind: {{}}\nstatus: {SECRET}\n"), 0, "prints is no ExecCredential"),
        (credential("", Some(SECRET)), 0, "gives an expirationTimestamp that is no time"),
        (json!({ "kind": "ExecCredential" }).to_string(), 0, "did not contain a status"),
    ] {
        let program = rig.program(&says, code);
        let problem = rig.follow(json!({}), exec(&program)).until_problem(words).await;
        assert!(problem.starts_with("no way to the API server: "), "{problem}");
    }
    rig.follow(json!({}), exec(Path::new("/nowhere/credentials"))).until_problem("unable to run").await;

    // One whose token is about to end is run again with each request, and then it fails.
    let ends = credential(SECRET, Some("2020-01-01T00:00:00Z"));
    for (says, code, problem) in [
        (ends.as_str(), 4, "the kubeconfig's command failed (exit status: 4)"),
        (SECRET, 0, "what the kubeconfig's command prints is no ExecCredential"),
    ] {
        let program = rig.program(says, code);
        let first = rig.write("first", &ends);
        let toggle = rig.path("asked");
        let odd = format!("mkdir {} 2>/dev/null && exec cat {}\nrmdir {0}\n", toggle.display(), first.display());
        let script =
            std::fs::read_to_string(&program).unwrap().replacen("#!/bin/sh\n", &format!("#!/bin/sh\n{odd}"), 1);
        std::fs::write(&program, script).unwrap();
        let follows = rig.follow(json!({}), exec(&program));
        follows.until(problem, |shown| shown.problem.as_deref() == Some(problem)).await;
    }
}

#[tokio::test]
async fn a_kubeconfig_that_is_torn_is_told_by_its_line_and_not_quoted() {
    let rig = Rig::new(None);
    let follows = rig.follow(json!({}), json!({ "token": SECRET }));
    follows.until_watched().await;
    let lines = format!("apiVersion: v1\nusers:\n  - name: test\n    user: {{ token: [{SECRET}\ncontexts: []\n");
    for torn in [lines.as_str(), &format!("users: {SECRET}\n"), &format!("users: [{{ name: a, user: {SECRET} }}]\n")] {
        rig.write("kubeconfig", torn);
        // A watch that stands does not notice.
        rig.api.tell(|world| world.mood = Mood::Curt);
        follows.until_problem("failed to parse kubeconfig: it is no YAML of that kind in line").await;
        rig.api.kubeconfig_of(rig.directory.path(), json!({}), json!({ "token": SECRET }));
        rig.api.tell(|world| world.mood = Mood::Well);
        follows.until_watched().await;
    }
}

#[tokio::test]
async fn a_list_without_an_end_is_given_up() {
    let rig = Rig::new(None);
    let page = json!({ "metadata": { "resourceVersion": "9", "continue": "more" }, "items": [] }).to_string();
    rig.api.tell(|world| world.mood = Mood::Says(page));
    let follows = rig.follow(json!({}), json!({ "token": "let-me-in" }));
    follows.until_problem("a list of more than 1000 pages").await;
    rig.api.tell(|world| world.mood = Mood::Well);
    follows.until_watched().await;
}
