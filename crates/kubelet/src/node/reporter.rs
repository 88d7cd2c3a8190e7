use std::sync::Arc;
use std::time::Duration;

use coracle_lifecycle::{Images, LocalImage};
use k8s_openapi::api::core::v1::{Node, NodeStatus};
use kube::api::{Api, Patch, PatchParams, PostParams};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::call::{CallError, call, retries};
use super::complaint::Complaint;
use super::conditions::transitions;
use super::{
    Facts, FactsError, NetworkReport, NodeSettings, Observation, desired_node, desired_status, differs,
    metadata_patch, status_patch,
};
use crate::answers::chain;
use crate::clock;
use crate::events::Recorder;

/// How often the status is worked out.
const COMPUTE_EVERY: Duration = Duration::from_secs(10);

/// How often it is written though nothing changed.
const WRITE_EVERY: Duration = Duration::from_mins(5);

/// Why the node takes no pods, `None` when it does, and what there is to say of its pods' network.
pub(super) type Readiness = (watch::Receiver<Option<String>>, watch::Receiver<NetworkReport>);

/// Where the facts come from.
pub(super) type ReadFacts = Arc<dyn Fn() -> Result<Facts, FactsError> + Send + Sync>;

/// Registers the Node and keeps its status true.
pub(super) struct Reporter {
    pub(super) settings: Arc<NodeSettings>,
    pub(super) nodes: Api<Node>,
    pub(super) images: Arc<dyn Images>,
    pub(super) read_facts: ReadFacts,
    pub(super) ready: watch::Receiver<Option<String>>,
    pub(super) network: watch::Receiver<NetworkReport>,
    pub(super) node: watch::Sender<Option<Arc<Node>>>,
    pub(super) recorder: Recorder,
    listed: Vec<LocalImage>,
    write_after: Instant,
    is_cordoned: bool,
}

impl Reporter {
    pub(super) fn new(
        (settings, nodes): (Arc<NodeSettings>, Api<Node>),
        (images, read_facts): (Arc<dyn Images>, ReadFacts),
        (ready, network): Readiness,
        node: watch::Sender<Option<Arc<Node>>>,
        recorder: Recorder,
    ) -> Self {
        let (listed, write_after) = (Vec::new(), Instant::now());
        let is_cordoned = false;
        Self {
            settings,
            nodes,
            images,
            read_facts,
            ready,
            network,
            node,
            recorder,
            listed,
            write_after,
            is_cordoned,
        }
    }

    /// Makes the Node, or corrects the one that exists, however often it must be tried.
    pub(super) async fn register(&mut self) {
        let mut waits = retries();
        let mut complaint = Complaint::about("registering the node");
        while let Err(error) = self.try_register().await {
            complaint.failed(&error);
            sleep(waits.next()).await;
        }
        info!(node = self.settings.name, "the node is registered");
    }

    async fn try_register(&mut self) -> Result<(), CallError> {
        let seen = self.observe().await?;
        let desired = desired_node(&self.settings, &seen, clock::now());
        match call(self.nodes.create(&PostParams::default(), &desired)).await {
            Ok(node) => {
                self.written(&NodeStatus::default(), node, WRITE_EVERY);
                Ok(())
            }
            Err(error) if error.is_already_exists() => self.correct(&seen).await,
            Err(error) => Err(error),
        }
    }

    /// Gives a Node that was there before the labels, the annotation and the status it should have.
    async fn correct(&mut self, seen: &Observation) -> Result<(), CallError> {
        let mut node = call(self.nodes.get(&self.settings.name)).await?;
        if let Some(patch) = metadata_patch(&self.settings, &node.metadata) {
            let patch = Patch::Merge(patch);
            node = call(self.nodes.patch(&self.settings.name, &PatchParams::default(), &patch)).await?;
        }
        let current = node.status.unwrap_or_default();
        let desired = desired_status(&self.settings, seen, &current, clock::now());
        self.write(&current, &desired, WRITE_EVERY).await
    }

    /// Keeps the status true without end: looks every ten seconds, and at once when readiness changes or the Node is
    /// gone.
    pub(super) async fn run(mut self) {
        let mut waits = retries();
        let mut complaint = Complaint::about("the node's heartbeat");
        let mut node = self.node.subscribe();
        loop {
            let wait = match self.beat().await {
                Ok(()) => {
                    complaint.worked();
                    waits.reset();
                    COMPUTE_EVERY
                }
                Err(error) => {
                    complaint.failed(&error);
                    waits.next()
                }
            };
            tokio::select! {
                () = sleep(wait) => {}
                () = changed(&mut self.ready) => {}
                () = changed(&mut self.network) => {}
                () = gone(&mut node) => {}
            }
        }
    }

    async fn beat(&mut self) -> Result<(), CallError> {
        let Some(node) = self.node.borrow().clone() else {
            self.register().await;
            return Ok(());
        };
        self.tell_cordon(&node);
        let seen = self.observe().await?;
        let current = node.status.clone().unwrap_or_default();
        let desired = desired_status(&self.settings, &seen, &current, clock::now());
        let next = match (differs(&current, &desired), Instant::now() >= self.write_after) {
            (false, false) => return Ok(()),
            (false, true) => WRITE_EVERY,
            // Nodes that changed together, by one cause, should not write together ever after.
            (true, _) => WRITE_EVERY.mul_f64(0.5 + fastrand::f64()),
        };
        match self.write(&current, &desired, next).await {
            Err(error) if error.is_not_found() => {
                self.register().await;
                Ok(())
            }
            outcome => outcome,
        }
    }

    /// Tells people when the node was cordoned or uncordoned, as the kubelet does.
    fn tell_cordon(&mut self, node: &Node) {
        let is_cordoned = node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false);
        if is_cordoned != self.is_cordoned {
            self.is_cordoned = is_cordoned;
            self.recorder.node_changed(if is_cordoned { "NodeNotSchedulable" } else { "NodeSchedulable" });
        }
    }

    async fn write(
        &mut self,
        current: &NodeStatus,
        desired: &NodeStatus,
        next: Duration,
    ) -> Result<(), CallError> {
        let (parameters, patch) = (PatchParams::default(), Patch::Strategic(status_patch(desired)));
        let node = call(self.nodes.patch_status(&self.settings.name, &parameters, &patch)).await?;
        self.written(current, node, next);
        Ok(())
    }

    fn written(&mut self, before: &NodeStatus, node: Node, next: Duration) {
        let conditions = |status: &NodeStatus| status.conditions.clone().unwrap_or_default();
        let after = node.status.as_ref().map(conditions).unwrap_or_default();
        for reason in transitions(&conditions(before), &after) {
            self.recorder.node_changed(reason);
        }
        self.write_after = Instant::now() + next;
        self.node.send_replace(Some(Arc::new(node)));
    }

    async fn observe(&mut self) -> Result<Observation, CallError> {
        // A file system that hangs must not hang the agent's own threads.
        let read_facts = Arc::clone(&self.read_facts);
        let facts = tokio::task::spawn_blocking(move || read_facts()).await??;
        match self.images.list().await {
            Ok(images) => self.listed = images,
            Err(error) => warn!(cause = chain(&error), "the images cannot be listed"),
        }
        let unready = self.ready.borrow_and_update().clone();
        let network = self.network.borrow_and_update().clone();
        Ok(Observation { facts, images: self.listed.clone(), unready, network })
    }
}

async fn changed<T>(told: &mut watch::Receiver<T>) {
    if told.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn gone(node: &mut watch::Receiver<Option<Arc<Node>>>) {
    if node.wait_for(Option::is_none).await.is_err() {
        std::future::pending::<()>().await;
    }
}
