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

use super::objects::{Call, Fault, State, path, refusal};

/// An API server in memory. It holds pods and what they refer to, records each call, and can be made to fail.
#[derive(Clone)]
pub(crate) struct FakeApi {
    pub(crate) state: Arc<watch::Sender<State>>,
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
        let kind = parts.headers.get("content-type").map(|kind| kind.as_bytes().to_vec());
        let mut answer = (415, refusal(415));
        if method == "PATCH" && kind.as_deref() != Some(b"application/strategic-merge-patch+json") {
            return reply(answer);
        }
        self.state.send_modify(|state| answer = state.answer(method, parts.uri.path(), &call.body));
        self.state.subscribe().wait_for(|state| state.fault(&line) != Some(Fault::Mute)).await.unwrap();
        reply(answer)
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
                    state.breaks > breaks || state.log.get(told).is_some_and(|event| !state.is_held(event))
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

fn reply((code, object): (u16, Value)) -> Reply {
    let bytes = Bytes::from(object.to_string());
    let body = StreamBody::new(stream::once(async { Ok(Frame::data(bytes)) }).boxed());
    Response::builder().status(code).body(body).unwrap()
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
