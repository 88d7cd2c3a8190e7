use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use coracle_lifecycle::Host;
use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::api::FakeApi;
use super::images::FakeImages;
use super::objects::{State, path};
use super::runtime::{FakeRuntime, Run};
use super::{PATIENCE, shown};
use crate::Layout;
use crate::access::Access;
use crate::events::{Recorder, record};
use crate::pods::{
    Context, Dispatcher, Handlers, HostPaths, Naming, PodApi, PodDirectory, Prober, PullSettings, Pulls,
    RuntimeClasses, Services, ShutdownGrace, Stop, Supplies,
};

pub(crate) const NODE: &str = "n1";
pub(crate) const CONFIG_MAP: &str = "/api/v1/namespaces/default/configmaps/kube-root-ca.crt";
pub(crate) const SECRET: &str = "/api/v1/namespaces/default/secrets/registry";

/// A node's pods between an API server, a runtime and an image store, with a root directory of their own.
pub(crate) struct Scene {
    pub(crate) api: FakeApi,
    pub(crate) runtime: FakeRuntime,
    pub(crate) images: FakeImages,
    pub(crate) directory: PodDirectory,
    pub(crate) node: watch::Sender<Option<Arc<Node>>>,
    pub(crate) ready: watch::Receiver<Option<String>>,
    pub(crate) layout: Layout,
    _root: TempDir,
    recorder: JoinSet<()>,
    agent: JoinSet<()>,
    pub(crate) stop: Stop,
    pub(crate) shutdown_grace: ShutdownGrace,
}

/// A pod that restarts by `policy`, of one container `c` that runs `image`.
pub(crate) fn pod(policy: &str, image: &str) -> Value {
    json!({
        "metadata": {},
        "spec": {
            "nodeName": NODE,
            "restartPolicy": policy,
            "terminationGracePeriodSeconds": 30,
            "containers": [{ "name": "c", "image": image, "imagePullPolicy": "IfNotPresent" }]
        },
        "status": { "phase": "Pending", "qosClass": "BestEffort" }
    })
}

fn node(pods: u32) -> Arc<Node> {
    let node = json!({
        "metadata": { "name": NODE },
        "status": { "allocatable": { "cpu": "2", "memory": "1Gi", "ephemeral-storage": "1Gi", "pods": pods.to_string() } }
    });
    Arc::new(serde_json::from_value(node).unwrap())
}

impl Scene {
    /// A scene with a node that runs and has room for 10 pods.
    pub(crate) async fn new() -> Self {
        let mut scene = Self::empty();
        scene.start().await;
        scene
    }

    /// A scene whose agent is not started yet.
    pub(crate) fn empty() -> Self {
        let root = tempfile::tempdir().unwrap();
        let memory = root.path().join("memory");
        std::fs::create_dir(&memory).unwrap();
        std::fs::create_dir(root.path().join("host")).unwrap();
        Self {
            api: FakeApi::new(),
            runtime: FakeRuntime::new(),
            images: FakeImages::new(),
            directory: PodDirectory::default(),
            node: watch::Sender::new(Some(node(10))),
            ready: watch::channel(None).1,
            layout: Layout::new(root.path()).in_memory(Some(memory)),
            _root: root,
            recorder: JoinSet::new(),
            agent: JoinSet::new(),
            stop: Stop::default(),
            shutdown_grace: ShutdownGrace::default(),
        }
    }

    /// Gives the node, which has room for 10 pods, a range for their addresses.
    pub(crate) fn give_range(&self, range: &str) {
        let mut node = (*node(10)).clone();
        node.spec.get_or_insert_default().pod_cidr = Some(range.to_owned());
        self.node.send_replace(Some(Arc::new(node)));
    }

    /// Says how many pods the node has room for.
    pub(crate) fn make_room(&self, pods: u32) {
        self.node.send_replace(Some(node(pods)));
    }

    /// Starts the agent, anew after [`Self::shut_down`] or [`Self::kill`].
    pub(crate) async fn start(&mut self) {
        let (recorder, events) = Recorder::new(NODE);
        let api = PodApi::new(self.api.client());
        self.directory = PodDirectory::default();
        let (services, services_known) = Services::watch(self.api.client());
        let served = vec!["fake".to_owned()];
        let (runtime_classes, classes_known) = RuntimeClasses::watch(self.api.client(), served);
        let context = Context {
            api: api.clone(),
            provider: Arc::new(self.runtime.clone()),
            images: Arc::new(self.images.clone()),
            layout: self.layout.clone(),
            host: Arc::new(Host {
                runtime: "fake".to_owned(),
                addresses: vec!["192.0.2.7".parse().unwrap()],
            }),
            recorder,
            directory: self.directory.clone(),
            pulls: Pulls::new(PullSettings::default()),
            access: Access::new(self.layout.image_access()),
            shutdown_grace: self.shutdown_grace.clone(),
            node: self.node.subscribe(),
            services,
            runtime_classes,
            supplies: Supplies::new(api.clone()),
            host_paths: Arc::new(HostPaths::new(&[self.layout.root().join("host")], &[self.layout.pods()])),
            naming: Naming {
                node: NODE.to_owned(),
                cluster_dns: vec!["10.96.0.10".parse().unwrap()],
                cluster_domain: "cluster.local".to_owned(),
            },
            handlers: Handlers::new(),
            prober: Prober::here(),
        };
        let dispatcher = Dispatcher::new(Arc::new(context)).await.unwrap();
        let (ready, is_ready) = watch::channel(Some("not yet".to_owned()));
        self.ready = is_ready;
        self.stop = Stop::default();
        self.recorder.spawn(record(api, events));
        self.recorder.spawn(services_known);
        self.recorder.spawn(classes_known);
        self.agent.spawn(dispatcher.run(self.node.subscribe(), ready, self.stop.clone()));
    }

