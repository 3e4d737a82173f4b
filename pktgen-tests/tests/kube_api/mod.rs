//! A Kubernetes API server, as far as a client of lists can tell: list in pages, watch from a version on with
//! bookmarks, 410 Gone, and everything that can be wrong with one. No registry ships the real one.
//!
//! Every change has a version of its own, as in etcd. A watch gets the changes after its version, one JSON
//! object a line.

#![allow(dead_code, unused_imports, reason = "each test binary uses its part")]

mod objects;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::watch;

pub use objects::*;

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
}

impl Api {
    pub fn start() -> Self {
        Self::start_in(|address| TcpListener::bind(address).unwrap())
    }

    /// `bind` makes its socket, in whichever namespace.
    pub fn start_in(bind: impl Fn(SocketAddr) -> TcpListener + Send + 'static) -> Self {
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
        let mut api = Self { shared, address, bind: Box::new(bind), runtime: None };
        api.serve_on(first);
        api
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn serve(&mut self) {
        let listener = (self.bind)(self.address);
        self.serve_on(listener);
    }

    fn serve_on(&mut self, listener: TcpListener) {
        listener.set_nonblocking(true).unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let router = Router::new().fallback(answer).with_state(self.shared.clone());
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            axum::serve(listener, router).await
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
        let file = directory.join("kubeconfig");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{ "name": "test", "cluster": { "server": self.url() } }],
            "users": [{ "name": "test", "user": { "token": "let-me-in" } }],
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

type Parameters = BTreeMap<String, String>;

async fn answer(
    State(shared): State<Shared>,
    method: Method,
    uri: Uri,
    Query(parameters): Query<Parameters>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let watches = parameters.get("watch").is_some_and(|watch| watch == "true");
    let verb = match (&method, watches) {
        (&Method::GET, true) => "watch",
        (&Method::GET, false) => "list",
        _ => "patch",
    };
    let (mood, token) = {
        let mut world = shared.world.lock().unwrap();
        world.requests.push(format!("{verb} {uri}"));
        (world.mood.clone(), world.token.clone())
    };
    let carried = headers.get("authorization").and_then(|value| value.to_str().ok());
    if token.is_some_and(|token| carried != Some(&format!("Bearer {token}"))) {
        return status(401, "Unauthorized");
    }
    match mood {
        Mood::Refuses(only, code, message) if only.is_none_or(|only| only == verb) => return status(code, message),
        Mood::Hangs => std::future::pending().await,
        Mood::Says(what) if verb == "list" => return what.into_response(),
        Mood::Refuses(..) | Mood::Well | Mood::Says(_) | Mood::Endless | Mood::Curt => {}
    }
    match verb {
        "watch" => watched(shared, uri.path().to_owned(), &parameters),
        "list" => listed(&shared, uri.path(), &parameters),
        _ => {
            let applied = headers.get("content-type").is_some_and(|kind| kind == "application/apply-patch+yaml");
            assert!(applied && parameters.get("force").is_some_and(|force| force == "true"), "{headers:?} {uri}");
            patched(&shared, uri.path(), &parameters["fieldManager"], &body)
        }
    }
}

/// `/apis/g/v/namespaces/shop/kinds` is the list `/apis/g/v/kinds`, of one namespace.
fn list_of(path: &str) -> (String, Option<String>) {
    match path.split_once("/namespaces/") {
        None => (path.to_owned(), None),
        Some((before, rest)) => {
            let (namespace, plural) = rest.split_once('/').unwrap();
            (format!("{before}/{plural}"), Some(namespace.to_owned()))
        }
    }
}

/// Server-side apply to a status: of `nodes`, a list by `node`, each manager has its own entries.
fn patched(shared: &Shared, path: &str, manager: &str, body: &[u8]) -> Response {
    let body: Value = serde_json::from_slice(body).unwrap();
    let path = path.strip_suffix("/status").expect("the subresource");
    let (list, name) = path.rsplit_once('/').unwrap();
    let (list, namespace) = list_of(list);
    let key = format!("{}/{name}", namespace.unwrap());
    let mut world = shared.world.lock().unwrap();
    let Some(mut object) = world.objects.get(&list).and_then(|all| all.get(&key)).cloned() else {
        return status(404, "there is none of that name");
    };
    if body["metadata"]["uid"] != object["metadata"]["uid"] {
        return status(409, "it is another one");
    }
    let mut nodes = object["status"]["nodes"].as_array().cloned().unwrap_or_default();
    for entry in body["status"]["nodes"].as_array().unwrap() {
        assert_eq!(manager, format!("sluice-{}", entry["node"].as_str().unwrap()));
        nodes.retain(|known| known["node"] != entry["node"]);
        nodes.push(entry.clone());
    }
    object["status"] = json!({ "nodes": nodes });
    world.put(&list, object.clone());
    drop(world);
    shared.changes.send_modify(|count| *count += 1);
    axum::Json(object).into_response()
}

fn status(code: u16, message: &str) -> Response {
    let body = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code });
    (StatusCode::from_u16(code).unwrap(), axum::Json(body)).into_response()
}

