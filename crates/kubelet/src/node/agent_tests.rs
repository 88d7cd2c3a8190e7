use std::collections::VecDeque;
use std::time::Duration;

use hyper::{Method, Request, Response};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use super::super::NetworkReport;
use super::super::samples::{facts, settings};
use super::*;
use crate::events::record;
use crate::pods::PodApi;
use crate::pods::testing::FakeImages;

/// One request that the agent made.
#[derive(Clone, Debug)]
struct Seen {
    at: Instant,
    line: String,
    body: Value,
}

/// What the scripted API server holds.
#[derive(Default)]
struct Cluster {
    node: Option<Value>,
    lease: Option<Value>,
    made: u64,
    version: u64,
    /// Codes that the next requests to the Node or the Lease are refused with.
    refusals: VecDeque<u16>,
    /// The Node is reported deleted by the next watch.
    report_deletion: bool,
}

impl Cluster {
    /// The answer to one request; `None` leaves it open.
    fn answer(&mut self, method: &Method, path: &str, query: &str, body: &Value) -> Option<(u16, Value)> {
        if path.ends_with("/events") {
            return Some((201, body.clone()));
        }
        if query.contains("watch=true") {
            return self.watch();
        }
        if path == "/api/v1/nodes" && method == Method::GET {
            assert!(query.contains("metadata.name%3Dn1"), "{query}");
            let items: Vec<_> = self.node.iter().cloned().collect();
            return Some((200, json!({ "metadata": { "resourceVersion": "1" }, "items": items })));
        }
        if let Some(code) = self.refusals.pop_front() {
            return Some(refusal(code));
        }
        self.version += 1;
        let version = self.version;
        let object = if path.contains("leases") { &mut self.lease } else { &mut self.node };
        if *method == Method::POST {
            if object.is_some() {
                return Some(refusal(409));
            }
            self.made += 1;
            *object = Some(body.clone());
            object.as_mut()?["metadata"]["uid"] = json!(format!("uid-{}", self.made));
        }
        let Some(object) = object else { return Some(refusal(404)) };
        if method == Method::PUT {
            *object = body.clone();
        } else if method == Method::PATCH {
            merge(object, body);
        }
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        Some((200, object.clone()))
    }

    fn watch(&mut self) -> Option<(u16, Value)> {
        if !std::mem::take(&mut self.report_deletion) {
            return None;
        }
        let node = self.node.take()?;
        Some((200, json!({ "type": "DELETED", "object": node })))
    }
}

fn refusal(code: u16) -> (u16, Value) {
    let reason = match code {
        404 => "NotFound",
        409 => "AlreadyExists",
        _ => "InternalError",
    };
    (
        code,
        json!({ "status": "Failure", "code": code, "reason": reason, "message": format!("refused {code}") }),
    )
}

/// A merge patch without strategy, which suffices for what these tests look at.
fn merge(target: &mut Value, patch: &Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(target.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (target, Value::Array(patch)) => {
            let is_value = |item: &&Value| item.get("$patch").is_none();
            *target = patch.iter().filter(is_value).cloned().collect();
        }
        (target, patch) => target.clone_from(patch),
    }
}

/// An agent that runs against a scripted API server, in paused time.
struct Scene {
    cluster: Arc<std::sync::Mutex<Cluster>>,
    seen: watch::Receiver<Vec<Seen>>,
    ready: watch::Sender<Option<String>>,
    node: watch::Receiver<Option<Arc<Node>>>,
    shutdown: CancellationToken,
    tasks: JoinSet<()>,
}

