use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use serde::{Deserialize, Serialize};

use crate::backoff::Backoff;
use crate::restart::sequel;
use crate::{
    ContainerRecord, ContainerState, Eviction, Exit, Failure, ImageState, PodUid, Role, Sequel, Wish, support,
};

/// The grace of a container whose pod was deleted by force: nothing is ended with less.
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
    /// The addresses that are the pod's own, the primary one first; empty while it has the node's.
    pub addresses: Vec<IpAddr>,
    /// The pod's volumes.
    pub volumes: Volumes,
    /// Why the latest try to make the volumes failed.
    pub mount_failure: Option<Failure>,
    /// Whether the files of the volumes show what the pod refers to.
    pub freshness: Freshness,
    /// How long the next try to refresh them waits.
    pub refresh_backoff: Option<Backoff>,
    /// The pod's containers: init containers, app containers and ephemeral ones, each in the order of its spec.
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
            pod.roles().into_iter().map(|(role, name)| ContainerRecord::new(name, role)).collect();
        Self {
            removed: false,
            shutdown: false,
            admission: Admission::Awaited,
            started_at: None,
            eviction: None,
            host,
            addresses: Vec::new(),
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
        let is_over = match self.admission {
            Admission::Refused { .. } => true,
            Admission::Awaited => self.is_over_by_wish(),
            Admission::Admitted => self.is_over_by_wish() || self.is_complete(),
        };
        is_over && !self.is_active()
    }

    /// Whether the pod has done what it is for, or cannot do it any more: its app containers have ended for good, or an
    /// init container has failed for good. Sidecars may still run.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        if self.restarts_all() {
            return false;
        }
        self.has_failed_to_begin() || self.of_role(Role::App).all(|container| self.has_ended(container))
    }

    /// Whether an init container has failed for good.
    #[must_use]
    pub fn has_failed_to_begin(&self) -> bool {
        self.of_role(Role::Init).any(|container| !container.has_succeeded() && self.has_ended(container))
    }

    /// The containers of one kind.
    pub fn of_role(&self, role: Role) -> impl Iterator<Item = &ContainerRecord> {
        self.containers.iter().filter(move |container| container.role == role)
    }

    /// Whether the runtime has, or may soon have, something of the pod running.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.containers.iter().any(|container| container.state.is_active())
    }

    fn has_ended(&self, container: &ContainerRecord) -> bool {
        matches!(&container.state, ContainerState::Terminated(exit) if !self.restarts(container, exit))
    }

    /// What follows the end of a container, by the pod's rules and policies.
    #[must_use]
    pub fn sequel(&self, container: &ContainerRecord, exit: &Exit) -> Sequel {
        if container.renewed {
            return Sequel::Restart;
        }
        self.pod.container(&container.name).map_or(Sequel::Rest, |declared| {
            sequel(&declared, container.role, self.pod.restart_policy(), exit.cause)
        })
    }

    /// Whether a container that ended so is started again, alone or with all others.
    #[must_use]
    pub fn restarts(&self, container: &ContainerRecord, exit: &Exit) -> bool {
        self.sequel(container, exit) != Sequel::Rest
    }

    /// The container whose end makes all containers begin anew, and that end.
    #[must_use]
    pub fn restarter(&self) -> Option<(&ContainerRecord, &Exit)> {
        self.containers.iter().find_map(|container| match &container.state {
            ContainerState::Terminated(exit) if self.sequel(container, exit) == Sequel::RestartAll => {
                Some((container, exit))
            }
            _ => None,
        })
    }

    /// Whether all containers are about to begin anew.
    #[must_use]
    pub fn restarts_all(&self) -> bool {
        !self.is_over_by_wish() && self.restarter().is_some()
    }

    /// Whether an app container runs: the init containers before it have done their work then.
    #[must_use]
    pub fn is_initialized(&self) -> bool {
        self.of_role(Role::App).any(|container| container.state.is_active())
    }

    /// Whether the pod wants a container that runs to be of another image now.
    #[must_use]
    pub fn is_outdated(&self, container: &ContainerRecord) -> bool {
        let ran = container.ran.as_ref().filter(|ran| !ran.wished.is_empty());
        let is_other = |ran: &str| {
            self.pod
                .container(&container.name)
                .is_some_and(|declared| declared.image.as_deref().unwrap_or_default() != ran)
        };
        matches!(container.role, Role::App | Role::Sidecar) && ran.is_some_and(|ran| is_other(&ran.wished))
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
        if self.removed {
            return SHORTEST_GRACE;
        }
        let given = self.eviction.as_ref().and_then(|eviction| eviction.grace);
        given.map_or(self.pod.grace(), |given| given.min(self.pod.grace()).max(SHORTEST_GRACE))
    }

    /// The addresses by which others reach the pod, its own or the node's, the primary one first.
    #[must_use]
    pub fn reached_at(&self) -> &[IpAddr] {
        if self.addresses.is_empty() { &self.host.addresses } else { &self.addresses }
    }

    /// Why the pod cannot be run by this version of the node, though it was admitted.
    #[must_use]
    pub fn unsupported(&self) -> Option<String> {
        support::unsupported(&self.pod)
    }

    /// Why one of its containers cannot be run by this version of the node: for a reason of the pod, or for one of its own
    /// if it was added to a pod that runs.
    #[must_use]
    pub fn unsupported_in(&self, container: &ContainerRecord) -> Option<String> {
        if container.role != Role::Ephemeral {
            return self.unsupported();
        }
        support::unsupported_ephemeral(self.pod.container(&container.name)?.as_ref())
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
