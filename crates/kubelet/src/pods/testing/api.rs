use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::Arc;

use futures::stream::{self, BoxStream, StreamExt};
use http_body_util::StreamBody;
use hyper::body::{Bytes, Frame};
use hyper::{Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

/// An API server in memory. It holds pods and what they refer to, records each call, and can be made to fail.
#[derive(Clone)]
pub(crate) struct FakeApi {
    pub(crate) state: Arc<watch::Sender<State>>,
}

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
    writers: HashMap<String, usize>,
    faults: Vec<(String, Fault)>,
    /// Counts all changes of pods.
    pub(crate) version: u64,
    /// What the watch of pods tells, in order.
    log: Vec<Value>,
    /// Each break of the watch counts one up.
    breaks: usize,
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
    /// It is refused with this code.
    Refuse(u16),
}

type Reply = Response<StreamBody<BoxStream<'static, Result<Frame<Bytes>, Infallible>>>>;

impl FakeApi {
    pub(super) fn new() -> Self {
        Self { state: Arc::new(watch::Sender::new(State::default())) }
    }

    pub(super) fn client(&self) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.answer(request).await) }
        });
        Client::new(service, "default")
    }

    /// Calls whose line contains `part` go wrong until [`Self::heal`].
    pub(crate) fn fault(&self, part: &str, fault: Fault) {
        self.state.send_modify(|state| state.faults.push((part.to_owned(), fault)));
    }

    pub(crate) fn heal(&self) {
        self.state.send_modify(|state| state.faults.clear());
    }

    /// Puts an object where a GET finds it.
    pub(crate) fn put(&self, path: &str, object: Value) {
        self.state.send_modify(|state| drop(state.objects.insert(path.to_owned(), object)));
    }

    /// Creates or changes a pod as somebody else.
    pub(crate) fn change(&self, name: &str, change: impl FnOnce(&mut Value)) {
        self.state.send_modify(|state| {
            let path = path(name);
            let kind = if state.objects.contains_key(&path) { "MODIFIED" } else { "ADDED" };
            let mut pod = state.objects.remove(&path).unwrap_or_default();
            change(&mut pod);
            state.store(path, pod, kind);
        });
    }

    /// Removes a pod at once, as `kubectl delete --force` does.
    pub(crate) fn remove(&self, name: &str) {
        self.state.send_modify(|state| state.remove(&path(name)));
    }

    /// Ends all watches with `410 Gone`, and what they have not told yet is lost.
    pub(crate) fn break_watch(&self) {
        self.state.send_modify(|state| state.breaks += 1);
    }

    async fn answer(&self, request: Request<Body>) -> Reply {
        let (parts, body) = request.into_parts();
        let body = serde_json::from_slice(&body.collect_bytes().await.unwrap()).unwrap_or_default();
        let is_watch = parts.uri.query().is_some_and(|query| query.contains("watch=true"));
        let method = if is_watch { "WATCH" } else { parts.method.as_str() };
        let line = format!("{method} {}", parts.uri.path());
        let _writer = Writer::new(self, &line);
        let call = Call { line: line.clone(), body, at: Instant::now() };
        self.state.send_modify(|state| state.calls.push(call.clone()));
        self.state.subscribe().wait_for(|state| state.fault(&line) != Some(Fault::Hang)).await.unwrap();
        if is_watch {
            return self.watch();
        }
        let mut answer = (500, Value::Null);
        self.state.send_modify(|state| answer = state.answer(method, parts.uri.path(), &call.body));
        let (code, object) = answer;
        let bytes = Bytes::from(object.to_string());
        let body = StreamBody::new(stream::once(async { Ok(Frame::data(bytes)) }).boxed());
        Response::builder().status(code).body(body).unwrap()
    }

    /// All that happens from now on, until the watch breaks.
    fn watch(&self) -> Reply {
        let receiver = self.state.subscribe();
        let (told, breaks) = {
            let state = receiver.borrow();
            (state.log.len(), state.breaks)
        };
        let line = |event: &Value| Ok(Frame::data(Bytes::from(format!("{event}\n"))));
        let events = stream::unfold(Some((receiver, told)), move |watch| async move {
            let (mut receiver, told) = watch?;
            let state = receiver
                .wait_for(|state| {
                    state.breaks > breaks
                        || state.log.len() > told && state.fault("WATCH /api/v1/pods") != Some(Fault::Hang)
                })
                .await
                .unwrap();
            if state.breaks > breaks {
                return Some((line(&json!({ "type": "ERROR", "object": refusal(410) })), None));
            }
            let event = line(&state.log[told]);
            drop(state);
            Some((event, Some((receiver, told + 1))))
        });
        Response::new(StreamBody::new(events.boxed()))
    }
}

