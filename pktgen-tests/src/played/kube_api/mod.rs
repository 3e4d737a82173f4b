//! A Kubernetes API server, as far as a client of lists can tell: list in pages, watch from a version on with
//! bookmarks, 410 Gone, and everything that can be wrong with one. No registry ships the real one.
//!
//! Every change has a version of its own, as in etcd. A watch gets the changes after its version, one JSON
//! object a line.

mod answer;
mod cluster;
mod objects;
mod tls;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use axum::Router;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::watch;

pub use cluster::Cluster;
pub use objects::*;
pub use tls::Tls;

/// How it answers.
#[derive(Debug, Clone, PartialEq)]
pub enum Mood {
    Well,
    /// Status, reason and message for that verb, or any.
    Refuses(Option<&'static str>, u16, &'static str),
    /// It takes the request, and then nothing happens.
    Hangs,
    /// That, as the body of a list or as a line of a watch.
    Says(String),
    /// A line that does not end, for watches.
    Endless,
    /// Watches end as soon as they have begun.
    Curt,
}

#[derive(Debug, Clone)]
struct Event {
    version: u64,
    path: String,
    kind: &'static str,
    object: Value,
}

#[derive(Debug)]
pub struct World {
    pub mood: Mood,
    /// By path of the list, then by `namespace/name`.
    pub objects: BTreeMap<String, BTreeMap<String, Value>>,
    version: u64,
    /// Changes after this version are remembered.
    oldest: u64,
    events: Vec<Event>,
    /// Most items of a page, whatever is asked for.
    pub page: usize,
    /// Each as `list /api/v1/pods?…`.
    pub requests: Vec<String>,
    /// What a request has to carry.
    pub token: Option<String>,
}

#[derive(Clone)]
struct Shared {
    world: Arc<Mutex<World>>,
    changes: watch::Sender<u64>,
}

pub struct Api {
    shared: Shared,
    address: SocketAddr,
    bind: Box<dyn Fn(SocketAddr) -> TcpListener + Send>,
    runtime: Option<Runtime>,
    tls: Option<Tls>,
}

impl Api {
    pub fn start() -> Self {
        Self::start_in(|address| TcpListener::bind(address).unwrap())
    }

    /// `bind` makes its socket, in whichever namespace.
    pub fn start_in(bind: impl Fn(SocketAddr) -> TcpListener + Send + 'static) -> Self {
        Self::start_with(None, bind)
    }

    /// The same over HTTPS.
    pub fn start_with(tls: Option<Tls>, bind: impl Fn(SocketAddr) -> TcpListener + Send + 'static) -> Self {
        let world = World {
            mood: Mood::Well,
            objects: BTreeMap::new(),
            version: 1,
            oldest: 0,
            events: vec![],
            page: usize::MAX,
            requests: vec![],
            token: None,
        };
        let shared = Shared { world: Arc::new(Mutex::new(world)), changes: watch::channel(0).0 };
        let first = bind("127.0.0.1:0".parse().unwrap());
        let address = first.local_addr().unwrap();
        let mut api = Self { shared, address, bind: Box::new(bind), runtime: None, tls };
        api.serve_on(first);
        api
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("{}://{}", if self.tls.is_some() { "https" } else { "http" }, self.address)
    }

    /// Of the server, in PEM.
    pub fn ca(&self) -> Option<String> {
        self.tls.as_ref().map(Tls::ca)
    }

    pub fn serve(&mut self) {
        let listener = (self.bind)(self.address);
        self.serve_on(listener);
    }

    fn serve_on(&mut self, listener: TcpListener) {
        listener.set_nonblocking(true).unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let router = Router::new().fallback(answer::answer).with_state(self.shared.clone());
        let acceptor = self.tls.as_ref().map(Tls::acceptor);
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            match acceptor {
                None => axum::serve(listener, router).await,
                Some(acceptor) => axum::serve(tls::Listener::new(listener, acceptor), router).await,
            }
        });
        self.runtime = Some(runtime);
    }

    /// Ends, with every connection.
    pub fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // On a thread of its own: a test may itself be in a runtime, where nothing may wait.
            std::thread::spawn(move || drop(runtime)).join().unwrap();
        }
    }

    pub fn tell(&self, change: impl FnOnce(&mut World)) {
        change(&mut self.shared.world.lock().unwrap());
        self.shared.changes.send_modify(|count| *count += 1);
    }

    pub fn look<T>(&self, at: impl FnOnce(&World) -> T) -> T {
        at(&self.shared.world.lock().unwrap())
    }

    /// How many requests began so.
    pub fn asked(&self, how: &str) -> usize {
        self.look(|world| world.requests.iter().filter(|request| request.starts_with(how)).count())
    }

    pub fn put(&self, path: &str, object: Value) {
        self.tell(|world| world.put(path, object));
    }

    pub fn remove(&self, path: &str, key: &str) {
        self.tell(|world| world.remove(path, key));
    }

    /// A kubeconfig that leads here.
    pub fn kubeconfig(&self, directory: &Path) -> PathBuf {
        self.kubeconfig_of(directory, json!({}), json!({ "token": "let-me-in" }))
    }

    /// With more about the cluster, and another user.
    pub fn kubeconfig_of(&self, directory: &Path, mut cluster: Value, user: Value) -> PathBuf {
        let file = directory.join("kubeconfig");
        cluster["server"] = json!(self.url());
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{ "name": "test", "cluster": cluster }],
            "users": [{ "name": "test", "user": user }],
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test" } }],
        });
        std::fs::write(&file, config.to_string()).unwrap();
        file
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.stop();
    }
}

fn key(object: &Value) -> String {
    let text = |name: &str| object["metadata"][name].as_str().unwrap_or_default().to_owned();
    format!("{}/{}", text("namespace"), text("name"))
}

impl World {
    pub fn put(&mut self, path: &str, mut object: Value) {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let all = self.objects.entry(path.into()).or_default();
        let last = all.get(&key(&object));
        let generation = |last: &Value| last["metadata"]["generation"].as_u64().unwrap_or(1);
        let other = |last: &Value| u64::from(last["spec"] != object["spec"]);
        let generation = last.map_or(1, |last| generation(last) + other(last));
        object["metadata"]["generation"] = json!(generation);
        let before = all.insert(key(&object), object.clone());
        let kind = if before.is_some() { "MODIFIED" } else { "ADDED" };
        self.events.push(Event { version: self.version, path: path.into(), kind, object });
    }

    pub fn remove(&mut self, path: &str, key: &str) {
        self.version += 1;
        let mut object = self.objects.get_mut(path).and_then(|all| all.remove(key)).expect("it is there");
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.events.push(Event { version: self.version, path: path.into(), kind: "DELETED", object });
    }

    /// Nothing is new, says every watch, and from where on.
    pub fn bookmark(&mut self, path: &str) {
        self.version += 1;
        let object = json!({ "kind": "Pod", "apiVersion": "v1",
            "metadata": { "resourceVersion": self.version.to_string(), "creationTimestamp": null } });
        self.events.push(Event { version: self.version, path: path.into(), kind: "BOOKMARK", object });
    }

    /// Forgets what changed until now.
    pub fn compact(&mut self) {
        self.oldest = self.version;
        self.events.clear();
    }
}
