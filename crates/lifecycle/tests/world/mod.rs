//! A world around one pod: it performs what is planned, answers with luck or without, deletes, kills and comes back,
//! and checks after every turn what must hold always.

mod checks;
mod flight;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use coracle_lifecycle::{
    Action, Admission, Checkpoint, Event, Eviction, Host, Observed, ProbeKind, Wish, apply, checkpoint,
    is_final, plan, recover, status,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{EphemeralContainer, Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use flight::Flight;

/// A pod's restart policy.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Policy {
    Always,
    OnFailure,
    Never,
}

/// The containers of a pod beside its app containers, and what those have.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Extras {
    /// Init containers, each a sidecar or not.
    pub(crate) init: [Option<bool>; 3],
    /// Each app container and sidecar has all hooks and probes.
    pub(crate) care: bool,
    /// The first app container has rules of its own.
    pub(crate) rules: bool,
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
    /// The clock is set back by so many seconds.
    SetBack(u32),
    /// The clock is set by so many seconds, and somebody tells.
    SetClock(i32),
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
    /// Somebody adds an ephemeral container.
    Debug,
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
    /// Containers of which a run ended with code 0, since all began anew the last time.
    succeeded: BTreeSet<String>,
}

impl World {
    pub(crate) fn new(policy: Policy, containers: usize, extras: Extras) -> Self {
        Self::of(pod(policy, containers, extras))
    }

    /// A world around a pod that this version of the node cannot run.
    pub(crate) fn unsupported(policy: Policy) -> Self {
        let mut pod = pod(policy, 1, Extras::default());
        let claim = serde_json::from_value(json!([{"name": "gpu"}])).unwrap();
        pod.spec.as_mut().unwrap().resource_claims = claim;
        Self::of(pod)
    }

    fn of(object: Pod) -> Self {
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
            succeeded: BTreeSet::new(),
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
            Move::SetBack(seconds) => self.now -= SignedDuration::from_secs(seconds.into()),
            Move::SetClock(seconds) => {
                let by = SignedDuration::from_secs(seconds.into());
                self.now += by;
                self.happen(Event::ClockSet(by));
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
            Move::Debug => {
                let debuggers =
                    self.object.spec.as_mut().unwrap().ephemeral_containers.get_or_insert_default();
                let name = format!("debug{}", debuggers.len());
                debuggers.push(EphemeralContainer {
                    name,
                    image: Some("d:1".to_owned()),
                    ..Default::default()
                });
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
            // As the clock of a worker does.
            self.now += Duration::from_micros(1);
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
            Action::GiveUp { container, attempt } => self.give_up(&container, attempt),
            Action::AbandonMount => {
                let position = self.flights.iter().position(|flight| *flight == Flight::Mount);
                self.flights.remove(position.expect("no mount to give up"));
            }
            Action::StopProbing { container, kind } => {
                let is_it = |flight: &Flight| matches!(flight, Flight::Probe { container: name, kind: of, .. } if *name == container && *of == kind);
                let position = self.flights.iter().position(is_it);
                self.flights.remove(position.expect("no probe to end"));
            }
            Action::End { .. } => {}
            Action::Reset => {
                assert!(
                    self.flights
                        .iter()
                        .all(|flight| flight.run_of().is_none_or(|(name, _)| name.starts_with("debug")))
                );
                self.succeeded.clear();
            }
            action => self.begin(action),
        }
    }

    /// From now on all goes well and no time is lost, until nothing more happens.
    pub(crate) fn be_kind(&mut self) {
        self.go(Move::Judge(true));
        for _ in 0..400 {
            self.go(Move::Publish);
            let lasts =
                |flight: &Flight| matches!(flight, Flight::Probe { kind, .. } if *kind != ProbeKind::Startup);
            match self.flights.iter().position(|flight| !lasts(flight)) {
                Some(which) => self.finish(which, 0),
                None if self.wake.is_none() => break,
                None => self.go(Move::Wake),
            }
            if !self.forgotten {
                self.turn();
            }
        }
    }
}

fn pod(policy: Policy, containers: usize, extras: Extras) -> Pod {
    let care = json!({
        "lifecycle": {"postStart": {"sleep": {"seconds": 1}}, "preStop": {"sleep": {"seconds": 1}}},
        "startupProbe": {"tcpSocket": {"port": 1}},
        "livenessProbe": {"tcpSocket": {"port": 1}, "terminationGracePeriodSeconds": 7},
        "readinessProbe": {"tcpSocket": {"port": 1}},
    });
    let with_care = |mut container: Value| {
        if extras.care {
            container.as_object_mut().unwrap().extend(care.as_object().unwrap().clone());
        }
        container
    };
    let init = extras.init.iter().flatten().enumerate().map(|(index, is_sidecar)| {
        let plain = json!({"name": format!("i{index}"), "image": "app:1"});
        let sidecar = || json!({"name": format!("i{index}"), "image": "app:1", "restartPolicy": "Always"});
        if *is_sidecar { with_care(sidecar()) } else { plain }
    });
    let mut apps: Vec<Value> = (0..containers)
        .map(|index| with_care(json!({"name": format!("c{index}"), "image": "app:1"})))
        .collect();
    if extras.rules {
        apps[0]["restartPolicy"] = json!("OnFailure");
        apps[0]["restartPolicyRules"] =
            json!([{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [1]}}]);
    }
    let pod = json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "u-1", "generation": 1},
        "spec": {
            "restartPolicy": format!("{policy:?}"),
            "initContainers": init.collect::<Vec<_>>(),
            "containers": apps,
        },
    });
    serde_json::from_value(pod).unwrap()
}

fn host() -> Arc<Host> {
    Arc::new(Host { runtime: "fake".to_owned(), addresses: vec!["192.0.2.7".parse().unwrap()] })
}
