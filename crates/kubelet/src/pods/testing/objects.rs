use std::collections::{BTreeMap, HashMap};

use jiff::SignedDuration;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::clock;

/// What the server holds and has seen.
#[derive(Default)]
pub(crate) struct State {
    /// Objects by their path.
    pub(crate) objects: BTreeMap<String, Value>,
    /// Events as they were created and counted up.
    pub(crate) events: BTreeMap<String, Value>,
    pub(crate) calls: Vec<Call>,
    /// The most writes that were under way at a time to one status.
    pub(crate) most_writers: usize,
    pub(super) writers: HashMap<String, usize>,
    pub(super) faults: Vec<(String, Fault)>,
    pub(super) tokens: usize,
    /// Counts all changes of pods.
    pub(crate) version: u64,
    /// What watches tell, in order: the path of an object, and what became of it.
    pub(super) log: Vec<(String, Value)>,
    /// The watches that are under way, by what they ask for.
    pub(crate) watches: Vec<String>,
    /// Each break of the watch counts one up.
    pub(super) breaks: usize,
}

/// One call as it came in.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// Its method and path; a watch is `WATCH`.
    pub(crate) line: String,
    pub(crate) body: Value,
    pub(crate) at: Instant,
}

/// What goes wrong with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is answered when the fault is lifted.
    Hang,
    /// It is done, and answered when the fault is lifted.
    Mute,
    /// It is refused with this code.
    Refuse(u16),
}

/// The path of a pod in the namespace of all tests.
pub(crate) fn path(name: &str) -> String {
    format!("/api/v1/namespaces/default/pods/{name}")
}

impl State {
    pub(super) fn fault(&self, line: &str) -> Option<Fault> {
        self.faults.iter().find(|(part, _)| line.contains(part)).map(|(_, fault)| *fault)
    }

    /// Whether the watch keeps an event back: `WATCH` keeps back all, and the type of an event those of its kind.
    pub(super) fn is_held(&self, event: &Value) -> bool {
        let kind = event["type"].as_str().unwrap();
        self.fault(&format!("WATCH /api/v1/pods {kind}")) == Some(Fault::Hang)
    }

    /// A pod as it is now; null when there is none.
    pub(crate) fn pod(&self, name: &str) -> &Value {
        self.objects.get(&path(name)).unwrap_or(&Value::Null)
    }

    /// The calls whose line contains `part`.
    pub(crate) fn called(&self, part: &str) -> Vec<&Call> {
        self.calls.iter().filter(|call| call.line.contains(part)).collect()
    }