impl Scene {
    fn new(cluster: Cluster) -> Self {
        let cluster = Arc::new(std::sync::Mutex::new(cluster));
        let (service, handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
        let (log, seen) = watch::channel(Vec::new());
        let (ready, is_ready) = watch::channel(Some("waiting for pods".to_owned()));
        let (_, network) = watch::channel(NetworkReport::default());
        let (sender, node) = watch::channel(None);
        let shutdown = CancellationToken::new();
        let (recorder, events) = Recorder::new("n1");
        let client = Client::new(service, "default");
        let api = PodApi::new(client.clone());
        let agent = NodeAgent {
            settings: Arc::new(settings()),
            client,
            images: Arc::new(FakeImages::new()),
            read_facts: Arc::new(|| Ok(facts())),
            recorder,
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(record(api, events));
        tasks.spawn(serve(handle, Arc::clone(&cluster), log));
        tasks.spawn(agent.run((is_ready, network), sender, shutdown.clone()));
        Self { cluster, seen, ready, node, shutdown, tasks }
    }

    /// The requests whose line contains `part`, once there are `count`.
    async fn requests(&mut self, part: &str, count: usize) -> Vec<Seen> {
        let matching = |seen: &Vec<Seen>| -> Vec<Seen> {
            seen.iter().filter(|seen| seen.line.contains(part)).cloned().collect()
        };
        let enough = self.seen.wait_for(|seen| matching(seen).len() >= count);
        let seen = timeout(Duration::from_hours(1), enough).await.expect(part).unwrap();
        matching(&seen)
    }

    fn count(&self, part: &str) -> usize {
        self.seen.borrow().iter().filter(|seen| seen.line.contains(part)).count()
    }
}

async fn serve(
    mut handle: tower_test::mock::Handle<Request<Body>, Response<Body>>,
    cluster: Arc<std::sync::Mutex<Cluster>>,
    log: watch::Sender<Vec<Seen>>,
) {
    let mut open = Vec::new();
    while let Some((request, reply)) = handle.next_request().await {
        let (parts, body) = request.into_parts();
        let body = body.collect_bytes().await.unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let (path, query) = (parts.uri.path(), parts.uri.query().unwrap_or_default());
        let answer = cluster.lock().unwrap().answer(&parts.method, path, query, &body);
        let line = format!("{} {path}", parts.method);
        log.send_modify(|seen| seen.push(Seen { at: Instant::now(), line, body }));
        match answer {
            Some((code, answer)) => reply.send_response(
                Response::builder()
                    .status(code)
                    .body(Body::from(format!("{answer}\n").into_bytes()))
                    .unwrap(),
            ),
            None => open.push(reply),
        }
    }
}

const CREATE: &str = "POST /api/v1/nodes";
const STATUS: &str = "PATCH /api/v1/nodes/n1/status";
const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";

fn ready_of(body: &Value) -> &str {
    body["status"]["conditions"][3]["status"].as_str().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_node_is_made_unready_and_becomes_ready_at_once() {
    let mut scene = Scene::new(Cluster::default());
    let created = scene.requests(CREATE, 1).await;
    assert_eq!(ready_of(&created[0].body), "False");
    assert_eq!(created[0].body["status"]["conditions"][3]["message"], "waiting for pods");
    scene.requests(LEASE, 2).await;
    let before = Instant::now();
    scene.ready.send_replace(None);
    let patched = scene.requests(STATUS, 1).await;
    assert_eq!(ready_of(&patched[0].body), "True");
    assert!(patched[0].at - before < Duration::from_secs(1), "readiness does not wait for the next look");
    scene.node.wait_for(Option::is_some).await.unwrap();
    let events = scene.requests("/namespaces/default/events", 6).await;
    let reasons: Vec<_> = events.iter().map(|event| event.body["reason"].as_str().unwrap()).collect();
    assert_eq!((reasons[0], reasons[5]), ("Starting", "NodeReady"));
    assert_eq!(events[5].body["message"], "Node n1 status is now: NodeReady");
}

#[tokio::test(start_paused = true)]
async fn registration_is_tried_again_with_growing_waits() {
    let mut scene = Scene::new(Cluster { refusals: [500; 6].into(), ..Cluster::default() });
    let tries = scene.requests(CREATE, 7).await;
    let waits: Vec<_> = tries.windows(2).map(|pair| pair[1].at - pair[0].at).collect();
    for (wait, base) in waits.iter().zip([100, 200, 400, 800, 1600, 3200]) {
        let base = Duration::from_millis(base);
        assert!(*wait >= base && *wait <= base * 2 + Duration::from_millis(5), "{waits:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_existing_node_is_corrected() {
    let existing = json!({
        "metadata": { "name": "n1", "uid": "old", "labels": { "own": "1", "kubernetes.io/arch": "amd64" } },
    });
    let mut scene = Scene::new(Cluster { node: Some(existing), ..Cluster::default() });
    let patch = scene.requests("PATCH /api/v1/nodes/n1", 2).await;
    assert_eq!(patch[0].body["metadata"]["labels"]["kubernetes.io/arch"], "wasm32-wasi");
    assert_eq!(patch[1].line, STATUS);
    scene.requests(LEASE, 2).await;
    let node = scene.node.borrow().clone().unwrap();
    assert_eq!(node.labels()["own"], "1");
}

#[tokio::test(start_paused = true)]
async fn the_lease_is_renewed_and_owned_by_the_node() {
    let mut scene = Scene::new(Cluster::default());
    let calls = scene.requests(LEASE, 5).await;
    assert!(calls[0].line.starts_with("GET") && calls[1].line.starts_with("POST"), "{calls:?}");
    let lease = &calls[1].body;
    assert_eq!(lease["spec"]["leaseDurationSeconds"], 40);
    assert_eq!(lease["spec"]["holderIdentity"], "n1");
    assert_eq!(lease["metadata"]["ownerReferences"][0]["uid"], "uid-1");
    for pair in calls[1..].windows(2) {
        let wait = (pair[1].at - pair[0].at).as_secs_f64();
        assert!((10.0..10.5).contains(&wait), "{wait} s");
        assert!(pair[1].line.starts_with("PUT"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_is_made_again() {
    let mut scene = Scene::new(Cluster::default());
    scene.requests(LEASE, 2).await;
    scene.cluster.lock().unwrap().lease = None;
    let calls = scene.requests(LEASE, 5).await;
    let methods: Vec<_> = calls.iter().map(|call| call.line.split(' ').next().unwrap()).collect();
    assert_eq!(methods, ["GET", "POST", "PUT", "GET", "POST"]);
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_others_wrote_is_read_again_at_once() {
    let mut scene = Scene::new(Cluster::default());
    scene.requests(LEASE, 2).await;
    scene.cluster.lock().unwrap().refusals = [409; 2].into();
    let calls = scene.requests(LEASE, 6).await;
    let methods: Vec<_> = calls.iter().map(|call| call.line.split(' ').next().unwrap()).collect();
    assert_eq!(methods, ["GET", "POST", "PUT", "GET", "GET", "PUT"]);
    assert!(calls[5].at - calls[2].at < Duration::from_millis(200), "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn cordoning_has_an_event_and_so_has_its_end() {
    let existing = json!({ "metadata": { "name": "n1", "uid": "u" }, "spec": { "unschedulable": true } });
    let mut scene = Scene::new(Cluster { node: Some(existing), ..Cluster::default() });
    let reasons = |seen: &Vec<Seen>| -> Vec<String> {
        let events = seen.iter().filter(|seen| seen.line.ends_with("/events"));
        let reasons = events.map(|event| event.body["reason"].as_str().unwrap().to_owned());
        reasons.filter(|reason| reason.ends_with("Schedulable")).collect()
    };
    scene.seen.wait_for(|seen| reasons(seen).len() == 1).await.unwrap();
    scene.cluster.lock().unwrap().node.as_mut().unwrap()["spec"]["unschedulable"] = json!(false);
    scene.ready.send_replace(None);
    scene.seen.wait_for(|seen| reasons(seen).len() == 2).await.unwrap();
    assert_eq!(reasons(&scene.seen.borrow()), ["NodeNotSchedulable", "NodeSchedulable"]);
}

#[tokio::test(start_paused = true)]
async fn an_unchanged_status_is_written_every_five_minutes_only() {
    let mut scene = Scene::new(Cluster::default());
    let created = scene.requests(CREATE, 1).await;
    let patched = scene.requests(STATUS, 2).await;
    let first = patched[0].at - created[0].at;
    assert!((300..311).contains(&first.as_secs()), "{first:?}");
    let second = patched[1].at - patched[0].at;
    assert!((300..311).contains(&second.as_secs()), "{second:?}");
}

#[tokio::test(start_paused = true)]
async fn a_failed_heartbeat_is_tried_again_soon() {
    let mut scene = Scene::new(Cluster::default());
    scene.requests(LEASE, 2).await;
    scene.cluster.lock().unwrap().refusals = [500; 3].into();
    scene.ready.send_replace(None);
    let tries = scene.requests(STATUS, 4).await;
    assert!(tries[3].at - tries[0].at < Duration::from_secs(2), "{tries:?}");
    assert_eq!(ready_of(&tries[3].body), "True");
}

#[tokio::test(start_paused = true)]
async fn a_deleted_node_is_made_again_and_its_lease_follows() {
    let mut scene = Scene::new(Cluster { report_deletion: true, ..Cluster::default() });
    let created = scene.requests(CREATE, 2).await;
    assert!(created[1].at - created[0].at < Duration::from_secs(5), "the watch tells at once");
    let new_uid = |node: &Option<Arc<Node>>| {
        node.as_ref().is_some_and(|node| node.uid().is_some_and(|uid| uid != "uid-1"))
    };
    let uid = scene.node.wait_for(new_uid).await.unwrap().as_ref().unwrap().uid().unwrap();
    scene.requests(LEASE, 3).await;
    let owner = |scene: &Scene| {
        scene.cluster.lock().unwrap().lease.as_ref().unwrap()["metadata"]["ownerReferences"][0]["uid"].clone()
    };
    assert_eq!(owner(&scene), uid);
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_that_finds_no_node_makes_it_again() {
    let mut scene = Scene::new(Cluster::default());
    scene.requests(LEASE, 2).await;
    scene.cluster.lock().unwrap().node = None;
    scene.ready.send_replace(None);
    let created = scene.requests(CREATE, 2).await;
    assert_eq!(ready_of(&created[1].body), "True");
}

#[tokio::test(start_paused = true)]
async fn after_the_shutdown_nothing_is_written() {
    let mut scene = Scene::new(Cluster::default());
    scene.requests(LEASE, 2).await;
    scene.shutdown.cancel();
    scene.tasks.join_next().await.unwrap().unwrap();
    let before = scene.count(" ");
    tokio::time::sleep(Duration::from_mins(10)).await;
    assert_eq!(scene.count(" "), before);
    assert!(scene.cluster.lock().unwrap().node.is_some());
}
