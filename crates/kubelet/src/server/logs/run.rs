use coracle_lifecycle::ContainerId;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use thiserror::Error;

/// Why there is no log to read, in the kubelet's words.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum RunError {
    /// The pod has no such container: 404.
    #[error("container {0:?} not found in pod {1:?}")]
    NoContainer(String, String),
    /// All else: 400.
    #[error("{0}")]
    NoRun(String),
}

/// The id of the run whose log is asked for.
///
/// # Errors
/// [`RunError`] when the container has not run yet, or not before.
pub(super) fn choose(
    pod: &Pod,
    status: &PodStatus,
    container: &str,
    previous: bool,
) -> Result<ContainerId, RunError> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    if !has_container(pod, container) {
        return Err(RunError::NoContainer(container.to_owned(), name.to_owned()));
    }
    let no_run = |what: &str| RunError::NoRun(format!("container {container:?} in pod {name:?} {what}"));
    let found = find(status, container).ok_or_else(|| no_run("is not available"))?;
    let last = found.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    let last = last.and_then(|terminated| id(terminated.container_id.as_deref()));
    if previous {
        let missing = format!("previous terminated container {container:?} in pod {name:?} not found");
        return last.ok_or(RunError::NoRun(missing));
    }
    current(found).or(last).ok_or_else(|| no_run(&waiting(found)))
}

/// The run that is going on or has ended last, when it was ever started.
fn current(status: &ContainerStatus) -> Option<ContainerId> {
    let state = status.state.as_ref()?;
    if state.running.is_some() {
        return id(status.container_id.as_deref());
    }
    id(state.terminated.as_ref()?.container_id.as_deref())
}

fn waiting(status: &ContainerStatus) -> String {
    let waiting = status.state.as_ref().and_then(|state| state.waiting.as_ref());
    match waiting.and_then(|waiting| waiting.reason.as_deref()) {
        Some("ErrImagePull") => "is waiting to start: image can't be pulled".to_owned(),
        Some("ImagePullBackOff") => "is waiting to start: trying and failing to pull image".to_owned(),
        Some(reason) => format!("is waiting to start: {reason}"),
        None => "is waiting to start - no logs yet".to_owned(),
    }
}

/// Whether the run of this id is still going on.
pub(super) fn is_running(status: &PodStatus, container: &str, run: &ContainerId) -> bool {
    let found = find(status, container);
    found.is_some_and(|status| {
        let is_running = status.state.as_ref().is_some_and(|state| state.running.is_some());
        is_running && current(status).as_ref() == Some(run)
    })
}

fn has_container(pod: &Pod, name: &str) -> bool {
    let Some(spec) = &pod.spec else { return false };
    spec.containers
        .iter()
        .chain(spec.init_containers.iter().flatten())
        .any(|container| container.name == name)
        || spec.ephemeral_containers.iter().flatten().any(|container| container.name == name)
}

fn find<'a>(status: &'a PodStatus, name: &str) -> Option<&'a ContainerStatus> {
    [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses]
        .into_iter()
        .flatten()
        .flatten()
        .find(|status| status.name == name)
}

/// The id in `<runtime>://<id>`.
fn id(text: Option<&str>) -> Option<ContainerId> {
    let (_, id) = text?.split_once("://")?;
    (!id.is_empty()).then(|| ContainerId::new(id))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": { "name": "p", "namespace": "n", "uid": "u" },
            "spec": { "containers": [{ "name": "c" }], "initContainers": [{ "name": "i" }] },
        }))
        .unwrap()
    }

    #[track_caller]
    fn check(container: &Value, previous: bool, expected: Result<&str, &str>) {
        let mut container = container.clone();
        container["name"] = json!("c");
        for key in ["image", "imageID"] {
            container[key] = json!("");
        }
        let status: PodStatus = serde_json::from_value(json!({ "containerStatuses": [container] })).unwrap();
        let chosen = choose(&pod(), &status, "c", previous);
        let chosen = chosen.map(|id| id.to_string()).map_err(|error| error.to_string());
        assert_eq!(chosen, expected.map(str::to_owned).map_err(str::to_owned), "{container}");
    }

    #[test]
    fn the_run_that_has_a_log_is_chosen() {
        let ended = |id: &str| json!({ "terminated": { "exitCode": 0, "containerID": id } });
        let running = json!({ "running": {} });
        let waiting = |reason: &str| json!({ "waiting": { "reason": reason } });
        check(&json!({ "state": running, "containerID": "r://u_c_1" }), false, Ok("u_c_1"));
        check(&json!({ "state": ended("r://u_c_2") }), false, Ok("u_c_2"));
        check(&json!({ "state": waiting("X"), "lastState": ended("r://u_c_0") }), false, Ok("u_c_0"));
        check(&json!({ "state": ended(""), "lastState": ended("r://u_c_0") }), false, Ok("u_c_0"));
        check(
            &json!({ "state": running, "containerID": "r://u_c_1", "lastState": ended("r://u_c_0") }),
            true,
            Ok("u_c_0"),
        );
        let missing = r#"previous terminated container "c" in pod "p" not found"#;
        check(&json!({ "state": running, "containerID": "r://u_c_1" }), true, Err(missing));
        for (reason, text) in [
            ("ContainerCreating", "ContainerCreating"),
            ("ErrImagePull", "image can't be pulled"),
            ("ImagePullBackOff", "trying and failing to pull image"),
        ] {
            let expected = format!(r#"container "c" in pod "p" is waiting to start: {text}"#);
            check(&json!({ "state": waiting(reason) }), false, Err(&expected));
        }
    }

    #[test]
    fn unknown_containers_are_told_from_those_without_status() {
        let none = PodStatus::default();
        let error = choose(&pod(), &none, "x", false).unwrap_err();
        assert_eq!(error, RunError::NoContainer("x".into(), "p".into()));
        let error = choose(&pod(), &none, "i", false).unwrap_err();
        assert_eq!(error.to_string(), r#"container "i" in pod "p" is not available"#);
    }

    #[test]
    fn a_run_goes_on_while_the_status_says_so() {
        let status = |container: Value| -> PodStatus {
            serde_json::from_value(json!({ "containerStatuses": [container] })).unwrap()
        };
        let base = |state: Value, id: &str| json!({ "name": "c", "state": state, "containerID": id });
        let run = ContainerId::new("u_c_0");
        assert!(is_running(&status(base(json!({ "running": {} }), "r://u_c_0")), "c", &run));
        assert!(!is_running(&status(base(json!({ "running": {} }), "r://u_c_1")), "c", &run));
        let ended = json!({ "terminated": { "exitCode": 0, "containerID": "r://u_c_0" } });
        assert!(!is_running(&status(base(ended, "r://u_c_0")), "c", &run));
        assert!(!is_running(&PodStatus::default(), "c", &run));
    }
}
