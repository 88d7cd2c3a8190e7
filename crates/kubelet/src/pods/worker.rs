use std::collections::HashMap;
use std::io;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use coracle_lifecycle::{
    Action, Admission, Checkpoint, Container, ContainerId, Event, Known, Observed, PodIdentity, PodUid,
    ProbeKind, Wish, apply, checkpoint, is_final, notices, plan, status,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::PodStatus;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, error, info};

use super::api::Written;
use super::directory::PodView;
use super::filesystem::LastWords;
use super::publish::{Acknowledgement, publish};
use super::start::watch_end;
use super::{Context, disk, patch};
use crate::clock;

/// How long a worker waits, when the agent ends and its pod is at rest, for the last status to be written.
pub(crate) const LAST_WORDS: Duration = Duration::from_secs(10);

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

/// Work of a worker's own that can be given up, by what it is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Work {
    Mount,
    Fetch(String),
    Start(String),
    Hook(String),
    Probe(String, ProbeKind),
}

/// One pod's task: the only owner of what is known of the pod.
pub(crate) struct Worker {
    pub(super) context: Arc<Context>,
    pub(super) identity: PodIdentity,
    pub(super) observed: Observed,
    inbox: mpsc::UnboundedReceiver<Message>,
    pub(super) outbox: mpsc::UnboundedSender<Message>,
    reports: mpsc::UnboundedSender<Settled>,
    pub(super) handles: HashMap<String, Arc<dyn Container>>,
    pub(super) works: HashMap<Work, AbortHandle>,
    ended: Vec<ContainerId>,
    pub(super) keeper: Option<AbortHandle>,
    pub(super) refresher: Option<AbortHandle>,
    pub(super) tasks: JoinSet<()>,
    saved: Option<Checkpoint>,
    /// Why it cannot be saved, as people were told.
    unsaved: Option<io::ErrorKind>,
    pub(super) statuses: watch::Sender<Arc<PodStatus>>,
    acknowledged: Acknowledgement,
    publishing: bool,
    /// Since when something is to be written that can wait.
    quiet_since: Option<Timestamp>,
    settled: bool,
    pub(super) forgotten: bool,
    farewell: Option<Timestamp>,
    /// When it came to the node, until it runs.
    arrived: Option<Instant>,
    watch: clock::Watch,
}

