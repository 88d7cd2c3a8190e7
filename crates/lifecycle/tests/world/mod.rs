//! A world around one pod: it performs what is planned, answers with luck or without, deletes, kills and comes back,
//! and checks after every turn what must hold always.

mod checks;
mod flight;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use coracle_lifecycle::{
    Action, Admission, Checkpoint, Event, Eviction, Host, Observed, Wish, apply, checkpoint, is_final, plan,
    recover, status,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use flight::Flight;

/// A pod's restart policy.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Policy {
    Always,
    OnFailure,
    Never,
}

/// What can come over a pod.
#[derive(Clone, Debug)]
pub(crate) enum Move {
    Judge(bool),
    /// Something in flight ends, well or not.
    Finish {
        which: u8,
        how: u8,
    },
    /// So many milliseconds pass.
    Wait(u32),
    /// The time comes that the plan waits for.
    Wake,
    /// The API server takes the newest status.
    Publish,
    /// The watch brings the object as it is.
    Echo,
    /// The watch brings the object as it was at first.
    Stale,
    Relabel,
    /// What the pod refers to changes.
    News,
    ChangeImage(u8),
    Delete(i64),
    Remove,
    ShutDown,
    /// The node needs the room.
    Preempt,
    /// The machine goes down, and gives so many seconds.
    StopMachine(u64),
    /// The pod gets a deadline, so many seconds after its start.
    SetDeadline(i64),
    /// Somebody else writes a terminal phase.
    SetPhase(bool),
    /// The agent is killed and comes back.
    Kill,
}

pub(crate) struct World {
    observed: Observed,
    now: Timestamp,
    wake: Option<Timestamp>,
    flights: Vec<Flight>,
    saved: Option<Checkpoint>,
    /// The object as the API server has it.
    object: Pod,
    exists: bool,
    first: Pod,
    shown: PodStatus,
    foreign_phase: bool,
    forgotten: bool,
    starts: usize,
    /// Runs that were, or may have been, under way.
    ran: BTreeSet<(String, u32)>,
    graces: BTreeMap<String, Duration>,
}

impl World {
    pub(crate) fn new(policy: Policy, containers: usize, supported: bool) -> Self {
        let object = pod(policy, containers, supported);
        Self {
            observed: Observed::new(Arc::new(object.clone()), host()),
            now: Timestamp::constant(1_767_225_600, 0),
            wake: None,
            flights: Vec::new(),
            saved: None,
            first: object.clone(),
            object,
            exists: true,
            shown: PodStatus::default(),
            foreign_phase: false,
            forgotten: false,
            starts: 0,
            ran: BTreeSet::new(),
            graces: BTreeMap::new(),
        }
    }

    pub(crate) fn observed(&self) -> &Observed {
        &self.observed
    }

    pub(crate) fn is_forgotten(&self) -> bool {
        self.forgotten
    }

    pub(crate) fn starts(&self) -> usize {
        self.starts
    }

    pub(crate) fn phase(&self) -> &str {
        self.shown.phase.as_deref().unwrap_or_default()
    }

    pub(crate) fn go(&mut self, step: Move) {
        if self.forgotten {
            return;
        }
        match step {
            Move::Judge(admitted) => self.judge(admitted),
            Move::Finish { which, how } => self.finish(usize::from(which), how),
            Move::Wait(milliseconds) => {
                self.now += SignedDuration::from_millis(milliseconds.into());
                if self.wake.is_some_and(|wake| wake <= self.now) {
                    self.happen(Event::Woke);
                }
            }
            Move::Wake => {
                if let Some(wake) = self.wake {
                    self.now = self.now.max(wake);
                    self.happen(Event::Woke);
                }
            }
            Move::Publish => self.publish(),
            Move::News => self.happen(Event::SourcesChanged),
            Move::ShutDown => self.happen(Event::ShutDown),
            Move::Preempt => self.happen(Event::Evicted(Eviction::preempted())),
            Move::StopMachine(grace) => {
                self.happen(Event::Evicted(Eviction::shutdown(Duration::from_secs(grace))));
            }
            Move::Kill => self.kill(),
            Move::Stale => self.happen(Event::Wished(Arc::new(self.first.clone()))),
            change => self.change(&change),
        }
        self.turn();
    }

    fn judge(&mut self, admitted: bool) {
        let refused = || Admission::Refused { reason: "OutOfcpu".to_owned(), message: "none".to_owned() };
        self.happen(Event::Judged(if admitted { Admission::Admitted } else { refused() }));
    }