/// `spec.nodeName=node-a`, and `name in (a,b)` or `name` of labels.
fn selected(object: &Value, parameters: &Parameters) -> bool {
    let by_label = parameters.get("labelSelector").is_none_or(|selector| {
        let label = |name: &str| object["metadata"]["labels"][name].as_str();
        match selector.split_once(" in (") {
            None => label(selector).is_some(),
            Some((name, values)) => {
                let values = values.strip_suffix(')').expect("it ends");
                label(name).is_some_and(|value| values.split(',').any(|one| one == value))
            }
        }
    });
    by_label && selected_by_field(object, parameters)
}

fn selected_by_field(object: &Value, parameters: &Parameters) -> bool {
    let fields = parameters.get("fieldSelector").and_then(|fields| fields.split_once('='));
    fields.is_none_or(|(path, want)| {
        path.split('.').try_fold(object, |object, name| object.get(name)).is_some_and(|value| value == want)
    })
}

fn listed(shared: &Shared, path: &str, parameters: &Parameters) -> Response {
    let world = shared.world.lock().unwrap();
    let (path, namespace) = list_of(path);
    let within = |object: &&Value| namespace.as_ref().is_none_or(|name| object["metadata"]["namespace"] == *name);
    let all = world.objects.get(&path).into_iter().flat_map(BTreeMap::values);
    let all: Vec<_> = all.filter(within).filter(|object| selected(object, parameters)).cloned().collect();
    let from: usize = parameters.get("continue").map_or(0, |token| token.parse().unwrap());
    let limit = parameters.get("limit").map_or(usize::MAX, |limit| limit.parse().unwrap()).min(world.page);
    let to = from.saturating_add(limit).min(all.len());
    let more = if to < all.len() { to.to_string() } else { String::new() };
    let metadata = json!({ "resourceVersion": world.version.to_string(), "continue": more });
    axum::Json(json!({ "kind": "List", "apiVersion": "v1", "metadata": metadata, "items": all[from..to] }))
        .into_response()
}

fn watched(shared: Shared, path: String, parameters: &Parameters) -> Response {
    let from: u64 = parameters["resourceVersion"].parse().unwrap();
    let (path, namespace) = list_of(&path);
    if from < shared.world.lock().unwrap().oldest {
        return status(410, "too old resource version");
    }
    let (changes, parameters) = (shared.changes.subscribe(), parameters.clone());
    let lines = stream::unfold((shared, changes, from), move |(shared, mut changes, mut from)| {
        let (path, parameters, namespace) = (path.clone(), parameters.clone(), namespace.clone());
        async move {
            loop {
                changes.borrow_and_update();
                let text = {
                    let world = shared.world.lock().unwrap();
                    match &world.mood {
                        Mood::Curt => return None,
                        Mood::Says(what) => Some(format!("{what}\n")),
                        Mood::Endless => Some("x".repeat(1 << 20)),
                        Mood::Well | Mood::Refuses(..) | Mood::Hangs if from < world.oldest => {
                            let object = json!({ "code": 410, "reason": "Expired", "message": "too old" });
                            Some(format!("{}\n", json!({ "type": "ERROR", "object": object })))
                        }
                        Mood::Well | Mood::Refuses(..) | Mood::Hangs => {
                            let within = |event: &Event| {
                                namespace.as_ref().is_none_or(|name| event.object["metadata"]["namespace"] == *name)
                            };
                            let new = world.events.iter().filter(|event| event.version > from && event.path == path);
                            let new = new.filter(|event| {
                                event.kind == "BOOKMARK" || within(event) && selected(&event.object, &parameters)
                            });
                            let line = |event: &Event| {
                                json!({ "type": event.kind, "object": event.object }).to_string() + "\n"
                            };
                            let text: String = new.map(line).collect();
                            from = world.version;
                            Some(text).filter(|text| !text.is_empty())
                        }
                    }
                };
                if let Some(text) = text {
                    return Some((Ok::<_, Infallible>(text), (shared, changes, from)));
                }
                if changes.changed().await.is_err() {
                    return None;
                }
            }
        }
    });
    Body::from_stream(lines).into_response()
}
