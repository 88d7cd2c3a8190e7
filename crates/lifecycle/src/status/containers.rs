use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState as ApiState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, VolumeMountStatus,
};

use crate::reasons::{self, Waiting};
use crate::status::time;
use crate::{Cause, ContainerId, ContainerRecord, ContainerState, Exit, Observed, RanImage, Role, Wish};

/// The most bytes that all termination messages of a pod may have.
const MESSAGES: usize = 12 * 1024;
/// The most bytes that one of them may have.
const MESSAGE: usize = 4 * 1024;

/// The statuses of the containers of these kinds: init containers in the order of the spec, others sorted by name, as
/// the kubelet does.
pub(super) fn of(observed: &Observed, roles: &[Role]) -> Vec<ContainerStatus> {
    let listed = observed.containers.iter().filter(|container| roles.contains(&container.role));
    let mut statuses: Vec<ContainerStatus> =
        listed.map(|container| container_status(observed, container)).collect();
    if !roles.contains(&Role::Init) {
        statuses.sort_by(|a, b| a.name.cmp(&b.name));
    }
    statuses
}

fn container_status(observed: &Observed, container: &ContainerRecord) -> ContainerStatus {
    let declared = observed.pod.container(&container.name);
    let declared = declared.as_deref();
    let (state, last) = states(observed, container);
    let ran = container.ran.as_ref().filter(|_| container.has_shown_run());
    ContainerStatus {
        name: container.name.clone(),
        state: Some(state),
        last_state: last,
        ready: container.is_ready(),
        started: Some(container.is_started()),
        restart_count: i32::try_from(container.restart_count()).unwrap_or(i32::MAX),
        image: image(ran, declared),
        image_id: ran.map(|image| image.repo_digest.clone()).unwrap_or_default(),
        container_id: container.has_shown_run().then(|| id(observed, container, latest(container))),
        volume_mounts: declared.and_then(volume_mounts),
        stop_signal: declared
            .and_then(|declared| declared.lifecycle.as_ref())
            .and_then(|lifecycle| lifecycle.stop_signal.clone()),
        resources: declared.and_then(|declared| declared.resources.clone()),
        allocated_resources: declared
            .and_then(|declared| declared.resources.as_ref())
            .and_then(|resources| resources.requests.clone()),
        ..ContainerStatus::default()
    }
}

/// The number of the latest run that the runtime took.
fn latest(container: &ContainerRecord) -> u32 {
    match container.state {
        ContainerState::Waiting | ContainerState::Starting => container.attempt.saturating_sub(1),
        _ => container.attempt,
    }
}

fn image(ran: Option<&RanImage>, declared: Option<&Container>) -> String {
    let wished = || declared.and_then(|declared| declared.image.clone());
    ran.map(|image| image.reference.clone()).or_else(wished).unwrap_or_default()
}

fn volume_mounts(declared: &Container) -> Option<Vec<VolumeMountStatus>> {
    let mounts = declared.volume_mounts.as_ref()?;
    let status = |mount: &k8s_openapi::api::core::v1::VolumeMount| VolumeMountStatus {
        name: mount.name.clone(),
        mount_path: mount.mount_path.clone(),
        read_only: mount.read_only,
        // What a container cannot write in a mount, it cannot write in anything below it.
        recursive_read_only: mount.recursive_read_only.as_ref().map(|wish| match wish.as_str() {
            "Disabled" => wish.clone(),
            _ => "Enabled".to_owned(),
        }),
        ..VolumeMountStatus::default()
    };
    Some(mounts.iter().map(status).collect())
}

fn id(observed: &Observed, container: &ContainerRecord, attempt: u32) -> String {
    let id = ContainerId::of(&observed.uid(), &container.name, attempt);
    format!("{}://{id}", observed.host.runtime)
}

