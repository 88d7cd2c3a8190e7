use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use serde::{Deserialize, Serialize};

use crate::backoff::Backoff;
use crate::{ContainerRecord, ContainerState, Eviction, Exit, Failure, ImageState, PodUid, Wish, support};

/// Nothing is ended with less grace than this.
const SHORTEST_GRACE: Duration = Duration::from_secs(1);

/// All that is known of one pod on this node: owned by the pod's worker, changed by [`crate::apply()`] alone.
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
    /// Why the node ends the pod for good.
    pub eviction: Option<Eviction>,
    /// The node it runs on.
    pub host: Arc<Host>,
    /// The pod's volumes.
    pub volumes: Volumes,
    /// Why the latest try to make the volumes failed.
    pub mount_failure: Option<Failure>,
    /// Whether the files of the volumes show what the pod refers to.
    pub freshness: Freshness,
    /// How long the next try to refresh them waits.
    pub refresh_backoff: Option<Backoff>,
    /// The pod's containers, in the order of its spec.
    pub containers: Vec<ContainerRecord>,
    /// The API server has acknowledged the last status, as [`crate::is_final`] has it.
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

/// Whether the files of a pod's volumes show what the pod refers to as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// They do.
    Fresh,
    /// Something has changed since.
    Stale,
    /// They are being made anew.
    Refreshing,
    /// They are being made anew from what has changed once more.
    Overtaken,
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
            eviction: None,
            host,
            volumes: Volumes::Unmounted,
            mount_failure: None,
            freshness: Freshness::Fresh,
            refresh_backoff: None,
            containers,
            published: false,
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
        self.removed || self.pod.is_deleted() || self.pod.has_terminal_phase() || self.eviction.is_some()
    }

    /// Whether all has come to its end: nothing runs, and nothing of it will ever start again.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        match self.admission {
            Admission::Refused { .. } => !self.is_active(),
            Admission::Awaited => self.is_over_by_wish() && !self.is_active(),
            Admission::Admitted => self.containers.iter().all(|container| self.has_ended(container)),
        }
    }

    /// Whether the runtime has, or may soon have, something of the pod running.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.containers.iter().any(|container| container.state.is_active())
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
            || self.is_active()
            || self.containers.iter().any(|container| container.image == ImageState::Fetching)
    }

    /// When the pod has to end, by its own wish.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        let seconds = self.pod.spec.as_ref()?.active_deadline_seconds?;
        self.started_at?.checked_add(SignedDuration::from_secs(seconds)).ok()
    }

    /// The grace of its containers: never more than the node can give.
    #[must_use]
    pub fn grace(&self) -> Duration {
        let given = self.eviction.as_ref().and_then(|eviction| eviction.grace);
        given.map_or(self.pod.grace(), |given| given.min(self.pod.grace()).max(SHORTEST_GRACE))
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
