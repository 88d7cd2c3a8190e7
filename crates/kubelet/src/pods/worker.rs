use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use coracle_lifecycle::reasons::Waiting;
use coracle_lifecycle::{
    Action, Admission, Checkpoint, Container, ContainerId, Event, ImageState, Known, Observed, PodIdentity,
    PodUid, Wish, apply, checkpoint, notices, plan, status,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, error, warn};

use super::api::Written;
use super::directory::PodView;
use super::fetch::fetch;
use super::publish::{Acknowledgement, publish};
use super::start::{Run, start, watch_end};
use super::{Context, disk, patch, volumes};
use crate::clock;

/// What reaches a worker.
pub(crate) enum Message {
    /// Something happened to the pod.
    Event(Event),
    /// The handle of a run that was started.
    Handle { container: String, handle: Arc<dyn Container> },
    /// The API server has answered a status.
    Answered(Acknowledgement),
}

/// What a worker tells the dispatcher: nothing of this pod runs or will run, so what it was promised is free.
pub(crate) struct Settled(pub(crate) PodUid);

/// One pod's task: the only owner of what is known of the pod.
pub(crate) struct Worker {
    context: Arc<Context>,
    identity: PodIdentity,
    observed: Observed,
    inbox: mpsc::UnboundedReceiver<Message>,
    outbox: mpsc::UnboundedSender<Message>,
    reports: mpsc::UnboundedSender<Settled>,
    handles: HashMap<String, Arc<dyn Container>>,
    fetches: HashMap<String, AbortHandle>,
    ended: Vec<ContainerId>,
    tasks: JoinSet<()>,
    saved: Option<Checkpoint>,
    statuses: watch::Sender<Arc<PodStatus>>,
    acknowledged: Acknowledgement,
    publishing: bool,
    settled: bool,
    forgotten: bool,
}

impl Worker {
    /// A worker for a pod of which `observed` is known, and the way to reach it. `known` are its containers that
    /// outlived the agent.
    pub(crate) fn new(
        context: Arc<Context>,
        observed: Observed,
        known: &[Known],
        reports: mpsc::UnboundedSender<Settled>,
    ) -> (Self, mpsc::UnboundedSender<Message>) {
        // Unbounded, but what is in it is bounded by the pod's tasks and the changes of one object.
        let (outbox, inbox) = mpsc::unbounded_channel();
        let reported = Arc::new(observed.pod.status.clone().unwrap_or_default());
        let (statuses, receiver) = watch::channel(Arc::clone(&reported));
        let identity = observed.pod.identity();
        let view = PodView { pod: Arc::clone(&observed.pod), status: receiver };
        context.directory.insert(identity.uid.clone(), view);
        let mut worker = Self {
            context,
            identity,
            observed,
            inbox,
            outbox: outbox.clone(),
            reports,
            handles: HashMap::new(),
            fetches: HashMap::new(),
            ended: Vec::new(),
            tasks: JoinSet::new(),
            saved: None,
            statuses,
            acknowledged: Acknowledgement::of(reported),
            publishing: false,
            settled: false,
            forgotten: false,
        };
        worker.adopt(known);
        (worker, outbox)
    }

    /// Watches containers of this pod that outlived the agent.
    fn adopt(&mut self, known: &[Known]) {
        for known in
            known.iter().filter(|known| known.spec.pod.uid == self.identity.uid && known.exit.is_none())
        {
            let (container, handle) = (known.spec.name.clone(), Arc::clone(&known.container));
            let attempt = known.spec.id.attempt().unwrap_or_default();
            self.handles.insert(container.clone(), Arc::clone(&handle));
            self.tasks.spawn(watch_end(container, attempt, handle, self.outbox.clone()));
        }
    }

    /// Goes round the pod's circle until nothing is left of the pod, or the agent ends and the pod is at rest.
    pub(crate) async fn run(mut self) {
        loop {
            let wake = self.turn().await;
            if self.is_done() {
                break;
            }
            self.wait(wake).await;
        }
        self.context.directory.remove(&self.identity.uid);
        debug!(pod = %self.identity.name, namespace = %self.identity.namespace, "the pod's worker has ended");
    }

    fn is_done(&self) -> bool {
        let is_at_rest = !self.observed.is_busy() && !self.publishing;
        self.forgotten || (self.observed.shutdown && is_at_rest)
    }

