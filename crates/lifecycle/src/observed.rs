use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use serde::{Deserialize, Serialize};

use crate::backoff::{Backoff, Range};
use crate::reasons::Waiting;
use crate::{Exit, LocalImage, PodUid, Wish, support};

/// All that is known of one pod on this node: owned by the pod's worker, changed by [`crate::apply`] alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// The pod as the API server last gave it: what is wished for.
    pub pod: Arc<Pod>,
    /// The object is gone from the API server.
    pub removed: bool,
    /// The agent is about to end.
    pub shutdown: bool,
    /// Whether the node has taken the pod.
    pub admission: Admission,
    /// When the node first saw the pod: `status.startTime`.
    pub started_at: Option<Timestamp>,
    /// The node it runs on.
    pub host: Arc<Host>,
    /// The pod's volumes.
    pub volumes: Volumes,
    /// Why the latest try to make the volumes failed.
    pub mount_failure: Option<Failure>,
    /// The pod's containers, in the order of its spec.
    pub containers: Vec<ContainerRecord>,
    /// The API server has acknowledged a status with a terminal phase.
    pub published: bool,
    /// The object's deletion, confirmed by this node.
    pub deletion: Deletion,
    /// How long the next try to delete the object waits.
    pub deletion_backoff: Option<Backoff>,
}

/// What pods show of the node they run on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The runtime's name: the scheme of container ids.
    pub runtime: String,
    /// The node's addresses, the primary one first.
    pub addresses: Vec<IpAddr>,
}

/// Whether the node takes a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Admission {
    /// Not judged yet.
    Awaited,
    /// The pod runs here.
    Admitted,
    /// The pod never runs here.
    Refused {
        /// One word, such as `OutOfcpu`.
        reason: String,
        /// What is missing.
        message: String,
    },
}

/// The state of a pod's volumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Volumes {
    /// They are to be made.
    Unmounted,
    /// They are being made.
    Mounting,
    /// All are there.
    Mounted,
    /// They are being taken down.
    Unmounting,
    /// Nothing is left of them.
    Gone,
}

/// The state of the object's deletion by this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// Still to be asked for.
    Idle,
    /// On its way to the API server.
    InFlight,
    /// The API server has accepted it.
    Done,
}

/// One container of a pod and its latest run.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerRecord {
    /// The container's name.
    pub name: String,
    /// The number of the latest run, or of the one about to start; from 0.
    pub attempt: u32,
    /// What that run does.
    pub state: ContainerState,
    /// How the run before it ended.
    pub last: Option<Exit>,
    /// How long the next restart waits.
    pub backoff: Option<Backoff>,
    /// The image for the next start.
    pub image: ImageState,
    /// The image of the latest run.
    pub ran: Option<RanImage>,
    /// Why the latest try to start it failed.
    pub failure: Option<Failure>,
}

/// What a run of a container does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerState {
    /// It has not begun.
    Waiting,
    /// The runtime was asked to start it.
    Starting,
    /// It runs.
    Running {
        /// Since when.
        started_at: Timestamp,
    },
    /// It was asked to stop.
    Stopping {
        /// When it was started.
        started_at: Timestamp,
        /// The grace it was given last.
        grace: Duration,
    },
    /// It ended.
    Terminated(Exit),
}

impl ContainerState {
    /// Whether the runtime has, or may soon have, something running.
    #[must_use]
    pub fn is_active(&self) -> bool {
        matches!(self, Self::Starting | Self::Running { .. } | Self::Stopping { .. })
    }
}

/// The image of a container's next start.
#[derive(Clone, Debug, PartialEq)]
pub enum ImageState {
    /// To be looked for.
    Unknown,
    /// Being found, pulled and prepared.
    Fetching,
    /// Ready to start.
    Ready(Box<LocalImage>),
}

/// The image a run was made of, as its status shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RanImage {
    /// `status.containerStatuses[].image`.
    pub reference: String,
    /// `status.containerStatuses[].imageID`.
    pub repo_digest: String,
}

/// How long a failed pull shows its error before it shows that it waits for its back-off.
const ERROR_SHOWN: SignedDuration = SignedDuration::from_secs(1);

/// Something that failed and will be tried again.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// The reason as Kubernetes names it.
    pub reason: Waiting,
    /// What failed, for people.
    pub message: String,
    /// How often it failed in a row, and since when it waits.
    pub backoff: Backoff,
    /// Whether it now shows as waiting for its back-off.
    pub waits: bool,
}