/// The path of a pod in the namespace of all tests.
pub(crate) fn path(name: &str) -> String {
    format!("/api/v1/namespaces/default/pods/{name}")
}

impl State {
    fn fault(&self, line: &str) -> Option<Fault> {
        self.faults.iter().find(|(part, _)| line.contains(part)).map(|(_, fault)| *fault)
    }

    /// A pod as it is now; null when there is none.
    pub(crate) fn pod(&self, name: &str) -> &Value {
        self.objects.get(&path(name)).unwrap_or(&Value::Null)
    }

    /// The calls whose line contains `part`.
    pub(crate) fn called(&self, part: &str) -> Vec<&Call> {
        self.calls.iter().filter(|call| call.line.contains(part)).collect()
    }

    fn store(&mut self, path: String, mut pod: Value, kind: &str) -> Value {
        self.version += 1;
        pod["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.log.push(json!({ "type": kind, "object": pod }));
        self.objects.insert(path, pod.clone());
        pod
    }

    fn remove(&mut self, path: &str) {
        if let Some(pod) = self.objects.get(path).cloned() {
            self.store(path.to_owned(), pod, "DELETED");
            self.objects.remove(path);
        }
    }

    fn answer(&mut self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        if let Some(Fault::Refuse(code)) = self.fault(&format!("{method} {path}")) {
            return (code, refusal(code));
        }
        if path.contains("/events") {
            return self.event(path, body);
        }
        match (method, path.strip_suffix("/status").unwrap_or(path)) {
            ("GET", "/api/v1/pods") => (200, self.list()),
            ("GET", path) => {
                self.objects.get(path).map_or((404, refusal(404)), |object| (200, object.clone()))
            }
            ("POST", path) if path.ends_with("/token") => (201, token(body)),
            ("PATCH", path) => self.patch(path, body),
            ("DELETE", path) => self.delete(path, body),
            _ => (405, refusal(405)),
        }
    }

    fn list(&self) -> Value {
        let pods: Vec<&Value> =
            self.objects.iter().filter(|(path, _)| path.contains("/pods/")).map(|(_, pod)| pod).collect();
        json!({ "metadata": { "resourceVersion": self.version.to_string() }, "items": pods })
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

fn token(request: &Value) -> Value {
    json!({ "metadata": {}, "spec": request["spec"], "status": { "token": "a-token", "expirationTimestamp": "2030-01-01T00:00:00Z" } })
}

fn refusal(code: u16) -> Value {
    let reason = match code {
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
        match target.iter_mut().find(|old| old["type"] == condition["type"]) {
            Some(old) => merge(old, condition),
            None => {
                let mut new = json!({});
                merge(&mut new, condition);
                target.push(new);
            }
        }
    }
}

/// Counts a write to a status while it is under way.
struct Writer<'a> {
    api: &'a FakeApi,
    line: Option<String>,
}

impl<'a> Writer<'a> {
    fn new(api: &'a FakeApi, line: &str) -> Self {
        let line = line.ends_with("/status").then(|| line.to_owned());
        if let Some(line) = &line {
            api.state.send_modify(|state| {
                let writers = state.writers.entry(line.clone()).or_default();
                *writers += 1;
                state.most_writers = state.most_writers.max(*writers);
            });
        }
        Self { api, line }
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        if let Some(line) = &self.line {
            self.api.state.send_modify(|state| *state.writers.get_mut(line).unwrap() -= 1);
        }
    }
}