impl Worker {
    /// A worker for a pod of which `observed` is known, and the way to reach it. `known` is what the runtime knows.
    pub(crate) fn new(
        context: Arc<Context>,
        observed: Observed,
        known: &[Known],
        reports: mpsc::UnboundedSender<Settled>,
    ) -> (Self, mpsc::UnboundedSender<Message>) {
        // Unbounded, but what is in it is bounded by the pod's tasks and the changes of one object.
        let (outbox, inbox) = mpsc::unbounded_channel();
        let acknowledged = Acknowledgement::of(&observed.pod);
        let (statuses, receiver) = watch::channel(Arc::clone(&acknowledged.status));
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
            works: HashMap::new(),
            ended: Vec::new(),
            keeper: None,
            refresher: None,
            tasks: JoinSet::new(),
            saved: None,
            unsaved: None,
            statuses,
            acknowledged,
            publishing: false,
            quiet_since: None,
            settled: false,
            forgotten: false,
            farewell: None,
            arrived: None,
            watch: clock::Watch::new(),
        };
        worker.arrived = (!worker.is_running()).then(Instant::now);
        let uid = worker.identity.uid.clone();
        known.iter().filter(|known| known.spec.pod.uid == uid).for_each(|known| worker.adopt(known));
        (worker, outbox)
    }

    /// Watches a container that outlived the agent, or forgets it when it has ended.
    fn adopt(&mut self, known: &Known) {
        if known.exit.is_some() {
            self.ended.push(known.spec.id.clone());
            return;
        }
        let (container, handle) = (known.spec.name.clone(), Arc::clone(&known.container));
        let attempt = known.spec.id.attempt().unwrap_or_default();
        self.handles.insert(container.clone(), Arc::clone(&handle));
        let pod = &self.observed.pod;
        let words = pod.container(&container).map(|declared| LastWords::of(&known.spec, pod, &declared));
        self.tasks.spawn(watch_end(container, attempt, handle, words, self.outbox.clone()));
    }

    /// Goes round the pod's circle until nothing is left of the pod, or the agent ends and the pod is at rest.
    pub(crate) async fn run(mut self) {
        loop {
            let wake = self.turn().await;
            if self.is_done() {
                break;
            }
            let farewell = self.farewell.filter(|_| !self.observed.is_busy());
            let wake = wake.into_iter().chain(farewell).min();
            self.wait(wake).await;
        }
        if self.forgotten {
            disk::forget(&self.context.layout, self.identity.clone()).await;
        }
        self.context.supplies.end(&self.identity.uid);
        self.context.directory.remove(&self.identity.uid);
        debug!(pod = %self.identity.name, namespace = %self.identity.namespace, "the pod's worker has ended");
    }

    /// When the agent ends, what is at rest waits only so long for its last status to be written.
    fn is_done(&mut self) -> bool {
        if self.forgotten || !self.observed.shutdown || self.observed.is_busy() {
            return self.forgotten;
        }
        let now = clock::now();
        !self.publishing || *self.farewell.get_or_insert(now + LAST_WORDS) <= now
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
                // Nobody would ever hear of what that task had begun: the dispatcher starts the worker anew.
                if let Err(error) = result && let Ok(panic) = error.try_into_panic() {
                    resume_unwind(panic);
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
                let terminal = is_final(&self.observed, &answer.status);
                self.acknowledged = answer;
                self.note_startup();
                self.happen(Event::Published { terminal });
            }
        }
    }

    fn is_running(&self) -> bool {
        self.acknowledged.status.phase.as_deref() == Some("Running")
    }

    /// Says how long the node took for a pod: from the watch's event to the API server's answer to the status by which it runs.
    fn note_startup(&mut self) {
        if !self.is_running() {
            return;
        }
        if let Some(arrived) = self.arrived.take() {
            let PodIdentity { namespace, name, .. } = &self.identity;
            let duration = arrived.elapsed();
            self.context.directory.startups().add(duration);
            info!(namespace, name, milliseconds = duration.as_millis(), "the pod runs");
        }
    }

    /// Folds an event in and tells people of it.
    pub(super) fn happen(&mut self, event: Event) {
        if let Some(by) = self.watch.leap() {
            debug!(pod = %self.identity.name, namespace = %self.identity.namespace, ?by, "the clock was set");
            apply(&mut self.observed, Event::ClockSet(by), clock::now());
        }
        match &event {
            Event::Fetched { container, .. } | Event::FetchFailed { container, .. } => {
                self.works.remove(&Work::Fetch(container.clone()));
            }
            Event::Exited { container, attempt, .. } => {
                self.handles.remove(container);
                self.works.remove(&Work::Start(container.clone()));
                self.leave_alone(container);
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

    /// Gives up work that is under way; no event of it follows.
    pub(super) fn give_up(&mut self, work: &Work) {
        if let Some(task) = self.works.remove(work) {
            task.abort();
        }
    }

    /// Gives up all hooks and probes of a container.
    fn leave_alone(&mut self, container: &str) {
        self.give_up(&Work::Hook(container.to_owned()));
        for kind in ProbeKind::ALL {
            self.give_up(&Work::Probe(container.to_owned(), kind));
        }
    }

    /// Begins all that is to be begun, then publishes. What must survive the agent is on disk before anything follows of
    /// which a trace would be left.
    async fn turn(&mut self) -> Option<Timestamp> {
        let wake = loop {
            let plan = plan(&self.observed, clock::now());
            if plan.actions.is_empty() {
                break plan.wake;
            }
            for action in &plan.actions {
                self.happen(Event::Began(action.clone()));
            }
            let (before, after): (Vec<_>, Vec<_>) =
                plan.actions.into_iter().partition(Action::may_be_forgotten);
            for action in before {
                self.perform(action, None);
            }
            let saved = self.save().await;
            for action in after {
                self.perform(action, saved.as_ref().err());
            }
            if self.forgotten {
                return None;
            }
        };
        if self.save().await.is_ok() {
            self.acknowledge_ends();
        }
        let held_back = self.publish();
        self.report();
        wake.into_iter().chain(held_back).min()
    }

    async fn save(&mut self) -> io::Result<()> {
        let now = checkpoint(&self.observed);
        if self.observed.admission == Admission::Awaited || self.saved.as_ref() == Some(&now) {
            return Ok(());
        }
        let (layout, written) = (self.context.layout.clone(), now.clone());
        match disk::off_thread(move || disk::save(&layout, &written)).await {
            Ok(()) => {
                (self.saved, self.unsaved) = (Some(now), None);
                Ok(())
            }
            Err(error) => {
                let (pod, namespace) = (&self.identity.name, &self.identity.namespace);
                if self.unsaved.replace(error.kind()) != Some(error.kind()) {
                    error!(%pod, %namespace, %error, "what must survive the agent cannot be written");
                }
                Err(error)
            }
        }
    }

    fn acknowledge_ends(&mut self) {
        for id in self.ended.drain(..) {
            self.context.provider.remove(&id);
        }
    }

    /// Has the newest status written when it says something new. Gives the time when that is to be done, where it can
    /// wait for more.
    fn publish(&mut self) -> Option<Timestamp> {
        let is_silent = self.observed.admission == Admission::Awaited && !self.observed.is_terminal();
        if is_silent || self.observed.removed {
            return None;
        }
        let pod = &self.observed.pod;
        let before = self.statuses.borrow().clone();
        let next = status(&self.observed, &before, clock::now());
        // The object was seen to have ended for good, and says all that there is to say.
        let is_told = pod.has_terminal_phase() && pod.status.as_ref() == Some(&next);
        if *before != next {
            self.statuses.send_replace(Arc::new(next));
        }
        let is_shown = is_told || self.acknowledged.shows(&self.statuses.borrow(), pod);
        if self.publishing || is_shown {
            return None;
        }
        let due = self.held_back();
        if due.is_none() {
            self.write();
        }
        due
    }

    /// Until when a change is held back that can go along with the next one.
    fn held_back(&mut self) -> Option<Timestamp> {
        let (before, next, now) = (&self.acknowledged.status, self.statuses.borrow(), clock::now());
        let is_new = **before != **next && !self.observed.shutdown;
        let wait = is_new.then(|| patch::patience(before, &next)).flatten();
        let since = self.quiet_since.filter(|since| wait.is_some() && *since <= now).unwrap_or(now);
        self.quiet_since = wait.map(|_| since);
        wait.map(|wait| since + wait).filter(|due| *due > now)
    }

    fn write(&mut self) {
        self.publishing = true;
        self.quiet_since = None;
        let (context, pod) = (Arc::clone(&self.context), self.identity.clone());
        let (statuses, outbox) = (self.statuses.subscribe(), self.outbox.clone());
        self.tasks.spawn(async move {
            let answer = publish(&context.api, &pod, statuses).await;
            let _ = outbox.send(Message::Answered(answer));
        });
    }

    fn report(&mut self) {
        if !self.settled && self.observed.is_terminal() && !self.observed.is_busy() {
            self.settled = true;
            let _ = self.reports.send(Settled(self.identity.uid.clone()));
        }
    }
}

/// The instant of a time, now when it is past.
pub(super) fn instant(time: Timestamp) -> Instant {
    let wait = time.duration_since(clock::now());
    Instant::now() + Duration::try_from(wait).unwrap_or_default()
}