    /// Ends the agent in order, and gives the time that took.
    pub(crate) async fn shut_down(&mut self) -> Duration {
        let began = Instant::now();
        self.stop.agent.cancel();
        self.ended(began).await
    }

    /// Waits until the agent has ended of itself, and gives the time since `began`.
    pub(crate) async fn ended(&mut self, began: Instant) -> Duration {
        let ended = async { while self.agent.join_next().await.is_some() {} };
        timeout(PATIENCE, ended).await.expect("the agent ends");
        self.runtime.die();
        began.elapsed()
    }

    /// Ends the agent as SIGKILL does: nothing it was about to do is done.
    pub(crate) async fn kill(&mut self) {
        self.kill_agent_only().await;
        self.runtime.die();
    }

    /// As [`Self::kill`], with a runtime that lives in a process of its own.
    pub(crate) async fn kill_agent_only(&mut self) {
        self.agent.shutdown().await;
        self.recorder.shutdown().await;
    }

    /// The UID that the next pod gets when it is created under this name.
    pub(crate) fn next_uid(&self, name: &str) -> String {
        format!("{name}-{}", self.api.state.borrow().version)
    }

    /// Creates a pod and gives its UID.
    pub(crate) fn create(&self, name: &str, pod: Value) -> String {
        self.create_at(name, "2023-11-14T22:13:20Z", pod)
    }

    pub(crate) fn create_at(&self, name: &str, created: &str, pod: Value) -> String {
        let uid = self.next_uid(name);
        self.api.change(name, |object| {
            *object = pod;
            object["metadata"]["namespace"] = json!("default");
            object["metadata"]["name"] = json!(name);
            object["metadata"]["uid"] = json!(uid);
            object["metadata"]["creationTimestamp"] = json!(created);
        });
        uid
    }

    /// Asks for a pod's deletion, as a user does.
    pub(crate) fn delete(&self, name: &str, grace: u32) {
        self.api.change(name, |pod| {
            pod["metadata"]["deletionTimestamp"] = json!("2023-11-14T22:14:00Z");
            pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        });
    }

    /// Waits until the API server shows a pod so.
    pub(crate) async fn pod(&self, name: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let what = format!("pod {name} {what}");
        self.api_shows(&what, |state| Some(state.pod(name)).filter(|pod| is(pod)).cloned()).await
    }

    pub(crate) async fn phase(&self, name: &str, phase: &str) -> Value {
        self.pod(name, phase, |pod| pod["status"]["phase"] == phase).await
    }

    /// Waits until the one container of a pod waits for this reason.
    pub(crate) async fn waits(&self, name: &str, reason: &str) -> Value {
        self.pod(name, reason, |pod| container(pod)["state"]["waiting"]["reason"] == reason).await
    }

    /// Waits until a pod is gone from the API server.
    pub(crate) async fn gone(&self, name: &str) {
        let path = path(name);
        let is_gone = |state: &State| (!state.objects.contains_key(&path)).then_some(());
        self.api_shows(&format!("pod {name} gone"), is_gone).await;
    }

    /// Waits until the node knows all its pods.
    pub(crate) async fn is_ready(&mut self) {
        timeout(PATIENCE, self.ready.wait_for(Option::is_none)).await.expect("ready").unwrap();
    }

    /// Waits until the node itself gives a pod this phase, whatever the API server shows.
    pub(crate) async fn knows(&self, name: &str, phase: &str) {
        let mut status = self.directory.find("default", name).expect(name).status;
        let known = status.wait_for(|status| status.phase.as_deref() == Some(phase));
        timeout(PATIENCE, known).await.expect(phase).expect(phase);
    }

    pub(crate) async fn api_shows<T>(&self, what: &str, look: impl Fn(&State) -> Option<T>) -> T {
        shown(&self.api.state, what, look).await
    }

    /// Waits until an Event with this reason has been written, and gives its message.
    pub(crate) async fn event(&self, reason: &str) -> String {
        let find = |state: &State| {
            let event = state.events.values().find(|event| event["reason"] == reason)?;
            event["message"].as_str().map(ToOwned::to_owned)
        };
        self.api_shows(reason, find).await
    }

    /// Waits for a pod's `number`-th run, from 0.
    pub(crate) async fn run(&self, name: &str, number: usize) -> Run {
        let what = format!("run {number} of {name}");
        shown(&self.runtime.state, &what, |state| state.of(name).get(number).map(|run| (*run).clone())).await
    }

    /// Waits until the agent has no worker for this pod any more and nothing of it is on disk.
    pub(crate) async fn forgotten(&self, uid: &str) {
        let is_here =
            || self.directory.list().iter().any(|view| view.pod.metadata.uid.as_deref() == Some(uid));
        let ended = async {
            for view in self.directory.list() {
                let mut status = view.status;
                if view.pod.metadata.uid.as_deref() == Some(uid) {
                    while status.changed().await.is_ok() {}
                }
            }
        };
        timeout(PATIENCE, ended).await.expect("the worker ends");
        assert!(!is_here());
        let entries = |directory| std::fs::read_dir(directory).into_iter().flatten();
        let left: Vec<_> = entries(self.layout.pods())
            .chain(entries(self.layout.logs()))
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.contains(uid))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let removed = self.runtime.state.borrow().removed_running.clone();
        assert!(std::thread::panicking() || removed.is_empty(), "removed while they ran: {removed:?}");
    }
}

/// The status of a pod's first container.
pub(crate) fn container(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]
}

/// A pod's conditions: status by type.
pub(crate) fn conditions(pod: &Value) -> BTreeMap<&str, &str> {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions.map(|it| (it["type"].as_str().unwrap(), it["status"].as_str().unwrap())).collect()
}
