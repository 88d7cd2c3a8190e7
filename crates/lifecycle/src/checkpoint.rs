use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState as ApiState, ContainerStateTerminated, ContainerStatus, Pod,
};
use serde::{Deserialize, Serialize};

use crate::backoff::Backoff;
use crate::resources::Resources;
use crate::{
    Admission, Cause, ContainerId, ContainerRecord, ContainerState, Eviction, Exit, Host, Known, Observed,
    PodIdentity, RanImage, Volumes, Wish,
};

/// What of a pod must survive the agent. It holds no secret.
///
/// It is written before anything follows from it, so an attempt that it shows as begun is never begun again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Whose it is.
    pub pod: PodIdentity,
    /// Whether the node took the pod.
    pub admission: Admission,
    /// What the node promised it.
    pub promised: Resources,
    /// When the node first saw it.
    pub started_at: Option<Timestamp>,
    /// Why the node ends it for good.
    #[serde(default)]
    pub eviction: Option<Eviction>,
    /// The addresses that are its own.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// Its containers by name.
    pub containers: BTreeMap<String, ContainerCheckpoint>,
}

/// What of a container must survive the agent.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, as it is written to disk")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerCheckpoint {
    /// The number of the latest run.
    pub attempt: u32,
    /// Whether that run was begun.
    pub begun: bool,
    /// When it began, when that is known.
    pub started_at: Option<Timestamp>,
    /// How it ended, if it has.
    pub exit: Option<Exit>,
    /// How the run before it ended.
    pub last: Option<Exit>,
    /// How long the next restart waits.
    pub backoff: Option<Backoff>,
    /// The image of the latest run.
    pub ran: Option<RanImage>,
    /// Whether that run had started, in the sense of its startup probe.
    #[serde(default)]
    pub started: bool,
    /// Whether it was ready.
    #[serde(default)]
    pub ready: bool,
    /// Whether it was ended so that one of another image takes its place.
    #[serde(default)]
    pub renewed: bool,
    /// Whether it was put back to its beginning with all others, and no run of it has ended since.
    #[serde(default)]
    pub anew: bool,
}

/// What of a pod must survive the agent, as of now.
#[must_use]
pub fn checkpoint(observed: &Observed) -> Checkpoint {
    Checkpoint {
        pod: observed.pod.identity(),
        admission: observed.admission.clone(),
        promised: Resources::requested(&observed.pod),
        started_at: observed.started_at,
        addresses: observed.addresses.clone(),
        eviction: observed.eviction.clone(),
        containers: observed
            .containers
            .iter()
            .map(|container| (container.name.clone(), ContainerCheckpoint::of(container)))
            .collect(),
    }
}

impl ContainerCheckpoint {
    fn of(container: &ContainerRecord) -> Self {
        let exit = match &container.state {
            ContainerState::Terminated(exit) => Some(exit.clone()),
            _ => None,
        };
        Self {
            attempt: container.attempt,
            begun: container.state != ContainerState::Waiting,
            started_at: container.state.running_since(),
            exit,
            last: container.last.clone(),
            backoff: container.backoff,
            ran: container.ran.clone(),
            started: container.course.started,
            ready: container.course.ready,
            renewed: container.renewed,
            anew: container.anew,
        }
    }
}

/// What is known of a pod when the agent starts: from what it wrote before it ended, from what its runtime still
/// knows, and where nothing was written, from the pod's own status.
///
/// A run that had begun and of whose end nothing is known was interrupted: [`Cause::Lost`], ended at `now`.
#[must_use]
pub fn recover(
    pod: Arc<Pod>,
    host: Arc<Host>,
    checkpoint: Option<&Checkpoint>,
    known: &[Known],
    now: Timestamp,
) -> Observed {
    let mut observed = Observed::new(pod, host);
    let reported =
        observed.pod.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0);
    match checkpoint {
        Some(checkpoint) => {
            observed.admission = checkpoint.admission.clone();
            observed.started_at = checkpoint.started_at;
            observed.addresses.clone_from(&checkpoint.addresses);
            observed.eviction.clone_from(&checkpoint.eviction);
        }
        None if reported.is_some() => {
            observed.admission = Admission::Admitted;
            observed.started_at = reported;
        }
        None => {}
    }
    let (pod, uid) = (observed.pod.clone(), observed.uid());
    for container in &mut observed.containers {
        let written = match checkpoint {
            Some(checkpoint) => checkpoint.containers.get(&container.name).cloned(),
            None => reported_container(&pod, &container.name),
        };
        if let Some(written) = written {
            let id = ContainerId::of(&uid, &container.name, written.attempt);
            restore(container, written, known.iter().find(|known| known.spec.id == id), now);
        }
    }
    if observed.containers.iter().any(|container| container.state.is_active()) {
        observed.volumes = Volumes::Mounted;
    }
    observed
}

