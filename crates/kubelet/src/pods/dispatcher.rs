use std::collections::{HashMap, HashSet};
use std::mem::take;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use coracle_lifecycle::{
    Admission, Checkpoint, Event, Eviction, Known, NodeView, PodUid, Resident, Verdict, Wish, apply, govern,
    recover,
};
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::runtime::watcher;
use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

use super::network::PodNetwork;
use super::shutdown::{Leaving, Stop, end_by_priority, groups};
use super::worker::{LAST_WORDS, Message, Settled, Worker};
use super::{Context, disk};
use crate::answers::chain;
use crate::node::{NetworkReport, pod_ranges};
use crate::{clock, watching};

/// How long a pod waits for a new worker after its worker failed.
const REVIVAL: Duration = Duration::from_secs(10);
/// How long a node that could give pods addresses waits for a range of them before it takes pods without.
const RANGE: Duration = Duration::from_secs(10);
/// The grace of containers whose pod is gone.
const ORPHANED: Duration = Duration::from_secs(1);

/// Watches the pods bound to this node and gives each a worker. It alone decides what concerns more than one pod.
pub(crate) struct Dispatcher {
    context: Arc<Context>,
    view: NodeView,
    network: PodNetwork,
    /// The pods of the watch. A worker whose pod the API server no longer has may end before the watch tells: it keeps
    /// its place here, so that an older state of the pod does not bring it back.
    workers: HashMap<PodUid, mpsc::UnboundedSender<Message>>,
    /// Pods that have their place, and whose end each still waits for.
    preemptions: HashMap<PodUid, HashSet<PodUid>>,
    /// Pods that were refused for the node's labels, and the Node as it is by now.
    second_looks: JoinSet<(Arc<Pod>, Option<Node>)>,
    tasks: JoinSet<()>,
    uids: HashMap<Id, PodUid>,
    reports: mpsc::UnboundedSender<Settled>,
    settled: mpsc::UnboundedReceiver<Settled>,
    left: HashMap<PodUid, Option<Checkpoint>>,
    left_logs: HashMap<PodUid, PathBuf>,
    known: Vec<Known>,
    listing: Vec<Pod>,
}

impl Dispatcher {
    /// A dispatcher that knows what an earlier agent left on disk and in the runtime.
    ///
    /// # Errors
    /// When the root directory cannot be read.
    pub(crate) async fn new(context: Arc<Context>) -> std::io::Result<Self> {
        let layout = context.layout.clone();
        let read = move || Ok((disk::load_all(&layout)?.into_iter().collect(), disk::logs(&layout)?));
        let (left, left_logs) = disk::off_thread(read).await?;
        let known = context.provider.containers().await;
        let (reports, settled) = mpsc::unbounded_channel();
        let network = PodNetwork::new(Arc::clone(&context.provider), context.host.addresses.clone());
        Ok(Self {
            context,
            network,
            view: NodeView::default(),
            workers: HashMap::new(),
            preemptions: HashMap::new(),
            second_looks: JoinSet::new(),
            tasks: JoinSet::new(),
            uids: HashMap::new(),
            reports,
            settled,
            left,
            left_logs,
            known,
            listing: Vec::new(),
        })
    }

    /// What the node is to say of its pods' network.
    pub(crate) fn network(&self) -> watch::Receiver<NetworkReport> {
        self.network.report()
    }

    /// Runs the node's pods until it is asked to stop, then ends their containers and waits for them. `ready` becomes `None` when
    /// all pods of the node are known.
    pub(crate) async fn run(
        mut self,
        mut node: watch::Receiver<Option<Arc<Node>>>,
        ready: watch::Sender<Option<String>>,
        stop: Stop,
    ) {
        let Some(Some(())) = stop.agent.run_until_cancelled(self.begin(&mut node)).await else { return };
        let mut events = Box::pin(watch_pods(&self.context, &self.view.name));
        loop {
            tokio::select! {
                () = stop.agent.cancelled() => break,
                () = stop.machine.cancelled(), if !self.view.shutdown => self.leave(&ready, &stop),
                Some(event) = events.next() => self.watched(event, &ready),
                Some(Settled(uid)) = self.settled.recv() => self.vacate(&uid),
                Some(ended) = self.tasks.join_next_with_id() => self.ended(ended).await,
                Some(Ok((pod, node))) = self.second_looks.join_next() => self.judge_again(&pod, node.as_ref()),
                Ok(()) = node.changed() => {
                    let node = node.borrow_and_update().clone();
                    self.learn(node.as_deref()).await;
                }
            }
        }
        drop(events);
        self.end().await;
    }