/// The state shown, and the last one.
fn states(observed: &Observed, container: &ContainerRecord) -> (ApiState, Option<ApiState>) {
    let attempt = container.attempt;
    let last = || {
        let told = |exit| {
            if container.anew {
                removed(reasons::RESTARTING_ALL_CONTAINERS, reasons::ANEW_MESSAGE)
            } else {
                terminated(observed, container, attempt.saturating_sub(1), exit)
            }
        };
        container.last.as_ref().map(told)
    };
    match &container.state {
        // As if its start was still under way: https://kubernetes.io/docs/concepts/containers/container-lifecycle-hooks/
        ContainerState::Running { .. } if container.course.owes_hook && container.course.ending.is_none() => {
            (waiting(observed, container), last())
        }
        ContainerState::Running { started_at } | ContainerState::Stopping { started_at, .. } => {
            (running(*started_at), last())
        }
        ContainerState::Terminated(exit) => {
            let ended = terminated(observed, container, attempt, exit);
            match awaited(observed, container, exit) {
                Some(waiting) => (waiting, Some(ended)),
                None => (ended, last()),
            }
        }
        ContainerState::Waiting | ContainerState::Starting if observed.is_terminal() => {
            (last().unwrap_or_else(|| never_ran(observed, container)), None)
        }
        ContainerState::Waiting | ContainerState::Starting => (waiting(observed, container), last()),
    }
}

/// What a container that ended waits for before it starts again; `None` while it does not wait.
fn awaited(observed: &Observed, container: &ContainerRecord, exit: &Exit) -> Option<ApiState> {
    if observed.is_ending() || observed.is_complete() || !observed.restarts(container, exit) {
        return None;
    }
    // The API server lets no container of a pod with the policy `Never` begin again that it has seen ended.
    if container.failure.is_some() || container.renewed {
        return Some(waiting(observed, container));
    }
    let delay = container.restart_at(exit).duration_since(exit.finished_at);
    if delay.is_zero() || container.tells_why {
        return match exit.cause {
            Cause::Unstarted => Some(waits(Waiting::RunContainerError, exit.message.clone())),
            _ => container.unhooked.then(|| waits(Waiting::PostStartHookError, None)),
        };
    }
    let pod = observed.pod.identity();
    let message = format!(
        "back-off {} restarting failed container={} pod={}_{}({})",
        go_duration(delay.as_secs()),
        container.name,
        pod.name,
        pod.namespace,
        pod.uid
    );
    Some(waits(Waiting::CrashLoopBackOff, Some(message)))
}