    async fn wait(&mut self, wake: Option<Timestamp>) {
        let timer = sleep_until(wake.map_or_else(Instant::now, instant));
        tokio::select! {
            Some(message) = self.inbox.recv() => {
                self.receive(message);
                while let Ok(message) = self.inbox.try_recv() {
                    self.receive(message);
                }
            }
            Some(result) = self.tasks.join_next() => {
                if let Err(error) = result && error.is_panic() {
                    error!(pod = %self.identity.name, namespace = %self.identity.namespace, %error, "a task of the pod failed");
                }
            }
            () = timer, if wake.is_some() => self.happen(Event::Woke),
        }
    }

    fn receive(&mut self, message: Message) {
        match message {
            Message::Event(event) => self.happen(event),
            Message::Handle { container, handle } => {
                self.handles.insert(container, handle);
            }
            Message::Answered(answer) => self.answered(answer),
        }
    }

    fn answered(&mut self, answer: Acknowledgement) {
        self.publishing = false;
        match answer.written {
            Written::Gone => self.happen(Event::Removed),
            Written::Done => {
                let terminal = matches!(answer.status.phase.as_deref(), Some("Succeeded" | "Failed"));
                self.acknowledged = answer;
                self.happen(Event::Published { terminal });
            }
        }
    }

    /// Folds an event in and tells people of it.
    fn happen(&mut self, event: Event) {
        match &event {
            Event::Wished(pod) => self.wished(pod),
            Event::Exited { container, attempt, .. } => {
                self.handles.remove(container);
                self.ended.push(ContainerId::of(&self.identity.uid, container, *attempt));
            }
            _ => {}
        }
        let told = event.clone();
        apply(&mut self.observed, event, clock::now());
        for notice in notices(&self.observed, &told) {
            self.context.recorder.pod(&self.observed.pod, notice);
        }
    }

    /// Others may overwrite a status: the node lifecycle controller does when it has not heard of a node for long.
    fn wished(&mut self, pod: &Arc<Pod>) {
        let view = PodView { pod: Arc::clone(pod), status: self.statuses.subscribe() };
        self.context.directory.insert(self.identity.uid.clone(), view);
        let is_newer = self.acknowledged.is_older_than(pod);
        if is_newer
            && !self.publishing
            && patch::was_overwritten(&self.acknowledged.status, pod.status.as_ref())
        {
            self.acknowledged = Acknowledgement::of(Arc::default());
        }
    }

    /// Begins all that is to be begun, then publishes. What must survive the agent is on disk before anything follows.
    async fn turn(&mut self) -> Option<Timestamp> {
        let wake = loop {
            let plan = plan(&self.observed, clock::now());
            if plan.actions.is_empty() {
                break plan.wake;
            }
            for action in &plan.actions {
                self.happen(Event::Began(action.clone()));
            }
            let is_saved = self.save().await;
            for action in plan.actions {
                self.perform(action, is_saved);
            }
            if self.forgotten {
                return None;
            }
        };
        if self.save().await {
            self.acknowledge_ends();
        }
        self.publish();
        self.report();
        wake
    }

    async fn save(&mut self) -> bool {
        let now = checkpoint(&self.observed);
        if self.observed.admission == Admission::Awaited || self.saved.as_ref() == Some(&now) {
            return true;
        }
        let (layout, written) = (self.context.layout.clone(), now.clone());
        match disk::off_thread(move || disk::save(&layout, &written)).await {
            Ok(()) => {
                self.saved = Some(now);
                true
            }
            Err(error) => {
                let (pod, namespace) = (&self.identity.name, &self.identity.namespace);
                error!(%pod, %namespace, %error, "what must survive the agent cannot be written");
                false
            }
        }
    }

    fn acknowledge_ends(&mut self) {
        for id in self.ended.drain(..) {
            self.context.provider.remove(&id);
        }
    }

    fn publish(&mut self) {
        let is_silent = self.observed.admission == Admission::Awaited && !self.observed.is_terminal();
        if is_silent || self.observed.removed || self.observed.pod.has_terminal_phase() {
            return;
        }
        let before = self.statuses.borrow().clone();
        let next = status(&self.observed, &before, clock::now());
        if *before != next {
            self.statuses.send_replace(Arc::new(next));
        }
        if !self.publishing && *self.statuses.borrow() != self.acknowledged.status {
            self.publishing = true;
            let (context, pod) = (Arc::clone(&self.context), self.identity.clone());
            let (statuses, outbox) = (self.statuses.subscribe(), self.outbox.clone());
            self.tasks.spawn(async move {
                let answer = publish(&context.api, &pod, statuses).await;
                let _ = outbox.send(Message::Answered(answer));
            });
        }
    }