    /// Waits until the Node is known and, where pods can have addresses, the range of them. What an earlier agent gave to
    /// pods is kept for them.
    async fn begin(&mut self, node: &mut watch::Receiver<Option<Arc<Node>>>) -> Option<()> {
        let first = node.wait_for(Option::is_some).await.ok()?.clone();
        self.learn(first.as_deref()).await;
        if self.network.lacks_range() {
            let has_range =
                |node: &Option<Arc<Node>>| node.as_deref().is_some_and(|node| !pod_ranges(node).is_empty());
            let found = timeout(RANGE, node.wait_for(has_range)).await;
            let found = found.ok().and_then(Result::ok).and_then(|node| node.clone());
            self.learn(found.as_deref()).await;
        }
        let left = self.left.iter().filter_map(|(uid, left)| left.as_ref().map(|left| (uid, left)));
        for (uid, checkpoint) in left.filter(|(_, left)| !left.addresses.is_empty()) {
            self.view.addresses.take(uid, &checkpoint.addresses);
        }
        Some(())
    }

    async fn learn(&mut self, node: Option<&Node>) {
        let Some(node) = node else { return };
        self.view.addresses.learn(self.network.follow(node).await);
        self.view.learn(node);
    }

    fn watched(
        &mut self,
        event: Result<watcher::Event<Pod>, watcher::Error>,
        ready: &watch::Sender<Option<String>>,
    ) {
        match event {
            Ok(watcher::Event::Apply(pod)) => self.wish(pod),
            Ok(watcher::Event::Delete(pod)) => self.removed(&pod.identity().uid),
            Ok(watcher::Event::Init) => {}
            Ok(watcher::Event::InitApply(pod)) => self.listing.push(pod),
            Ok(watcher::Event::InitDone) => {
                self.listed();
                if !self.view.shutdown {
                    ready.send_replace(None);
                }
            }
            Err(error) => {
                self.listing.clear();
                warn!(cause = chain(&error), "the watch of pods was interrupted");
            }
        }
    }