/// A duration as Go prints it: `10s`, `1m20s`, `5m0s`.
fn go_duration(seconds: i64) -> String {
    match (seconds / 60, seconds % 60) {
        (0, seconds) => format!("{seconds}s"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    }
}

fn waiting(observed: &Observed, container: &ContainerRecord) -> ApiState {
    if let Some(message) = observed.unsupported_in(container) {
        return waits(Waiting::CreateContainerConfigError, Some(message));
    }
    match &container.failure {
        Some(failure) if failure.waits() => {
            let declared = observed.pod.container(&container.name);
            let image = declared.as_ref().and_then(|declared| declared.image.as_deref()).unwrap_or_default();
            let (reason, message) = (failure.reason.as_str(), &failure.message);
            let message = format!("Back-off pulling image {image:?}: {reason}: {message}");
            waits(Waiting::ImagePullBackOff, Some(message))
        }
        Some(failure) => waits(failure.reason, Some(failure.message.clone())),
        None if container.anew => {
            waits(Waiting::RestartingAllContainers, Some(reasons::ANEW_MESSAGE.to_owned()))
        }
        None => waits(beginning(observed), None),
    }
}

/// What a container waits for that is not held up by anything.
fn beginning(observed: &Observed) -> Waiting {
    let has_init = observed.containers.iter().any(|other| matches!(other.role, Role::Init | Role::Sidecar));
    if has_init { Waiting::PodInitializing } else { Waiting::ContainerCreating }
}

fn waits(reason: Waiting, message: Option<String>) -> ApiState {
    let waiting = ContainerStateWaiting { reason: Some(reason.as_str().to_owned()), message };
    ApiState { waiting: Some(waiting), ..ApiState::default() }
}

fn running(started_at: Timestamp) -> ApiState {
    let running = ContainerStateRunning { started_at: Some(time(started_at)) };
    ApiState { running: Some(running), ..ApiState::default() }
}

fn terminated(observed: &Observed, container: &ContainerRecord, attempt: u32, exit: &Exit) -> ApiState {
    let budget = MESSAGE.min(MESSAGES / observed.containers.len().max(1));
    let lost = || (exit.cause == Cause::Lost).then(|| reasons::LOST_MESSAGE.to_owned());
    let terminated = ContainerStateTerminated {
        exit_code: exit.cause.exit_code(),
        reason: Some(reasons::terminated(exit.cause).to_owned()),
        message: exit.message.as_deref().map(|text| shortened(text, budget)).or_else(lost),
        started_at: Some(time(exit.started_at)),
        finished_at: Some(time(exit.finished_at)),
        container_id: Some(id(observed, container, attempt)),
        signal: None,
    };
    ApiState { terminated: Some(terminated), ..ApiState::default() }
}

/// A container of an ended pod that never ran: it counts as failed, but for those whose turn had not come.
fn never_ran(observed: &Observed, container: &ContainerRecord) -> ApiState {
    if !had_its_turn(observed, container) {
        return waits(beginning(observed), None);
    }
    removed(reasons::CONTAINER_STATUS_UNKNOWN, reasons::LOST_MESSAGE)
}

/// A container that is not there, and nobody tells any more how it ended.
fn removed(reason: &str, message: &str) -> ApiState {
    let terminated = ContainerStateTerminated {
        exit_code: Cause::Lost.exit_code(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        ..ContainerStateTerminated::default()
    };
    ApiState { terminated: Some(terminated), ..ApiState::default() }
}

/// The first container of a pod always has its turn; another one when it or one behind it has run, or when all init
/// containers have done their work.
fn had_its_turn(observed: &Observed, container: &ContainerRecord) -> bool {
    let position = observed.containers.iter().position(|other| other.name == container.name).unwrap_or(0);
    match container.role {
        Role::Init | Role::Sidecar => {
            position == 0
                || observed.containers[position..]
                    .iter()
                    .any(|other| other.has_run() && other.role != Role::Ephemeral)
        }
        Role::App | Role::Ephemeral => {
            let init = || {
                observed.containers.iter().filter(|other| matches!(other.role, Role::Init | Role::Sidecar))
            };
            init().count() == 0
                || observed.of_role(Role::App).any(ContainerRecord::has_run)
                || init().next_back().is_some_and(ContainerRecord::has_succeeded)
        }
    }
}

/// The text, cut at the last whole character within so many bytes.
fn shortened(text: &str, bytes: usize) -> String {
    text[..text.floor_char_boundary(bytes)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_in_go() {
        assert_eq!([10, 60, 80, 300].map(go_duration), ["10s", "1m0s", "1m20s", "5m0s"]);
    }

    /// How long the messages are that are shown of so many containers with long ones.
    fn shown(count: usize) -> Vec<usize> {
        let names: Vec<_> =
            (0..count).map(|number| serde_json::json!({"name": format!("c{number}")})).collect();
        let pod = serde_json::from_value(serde_json::json!({"spec": {"containers": names}})).unwrap();
        let host = crate::Host { runtime: "test".to_owned(), addresses: Vec::new() };
        let mut observed = Observed::new(std::sync::Arc::new(pod), std::sync::Arc::new(host));
        let (time, message) = (Timestamp::UNIX_EPOCH, Some("x".repeat(20_000)));
        let exit = Exit { cause: Cause::Exited(1), message, started_at: time, finished_at: time };
        for container in &mut observed.containers {
            container.state = ContainerState::Terminated(exit.clone());
        }
        let statuses = of(&observed, &[Role::App]).into_iter();
        statuses.map(|status| status.state.unwrap().terminated.unwrap().message.unwrap().len()).collect()
    }

    #[test]
    fn mounts_are_told_as_they_are() {
        let mounts = serde_json::json!([
            {"name": "v", "mountPath": "/v", "readOnly": true, "recursiveReadOnly": "IfPossible"},
            {"name": "w", "mountPath": "/w", "recursiveReadOnly": "Disabled"},
        ]);
        let declared = serde_json::json!({"name": "app", "volumeMounts": mounts});
        let told = volume_mounts(&serde_json::from_value(declared).unwrap());
        let expected = serde_json::json!([
            {"name": "v", "mountPath": "/v", "readOnly": true, "recursiveReadOnly": "Enabled"},
            {"name": "w", "mountPath": "/w", "recursiveReadOnly": "Disabled"},
        ]);
        assert_eq!(serde_json::to_value(told).unwrap(), expected);
    }

    #[test]
    fn containers_share_what_a_pod_may_say_at_its_end() {
        assert_eq!(shown(1), [4096]);
        assert_eq!(shown(3), [4096; 3]);
        assert_eq!(shown(4), [3072; 4]);
    }

    #[test]
    fn texts_are_cut_at_whole_characters() {
        assert_eq!(shortened("abc", 4), "abc");
        assert_eq!(shortened("äöü", 4), "äö");
        assert_eq!(shortened("äöü", 3), "ä");
    }
}