impl Failure {
    /// A failure at `now`. It waits longer when `before` failed for the same reason.
    #[must_use]
    pub fn new(
        range: Range,
        before: Option<&Self>,
        reason: Waiting,
        message: String,
        now: Timestamp,
    ) -> Self {
        let before = before.filter(|failure| failure.reason == reason);
        let backoff = Backoff::next(range, before.map(|failure| failure.backoff), now, now);
        Self { reason, message, backoff, waits: false }
    }

    /// The next time at which it looks different: a failed pull first shows its error, then that it waits.
    #[must_use]
    pub fn next_look(&self) -> Timestamp {
        if self.reason.is_pull() && !self.waits {
            self.backoff.updated_at + ERROR_SHOWN
        } else {
            self.retry_at()
        }
    }

    /// When it is tried again.
    #[must_use]
    pub fn retry_at(&self) -> Timestamp {
        self.backoff.updated_at + self.backoff.delay
    }
}

impl ContainerRecord {
    /// A container that has not run yet.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            attempt: 0,
            state: ContainerState::Waiting,
            last: None,
            backoff: None,
            image: ImageState::Unknown,
            ran: None,
            failure: None,
        }
    }

    /// The number of the latest run that the runtime took: what `restartCount` shows.
    #[must_use]
    pub fn restart_count(&self) -> u32 {
        match self.state {
            ContainerState::Waiting | ContainerState::Starting => self.attempt.saturating_sub(1),
            _ => self.attempt,
        }
    }
}

impl Observed {
    /// A pod that this node sees for the first time.
    #[must_use]
    pub fn new(pod: Arc<Pod>, host: Arc<Host>) -> Self {
        let containers =
            pod.containers().iter().map(|container| ContainerRecord::new(&container.name)).collect();
        Self {
            removed: false,
            shutdown: false,
            admission: Admission::Awaited,
            started_at: None,
            host,
            volumes: Volumes::Unmounted,
            mount_failure: None,
            containers,
            published: pod.has_terminal_phase(),
            deletion: Deletion::Idle,
            deletion_backoff: None,
            pod,
        }
    }

    /// The pod's UID.
    #[must_use]
    pub fn uid(&self) -> PodUid {
        self.pod.identity().uid
    }

    /// Whether what runs has to end, for good or with the agent.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.shutdown || self.is_over_by_wish()
    }

    /// Whether nothing of the pod may start any more, whatever the agent does.
    #[must_use]
    pub fn is_over_by_wish(&self) -> bool {
        self.removed || self.pod.is_deleted() || self.pod.has_terminal_phase()
    }

    /// Whether all has come to its end: nothing runs, and nothing of it will ever start again.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        match self.admission {
            Admission::Refused { .. } => true,
            Admission::Awaited => self.is_over_by_wish(),
            Admission::Admitted => self.containers.iter().all(|container| self.has_ended(container)),
        }
    }

    fn has_ended(&self, container: &ContainerRecord) -> bool {
        match &container.state {
            ContainerState::Terminated(exit) => self.is_over_by_wish() || !self.restarts(exit),
            ContainerState::Waiting => self.is_over_by_wish(),
            _ => false,
        }
    }

    /// Whether the pod's policy starts a container again that ended so.
    #[must_use]
    pub fn restarts(&self, exit: &Exit) -> bool {
        self.pod.restart_policy().restarts(exit.cause.exit_code())
    }

    /// Whether something was begun whose end is still to come.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        matches!(self.volumes, Volumes::Mounting | Volumes::Unmounting)
            || self.deletion == Deletion::InFlight
            || self
                .containers
                .iter()
                .any(|container| container.state.is_active() || container.image == ImageState::Fetching)
    }

    /// Why the pod cannot be run by this version of the node, though it was admitted.
    #[must_use]
    pub fn unsupported(&self) -> Option<String> {
        support::unsupported(&self.pod)
    }

    /// One container's record.
    #[must_use]
    pub fn container(&self, name: &str) -> Option<&ContainerRecord> {
        self.containers.iter().find(|container| container.name == name)
    }

    pub(crate) fn container_mut(&mut self, name: &str) -> Option<&mut ContainerRecord> {
        self.containers.iter_mut().find(|container| container.name == name)
    }
}
