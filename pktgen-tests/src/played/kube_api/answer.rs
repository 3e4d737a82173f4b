//! What the API server answers to list, watch and server-side apply.

use std::collections::BTreeMap;
use std::convert::Infallible;

use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::{Value, json};

use super::{Event, Mood, Shared};

type Parameters = BTreeMap<String, String>;

pub async fn answer(
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