    fn report(&mut self) {
        if !self.settled && self.observed.is_terminal() && !self.observed.is_busy() {
            self.settled = true;
            let _ = self.reports.send(Settled(self.identity.uid.clone()));
        }
    }

    fn perform(&mut self, action: Action, is_saved: bool) {
        let pod = Arc::clone(&self.observed.pod);
        match action {
            Action::Mount => self.mount(pod),
            Action::Fetch { container } => self.fetch(pod, container),
            Action::Abandon { container } => {
                if let Some(fetch) = self.fetches.remove(&container) {
                    fetch.abort();
                }
            }
            Action::Start { container, attempt } if is_saved => self.start(pod, container, attempt),
            Action::Start { container, .. } => self.happen(Event::StartFailed {
                container,
                reason: Waiting::CreateContainerError,
                message: "cannot write the pod's checkpoint: see the node's log".to_owned(),
            }),
            Action::Stop { container, grace } => self.stop(&container, grace),
            Action::Unmount => self.unmount(),
            Action::Delete => self.delete(),
            Action::Forget => self.forget(),
        }
    }

    /// Runs `work` beside the worker; it ends with an event.
    fn spawn<F>(&mut self, work: impl FnOnce(Arc<Context>) -> F) -> AbortHandle
    where
        F: Future<Output = Event> + Send + 'static,
    {
        let (work, outbox) = (work(Arc::clone(&self.context)), self.outbox.clone());
        self.tasks.spawn(async move {
            let _ = outbox.send(Message::Event(work.await));
        })
    }

    fn mount(&mut self, pod: Arc<Pod>) {
        self.spawn(|context| async move {
            match volumes::mount(&context, &pod).await {
                Ok(()) => Event::Mounted,
                Err(error) => Event::MountFailed { message: error.to_string() },
            }
        });
    }

    fn fetch(&mut self, pod: Arc<Pod>, container: String) {
        let (outbox, name) = (self.outbox.clone(), container.clone());
        let handle = self.spawn(|context| async move { fetch(&context, &pod, &name, &outbox).await });
        self.fetches.insert(container, handle);
    }

    fn start(&mut self, pod: Arc<Pod>, container: String, attempt: u32) {
        let image = self.observed.container(&container).and_then(|record| match &record.image {
            ImageState::Ready(image) => Some(image.as_ref().clone()),
            _ => None,
        });
        let Some(image) = image else { return };
        let (context, outbox) = (Arc::clone(&self.context), self.outbox.clone());
        let run = Run { container, attempt, image };
        self.tasks.spawn(async move { start(&context, &pod, run, outbox).await });
    }

    fn stop(&self, container: &str, grace: Duration) {
        if let Some(handle) = self.handles.get(container) {
            handle.stop(grace);
        }
    }

    fn unmount(&mut self) {
        let (layout, uid) = (self.context.layout.clone(), self.identity.uid.clone());
        self.context.provider.remove_pod(&uid);
        self.spawn(|_| async move {
            let removed = disk::off_thread(move || disk::remove_runs(&layout, &uid)).await;
            if let Err(error) = removed {
                warn!(%error, "what a pod left behind cannot be removed");
            }
            Event::Unmounted
        });
    }

    fn delete(&mut self) {
        let pod = self.identity.clone();
        self.spawn(|context| async move {
            match context.api.delete(&pod).await {
                Ok(_) => Event::Deleted,
                Err(error) => {
                    warn!(pod = %pod.name, namespace = %pod.namespace, %error, "a pod could not be deleted");
                    Event::DeleteFailed
                }
            }
        });
    }

    fn forget(&mut self) {
        self.forgotten = true;
        disk::forget(&self.context.layout, &self.identity);
    }
}

/// The instant of a time, now when it is past.
fn instant(time: Timestamp) -> Instant {
    let wait = time.duration_since(clock::now());
    Instant::now() + Duration::try_from(wait).unwrap_or_default()
}