    /// Compares the set of pods with the set of workers; new pods are taken oldest first.
    fn listed(&mut self) {
        let mut pods = take(&mut self.listing);
        pods.sort_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0));
        let present: HashSet<PodUid> = pods.iter().map(|pod| pod.identity().uid).collect();
        let gone: Vec<PodUid> = self.workers.keys().filter(|uid| !present.contains(uid)).cloned().collect();
        for uid in gone {
            self.removed(&uid);
        }
        for pod in pods {
            self.wish(pod);
        }
        self.clear_orphans();
    }

    /// Ends and removes what an earlier agent left of pods that are gone from the API server.
    fn clear_orphans(&mut self) {
        let (mut known, left) = (take(&mut self.known), take(&mut self.left));
        for uid in left.keys() {
            self.view.addresses.release(uid);
        }
        known.retain(|known| !self.workers.contains_key(&known.spec.pod.uid));
        let mut logs = take(&mut self.left_logs);
        logs.retain(|uid, _| !self.workers.contains_key(uid));
        let context = Arc::clone(&self.context);
        self.tasks.spawn(async move {
            for known in &known {
                known.container.stop(ORPHANED);
            }
            for known in known {
                known.container.exited().await;
                context.provider.remove(&known.spec.id);
                context.provider.remove_pod(&known.spec.pod.uid);
            }
            let (left, logs) = (left.into_keys().collect(), logs.into_values().collect());
            disk::forget_left(&context.layout, left, logs).await;
        });
    }

    fn removed(&mut self, uid: &PodUid) {
        if let Some(worker) = self.workers.remove(uid) {
            let _ = worker.send(Message::Event(Event::Removed));
        }
    }

    fn wish(&mut self, pod: Pod) {
        let pod = Arc::new(pod);
        let uid = pod.identity().uid;
        if let Some(worker) = self.workers.get(&uid) {
            self.context.directory.update(&uid, &pod);
            let _ = worker.send(Message::Event(Event::Wished(pod)));
        } else {
            let checkpoint = self.left.remove(&uid).flatten();
            let known = take(&mut self.known);
            self.assign(&pod, checkpoint.as_ref(), &known, Duration::ZERO);
            self.known = known;
        }
    }

    /// Gives a pod a worker that begins after `delay`.
    fn assign(&mut self, pod: &Arc<Pod>, checkpoint: Option<&Checkpoint>, known: &[Known], delay: Duration) {
        let host = Arc::clone(&self.context.host);
        let mut observed = recover(Arc::clone(pod), host, checkpoint, known, clock::now());
        let (uid, admission) = (observed.uid(), observed.admission.clone());
        let is_over = observed.is_terminal();
        if is_over {
            self.view.addresses.release(&uid);
        } else if admission == Admission::Admitted {
            let addresses = self.addresses(&uid, pod, &observed.addresses);
            apply(&mut observed, Event::Addressed(addresses), clock::now());
        }
        let (worker, sender) = Worker::new(Arc::clone(&self.context), observed, known, self.reports.clone());
        self.workers.insert(uid.clone(), sender);
        if !is_over {
            self.judge(&uid, pod, &admission);
        }
        let task = self.tasks.spawn(async move {
            if !delay.is_zero() {
                sleep(delay).await;
            }
            worker.run().await;
        });
        self.uids.insert(task.id(), uid);
    }

    /// Judges a pod that was not judged before, and books what it is promised.
    fn judge(&mut self, uid: &PodUid, pod: &Arc<Pod>, known: &Admission) {
        match known {
            Admission::Awaited => match self.verdict(&self.view, pod) {
                refused if refused.is_of_labels() => self.look_again(Arc::clone(pod)),
                verdict => self.decide(uid, pod, known, verdict),
            },
            known => self.decide(uid, pod, known, Verdict::Judged(known.clone())),
        }
    }

    /// The scheduler may have seen labels that this node has not heard of yet: they are asked for once.
    fn look_again(&mut self, pod: Arc<Pod>) {
        let (api, name) = (self.context.api.clone(), self.view.name.clone());
        self.second_looks.spawn(async move {
            let node = api.node(&name).await;
            (pod, node.inspect_err(|error| warn!(%error, "the Node cannot be read")).ok().flatten())
        });
    }

    fn judge_again(&mut self, pod: &Pod, node: Option<&Node>) {
        let (uid, mut view) = (pod.identity().uid, self.view.clone());
        if let Some(node) = node {
            view.learn(node);
        }
        if self.workers.contains_key(&uid) {
            let verdict = self.verdict(&view, pod);
            self.decide(&uid, pod, &Admission::Awaited, verdict);
        }
    }

    fn decide(&mut self, uid: &PodUid, pod: &Pod, known: &Admission, verdict: Verdict) {
        if !matches!(verdict, Verdict::Judged(Admission::Refused { .. })) {
            self.view.residents.insert(uid.clone(), Resident::of(pod));
        }
        match verdict {
            Verdict::Judged(Admission::Admitted) if *known == Admission::Awaited => self.admit(uid, pod),
            Verdict::Judged(verdict) if *known == Admission::Awaited => {
                self.tell(uid, Event::Judged(verdict));
            }
            Verdict::Judged(_) => {}
            Verdict::Preempts(victims) => self.preempt(uid, victims),
        }
    }

    /// Tells a pod that it is taken, and what its addresses are.
    fn admit(&mut self, uid: &PodUid, pod: &Pod) {
        let addresses = self.addresses(uid, pod, &[]);
        self.tell(uid, Event::Addressed(addresses));
        self.tell(uid, Event::Judged(Admission::Admitted));
    }

    /// The pod's own addresses, which are its as long as it has its place; none where it has the node's.
    fn addresses(&mut self, uid: &PodUid, pod: &Pod, earlier: &[IpAddr]) -> Vec<IpAddr> {
        if pod.uses_host_network() { Vec::new() } else { self.view.addresses.take(uid, earlier) }
    }

    /// Ends the victims; their places are booked for the pod, which is told when all have ended.
    fn preempt(&mut self, uid: &PodUid, victims: Vec<PodUid>) {
        for victim in &victims {
            self.tell(victim, Event::Evicted(Eviction::preempted()));
        }
        self.preemptions.insert(uid.clone(), victims.into_iter().collect());
    }

    /// What a pod was promised is free. A pod that waited for its end, and for no other, is taken.
    fn vacate(&mut self, uid: &PodUid) {
        self.view.residents.remove(uid);
        self.view.addresses.release(uid);
        self.preemptions.remove(uid);
        for victims in self.preemptions.values_mut() {
            victims.remove(uid);
        }
        let ready: Vec<PodUid> =
            self.preemptions.extract_if(|_, victims| victims.is_empty()).map(|(uid, _)| uid).collect();
        for uid in ready {
            if let Some(pod) = self.context.directory.pod(&uid) {
                self.admit(&uid, &pod);
            }
        }
    }

    fn tell(&self, uid: &PodUid, event: Event) {
        if let Some(worker) = self.workers.get(uid) {
            let _ = worker.send(Message::Event(event));
        }
    }

    fn verdict(&self, view: &NodeView, pod: &Pod) -> Verdict {
        match (govern(view, pod), self.context.provider.accepts(pod)) {
            (refused @ Verdict::Judged(Admission::Refused { .. }), _) => refused,
            (_, Err(unsupported)) => Verdict::Judged(Admission::Refused {
                reason: "PodFeatureUnsupported".to_owned(),
                message: unsupported.to_string(),
            }),
            (verdict, Ok(())) => verdict,
        }
    }

    async fn ended(&mut self, ended: Result<(Id, ()), JoinError>) {
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, ())| *id);
        let Some(uid) = self.uids.remove(&id) else { return };
        self.vacate(&uid);
        if let Err(error) = ended {
            error!(%uid, %error, "the worker of a pod failed");
            self.revive(&uid).await;
        }
    }

    /// Gives a pod whose worker failed a new one, from what is on disk and what still runs.
    async fn revive(&mut self, uid: &PodUid) {
        let Some(pod) = self.context.directory.pod(uid) else { return };
        let path = self.context.layout.checkpoint(uid);
        let checkpoint = disk::off_thread(move || disk::load(&path)).await.ok();
        let known = self.context.provider.containers().await;
        let is_gone = !self.workers.contains_key(uid);
        self.assign(&pod, checkpoint.as_ref(), &known, REVIVAL);
        if is_gone {
            self.removed(uid);
        }
    }

    /// The machine goes down: no pod is taken any more, and those that are here end for good, then the agent.
    fn leave(&mut self, ready: &watch::Sender<Option<String>>, stop: &Stop) {
        let grace = &self.context.shutdown_grace;
        if grace.total().is_zero() {
            return stop.agent.cancel();
        }
        info!(pods = self.workers.len(), "the machine goes down: pods end by priority");
        self.view.shutdown = true;
        ready.send_replace(Some("node is shutting down".to_owned()));
        self.context.recorder.node_shutting_down();
        let views = self.context.directory.list().into_iter();
        let leaving = views.filter_map(|view| Leaving::new(view, &self.workers)).collect();
        let (groups, agent) = (groups(grace, leaving), stop.agent.clone());
        self.tasks.spawn(async move {
            end_by_priority(groups).await;
            agent.cancel();
        });
    }

    /// Ends what runs, each with its grace, and waits until the last statuses are written.
    async fn end(mut self) {
        let grace =
            self.context.directory.list().iter().map(|view| view.pod.grace()).max().unwrap_or_default();
        info!(pods = self.workers.len(), "ending the node's containers");
        for worker in self.workers.values() {
            let _ = worker.send(Message::Event(Event::ShutDown));
        }
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(grace + LAST_WORDS * 2, all).await.is_err() {
            warn!(pods = self.tasks.len(), "the last statuses of some pods could not be written");
        }
    }
}

/// All pods bound to the node, as they change. A node may ask for no others.
fn watch_pods(
    context: &Context,
    node: &str,
) -> impl Stream<Item = Result<watcher::Event<Pod>, watcher::Error>> + use<> {
    let pods: Api<Pod> = Api::all(context.api.client());
    watching::follow(pods, watcher::Config::default().fields(&format!("spec.nodeName={node}")))
}
