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

use super::objects::{Call, Fault, State, is_in, path, refusal};

/// An API server in memory. It holds pods and what they refer to, records each call, and can be made to fail.
#[derive(Clone)]
pub(crate) struct FakeApi {
    pub(crate) state: Arc<watch::Sender<State>>,
}

type Reply = Response<StreamBody<BoxStream<'static, Result<Frame<Bytes>, Infallible>>>>;

impl FakeApi {
    pub(crate) fn new() -> Self {
        Self { state: Arc::new(watch::Sender::new(State::default())) }
    }

    pub(crate) fn client(&self) -> Client {
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

    /// Puts an object where a GET finds it and watches hear of it.
    pub(crate) fn put(&self, path: &str, object: Value) {
        self.state.send_modify(|state| {
            let mut object = object;
            object["metadata"]["name"] = path.rsplit('/').next().into();
            let kind = if state.objects.contains_key(path) { "MODIFIED" } else { "ADDED" };
            state.store(path.to_owned(), object, kind);
        });
    }

    /// Takes an object away.
    pub(crate) fn take(&self, path: &str) {
        self.state.send_modify(|state| state.remove(path));
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
            return self.watch(parts.uri.path(), parts.uri.query().unwrap_or_default());
        }
        let kind = parts.headers.get("content-type").map(|kind| kind.as_bytes().to_vec());
        let mut answer = (415, refusal(415));
        if method == "PATCH" && kind.as_deref() != Some(b"application/strategic-merge-patch+json") {
            return reply(answer);
        }
        self.state.send_modify(|state| {
            answer = {
                let query = parts.uri.query().unwrap_or_default();
                state.answer(method, parts.uri.path(), query, &call.body)
            }
        });
        self.state.subscribe().wait_for(|state| state.fault(&line) != Some(Fault::Mute)).await.unwrap();
        reply(answer)
    }

    /// All that happens to what is asked for, until the watch breaks.
    fn watch(&self, collection: &str, query: &str) -> Reply {
        let watch = Watch::new(self, collection, query);
        let events = stream::unfold(Some(watch), |watch| async move { Some(watch?.next().await) });
        Response::new(StreamBody::new(events.boxed()))
    }
}

/// A watch that is under way.
struct Watch {
    api: FakeApi,
    receiver: watch::Receiver<State>,
    collection: String,
    query: String,
    told: usize,
    breaks: usize,
}

impl Watch {
    fn new(api: &FakeApi, collection: &str, query: &str) -> Self {
        let receiver = api.state.subscribe();
        let version = query.split_once("resourceVersion=").map(|(_, rest)| rest.split('&').next().unwrap());
        let (told, breaks) = {
            let state = receiver.borrow();
            (version.and_then(|version| version.parse().ok()).unwrap_or(state.log.len()), state.breaks)
        };
        let watch = Self {
            api: api.clone(),
            receiver,
            collection: collection.to_owned(),
            query: query.to_owned(),
            told,
            breaks,
        };
        api.state.send_modify(|state| state.watches.push(watch.asked()));
        watch
    }

    fn asked(&self) -> String {
        format!("{}?{}", self.collection, self.query)
    }

    async fn next(mut self) -> (Result<Frame<Bytes>, Infallible>, Option<Self>) {
        let position = |state: &State| {
            let (collection, query) = (&self.collection, &self.query);
            let rest = state.log[self.told..].iter().position(|(path, _)| is_in(path, collection, query));
            rest.map(|position| self.told + position)
        };
        let is_told = |state: &State| {
            let event = position(state).map(|position| &state.log[position].1);
            state.breaks > self.breaks || event.is_some_and(|event| !state.is_held(event))
        };
        let (line, told) = {
            let state = self.receiver.clone().wait_for(is_told).await.map(|state| {
                let next = position(&state).filter(|_| state.breaks == self.breaks);
                let event = next.map(|next| state.log[next].1.clone());
                (event.unwrap_or_else(|| json!({ "type": "ERROR", "object": refusal(410) })), next)
            });
            state.unwrap()
        };
        let line = Ok(Frame::data(Bytes::from(format!("{line}\n"))));
        let Some(told) = told else { return (line, None) };
        self.told = told + 1;
        (line, Some(self))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let asked = self.asked();
        self.api.state.send_modify(|state| {
            let position = state.watches.iter().position(|watch| *watch == asked).unwrap();
            state.watches.swap_remove(position);
        });
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
