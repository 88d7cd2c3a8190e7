//! What the status of a pod says of its first container and of itself.

use k8s_openapi::api::core::v1::{
    ContainerStateTerminated, ContainerStateWaiting, ContainerStatus, Pod, PodCondition,
};

/// The status of the first container.
pub(crate) fn status(pod: &Pod) -> Option<&ContainerStatus> {
    pod.status.as_ref()?.container_statuses.as_ref()?.first()
}

/// The pod's phase, or nothing.
pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// Whether the pod has ended.
pub(crate) fn has_ended(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether the first container runs.
pub(crate) fn is_running(pod: &Pod) -> bool {
    let state = status(pod).and_then(|status| status.state.as_ref());
    state.is_some_and(|state| state.running.is_some())
}

/// How the first container ended.
pub(crate) fn terminated(pod: &Pod) -> Option<&ContainerStateTerminated> {
    status(pod)?.state.as_ref()?.terminated.as_ref()
}

/// How the run of the first container ended that was before the one the status is about.
pub(crate) fn last(pod: &Pod) -> Option<&ContainerStateTerminated> {
    status(pod)?.last_state.as_ref()?.terminated.as_ref()
}

/// What the first container waits for.
pub(crate) fn waiting(pod: &Pod) -> Option<&ContainerStateWaiting> {
    status(pod)?.state.as_ref()?.waiting.as_ref()
}

/// The reason for which the first container waits, or nothing.
pub(crate) fn waiting_reason(pod: &Pod) -> &str {
    waiting(pod).and_then(|waiting| waiting.reason.as_deref()).unwrap_or_default()
}

/// How often the first container was restarted; -1 before it has a status.
pub(crate) fn restarts(pod: &Pod) -> i32 {
    status(pod).map_or(-1, |status| status.restart_count)
}

/// The exit code and the reason of the first container.
pub(crate) fn exit(pod: &Pod) -> Option<(i32, &str)> {
    let ended = terminated(pod)?;
    Some((ended.exit_code, ended.reason.as_deref().unwrap_or_default()))
}

/// Why the program of the first container could not be started, as its latest end tells it; nothing before that.
pub(crate) fn start_error(pod: &Pod) -> &str {
    let ended = terminated(pod).or_else(|| last(pod));
    let ended = ended.filter(|ended| ended.exit_code == 128 && ended.reason.as_deref() == Some("StartError"));
    ended.and_then(|ended| ended.message.as_deref()).unwrap_or_default()
}

/// One of the pod's conditions.
pub(crate) fn condition<'p>(pod: &'p Pod, kind: &str) -> Option<&'p PodCondition> {
    pod.status.as_ref()?.conditions.iter().flatten().find(|condition| condition.type_ == kind)
}