fn restore(
    container: &mut ContainerRecord,
    written: ContainerCheckpoint,
    known: Option<&Known>,
    now: Timestamp,
) {
    container.attempt = written.attempt;
    container.last = written.last;
    container.backoff = written.backoff;
    container.ran = written.ran;
    container.renewed = written.renewed;
    container.anew = written.anew;
    container.state = match (written.exit, known) {
        (Some(exit), _) => ContainerState::Terminated(exit),
        (None, _) if !written.begun => ContainerState::Waiting,
        (None, Some(Known { exit: Some(exit), .. })) => ContainerState::Terminated(exit.clone()),
        (None, Some(known)) => ContainerState::Running { started_at: known.started_at },
        (None, None) => ContainerState::Terminated(Exit {
            cause: Cause::Lost,
            message: None,
            started_at: written.started_at.unwrap_or(now),
            finished_at: now,
        }),
    };
    if container.state.is_active() {
        (container.course.started, container.course.ready) = (written.started, written.ready);
    }
    container.interrupted =
        matches!(&container.state, ContainerState::Terminated(exit) if exit.cause == Cause::Lost);
}

/// What a pod's own status says of a container, when nothing was written on this node.
fn reported_container(pod: &Pod, name: &str) -> Option<ContainerCheckpoint> {
    let status = pod.status.as_ref()?;
    let lists =
        [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses];
    let status = lists.into_iter().flatten().flatten().find(|status| status.name == name)?;
    let current =
        |state: &Option<ApiState>| state.as_ref().and_then(|state| state.terminated.as_ref()).map(exit);
    let last = current(&status.last_state);
    let running = status.state.as_ref().and_then(|state| state.running.as_ref());
    let (exit, last) = match (current(&status.state), running) {
        (Some(exit), _) => (Some(exit), last),
        (None, Some(_)) => (None, last),
        // It waits to be started again: the last state is that of its latest run.
        (None, None) => (last, None),
    };
    Some(ContainerCheckpoint {
        attempt: u32::try_from(status.restart_count).unwrap_or(0),
        begun: exit.is_some() || running.is_some(),
        started_at: running.and_then(|running| running.started_at.as_ref()).map(|time| time.0),
        exit,
        last,
        backoff: None,
        ran: ran(status),
        started: status.started == Some(true),
        ready: status.ready,
        renewed: false,
        anew: false,
    })
}

fn ran(status: &ContainerStatus) -> Option<RanImage> {
    (!status.image_id.is_empty()).then(|| RanImage {
        reference: status.image.clone(),
        repo_digest: status.image_id.clone(),
        wished: String::new(),
    })
}

fn exit(terminated: &ContainerStateTerminated) -> Exit {
    let time = |time: &Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>| {
        time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0)
    };
    Exit {
        cause: cause(terminated),
        message: terminated.message.clone(),
        started_at: time(&terminated.started_at),
        finished_at: time(&terminated.finished_at),
    }
}

fn cause(terminated: &ContainerStateTerminated) -> Cause {
    match terminated.reason.as_deref() {
        Some(crate::reasons::CONTAINER_STATUS_UNKNOWN) => Cause::Lost,
        Some(crate::reasons::START_ERROR) => Cause::Unstarted,
        Some("OOMKilled") => Cause::OutOfMemory,
        _ => Cause::Exited(terminated.exit_code),
    }
}

#[cfg(test)]
#[path = "checkpoint_tests.rs"]
mod tests;