    pub(super) fn store(&mut self, path: String, mut pod: Value, kind: &str) -> Value {
        self.version += 1;
        pod["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.log.push((path.clone(), json!({ "type": kind, "object": pod })));
        self.objects.insert(path, pod.clone());
        pod
    }

    pub(super) fn remove(&mut self, path: &str) {
        if let Some(pod) = self.objects.get(path).cloned() {
            self.store(path.to_owned(), pod, "DELETED");
            self.objects.remove(path);
        }
    }

    pub(super) fn answer(&mut self, method: &str, path: &str, query: &str, body: &Value) -> (u16, Value) {
        if let Some(Fault::Refuse(code)) = self.fault(&format!("{method} {path}")) {
            return (code, refusal(code));
        }
        if path.contains("/events") {
            return self.event(path, body);
        }
        match (method, path.strip_suffix("/status").unwrap_or(path)) {
            ("GET", path) if is_collection(path) => (200, self.list(path, query)),
            ("GET", path) => {
                self.objects.get(path).map_or((404, refusal(404)), |object| (200, object.clone()))
            }
            ("POST", path) if path.ends_with("/token") => (201, self.token(body)),
            ("POST", path) if path.ends_with("/podcertificaterequests") => (201, self.create(path, body)),
            ("PATCH", path) => self.patch(path, body),
            ("DELETE", path) => self.delete(path, body),
            _ => (405, refusal(405)),
        }
    }

    fn list(&self, collection: &str, query: &str) -> Value {
        let items = self.objects.iter().filter(|(path, _)| is_in(path, collection, query));
        let items: Vec<&Value> = items.map(|(_, object)| object).collect();
        json!({ "metadata": { "resourceVersion": self.version.to_string() }, "items": items })
    }

    /// Tokens are numbered from 1.
    fn token(&mut self, request: &Value) -> Value {
        self.tokens += 1;
        let seconds = request["spec"]["expirationSeconds"].as_i64().unwrap_or(3600);
        let until = clock::now() + SignedDuration::from_secs(seconds);
        let status = json!({ "token": format!("token-{}", self.tokens), "expirationTimestamp": until });
        json!({ "metadata": {}, "spec": request["spec"], "status": status })
    }

    fn create(&mut self, collection: &str, body: &Value) -> Value {
        let mut object = body.clone();
        let prefix = body["metadata"]["generateName"].as_str().unwrap();
        let name = format!("{prefix}{}", self.version);
        object["metadata"]["name"] = json!(name);
        self.store(format!("{collection}/{name}"), object, "ADDED")
    }

    fn event(&mut self, path: &str, body: &Value) -> (u16, Value) {
        let name = body["metadata"]["name"].as_str().or_else(|| path.rsplit('/').next()).unwrap();
        // Time stands still between two Events of a test, so that names of two of them can be the same.
        let key = format!("{name} {}", body["reason"]);
        merge(self.events.entry(key).or_default(), body);
        (201, body.clone())
    }

    fn patch(&mut self, path: &str, body: &Value) -> (u16, Value) {
        let Some(pod) = self.objects.get(path) else { return (404, refusal(404)) };
        if pod["metadata"]["uid"] != body["metadata"]["uid"] {
            return (409, refusal(409));
        }
        let mut pod = pod.clone();
        merge(&mut pod, body);
        (200, self.store(path.to_owned(), pod, "MODIFIED"))
    }

    fn delete(&mut self, path: &str, body: &Value) -> (u16, Value) {
        let Some(pod) = self.objects.get(path).cloned() else { return (404, refusal(404)) };
        assert_eq!(body["gracePeriodSeconds"], 0, "a node deletes for good only: {body}");
        if pod["metadata"]["uid"] != body["preconditions"]["uid"] {
            return (409, refusal(409));
        }
        self.remove(path);
        (200, pod)
    }
}

/// Whether a path is that of all objects of a kind.
fn is_collection(path: &str) -> bool {
    let parts = path.split('/').count() - usize::from(path.starts_with("/apis/"));
    if path.contains("/namespaces/") { parts == 6 } else { parts == 4 }
}

/// Whether the object at a path is in a collection and has the name that the query asks for.
pub(super) fn is_in(path: &str, collection: &str, query: &str) -> bool {
    let (scope, kind) = collection.rsplit_once('/').unwrap();
    let Some((own, name)) = path.rsplit_once('/') else { return false };
    let wanted = query.split_once("metadata.name%3D").map(|(_, rest)| rest.split('&').next().unwrap());
    own.starts_with(scope) && own.ends_with(&format!("/{kind}")) && wanted.is_none_or(|wanted| wanted == name)
}

pub(super) fn refusal(code: u16) -> Value {
    let reason = match code {
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        410 => "Expired",
        _ => "InternalError",
    };
    json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": format!("refused {code}") })
}

/// A strategic merge as far as a pod's status needs one: conditions by type, other lists whole, null takes away.
fn merge(target: &mut Value, patch: &Value) {
    match patch {
        Value::Object(patch) => {
            for (key, value) in patch {
                match (value, &mut target[key]) {
                    (Value::Null, _) => drop(target.as_object_mut().unwrap().remove(key)),
                    (Value::Array(conditions), old) if key == "conditions" => merge_by_type(old, conditions),
                    (Value::Array(list), old)
                        if list.last().is_some_and(|last| last["$patch"] == "replace") =>
                    {
                        *old = json!(list[..list.len() - 1]);
                    }
                    (value, old) => merge(old, value),
                }
            }
        }
        patch => target.clone_from(patch),
    }
}

fn merge_by_type(target: &mut Value, patch: &[Value]) {
    if target.is_null() {
        *target = json!([]);
    }
    let target = target.as_array_mut().unwrap();
    for condition in patch {
        if condition["$patch"] == "delete" {
            target.retain(|old| old["type"] != condition["type"]);
            continue;
        }
        let old = target.iter().position(|old| old["type"] == condition["type"]);
        let old = old.unwrap_or_else(|| {
            target.push(json!({}));
            target.len() - 1
        });
        merge(&mut target[old], condition);
    }
}