    /// The object changes, and the watch says so.
    fn change(&mut self, step: &Move) {
        if !self.exists {
            return;
        }
        match step {
            Move::Remove => {
                self.exists = false;
                return self.happen(Event::Removed);
            }
            Move::Delete(grace) => {
                self.object.metadata.deletion_timestamp.get_or_insert(Time(self.now));
                let before = self.object.metadata.deletion_grace_period_seconds.unwrap_or(*grace);
                self.object.metadata.deletion_grace_period_seconds = Some(before.min(*grace));
            }
            Move::SetPhase(succeeded) if !self.object.has_terminal_phase() => {
                let phase = if *succeeded { "Succeeded" } else { "Failed" };
                self.object.status.get_or_insert_default().phase = Some(phase.to_owned());
                self.foreign_phase = true;
            }
            Move::ChangeImage(which) => {
                let containers = &mut self.object.spec.as_mut().unwrap().containers;
                let index = usize::from(*which) % containers.len();
                containers[index].image = Some(format!("app:{which}"));
            }
            Move::SetDeadline(seconds) => {
                self.object.spec.as_mut().unwrap().active_deadline_seconds = Some(*seconds);
            }
            Move::Relabel => {
                let labels = self.object.metadata.labels.get_or_insert_default();
                labels.insert("changed".to_owned(), self.now.to_string());
            }
            _ => {}
        }
        self.happen(Event::Wished(Arc::new(self.object.clone())));
    }

    fn publish(&mut self) {
        if !self.exists || self.is_silent() || self.object.status.as_ref() == Some(&self.shown) {
            return;
        }
        self.object.status = Some(self.shown.clone());
        let terminal = is_final(&self.observed, &self.shown);
        self.happen(Event::Published { terminal });
    }

    /// Of a pod that was not judged yet nothing is said.
    fn is_silent(&self) -> bool {
        self.observed.admission == Admission::Awaited && !self.observed.is_terminal()
    }

    /// What ran is gone, without a word.
    fn kill(&mut self) {
        let may_have_run = self
            .flights
            .drain(..)
            .filter_map(|flight| flight.run_of().map(|(container, attempt)| (container.to_owned(), attempt)));
        self.ran.extend(may_have_run);
        self.graces.clear();
        if !self.exists {
            self.forgotten = true;
            return;
        }
        let object = Arc::new(self.object.clone());
        self.observed = recover(object, host(), self.saved.as_ref(), &[], self.now);
        self.shown = self.object.status.clone().unwrap_or_default();
    }

    fn happen(&mut self, event: Event) {
        apply(&mut self.observed, event, self.now);
    }

    /// Goes round as a worker does: begin what is planned until nothing is, save before it is performed, show.
    fn turn(&mut self) {
        for round in 0.. {
            assert!(round < 10, "the plan has no end");
            let plan = plan(&self.observed, self.now);
            self.wake = plan.wake;
            for action in &plan.actions {
                self.happen(Event::Began(action.clone()));
            }
            self.save();
            self.check_that_planning_again_adds_nothing(&plan);
            if plan.actions.is_empty() {
                break;
            }
            plan.actions.into_iter().for_each(|action| self.perform(action));
            if self.forgotten {
                return;
            }
        }
        if !self.is_silent() {
            let shown = status(&self.observed, &self.shown, self.now);
            self.check(&shown);
            self.shown = shown;
        }
    }

    fn save(&mut self) {
        if self.observed.admission != Admission::Awaited {
            let written = serde_json::to_string(&checkpoint(&self.observed)).unwrap();
            let read: Checkpoint = serde_json::from_str(&written).unwrap();
            assert_eq!(read, checkpoint(&self.observed));
            self.saved = Some(read);
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Forget => {
                assert_eq!(self.flights, [], "forgotten while something is under way");
                assert!(!self.exists, "forgotten while the object is there");
                self.forgotten = true;
            }
            Action::Abandon { container } => {
                let position =
                    self.flights.iter().position(|flight| *flight == Flight::Fetch(container.clone()));
                self.flights.remove(position.expect("nothing to give up"));
            }
            Action::Stop { container, grace } => self.stop(&container, grace),
            action => self.begin(action),
        }
    }

    /// From now on all goes well and no time is lost, until nothing more happens.
    pub(crate) fn be_kind(&mut self) {
        self.go(Move::Judge(true));
        for _ in 0..200 {
            self.go(Move::Publish);
            match (!self.flights.is_empty()).then_some(0) {
                Some(which) => self.finish(which, 0),
                None => self.go(Move::Wake),
            }
            if !self.forgotten {
                self.turn();
            }
        }
    }
}

fn pod(policy: Policy, containers: usize, supported: bool) -> Pod {
    let mut pod = json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "u-1", "generation": 1},
        "spec": {
            "restartPolicy": format!("{policy:?}"),
            "containers": (0..containers).map(|index| json!({"name": format!("c{index}"), "image": "app:1"})).collect::<Vec<_>>(),
        },
    });
    if !supported {
        pod["spec"]["initContainers"] = json!([{"name": "first"}]);
    }
    serde_json::from_value(pod).unwrap()
}

fn host() -> Arc<Host> {
    Arc::new(Host { runtime: "fake".to_owned(), addresses: vec!["192.0.2.7".parse().unwrap()] })
}
