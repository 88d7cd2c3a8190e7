#![expect(clippy::needless_pass_by_value, reason = "what `json!` makes is passed on as it is")]

use std::time::Duration;

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::*;
use crate::{BoxFuture, Container, ContainerSpec, ExecError, ExecRequest, Streams, Usage};

const START: Timestamp = Timestamp::constant(1_767_225_600, 0);

struct Survivor;

impl Container for Survivor {
    fn exited(&self) -> BoxFuture<'_, Exit> {
        Box::pin(std::future::pending())
    }

    fn stop(&self, _grace: Duration) {}

    fn exec(&self, _: ExecRequest, _: Streams) -> BoxFuture<'_, Result<i32, ExecError>> {
        Box::pin(std::future::ready(Err(ExecError::NotRunning)))
    }

    fn usage(&self) -> BoxFuture<'_, Usage> {
        Box::pin(std::future::ready(Usage::default()))
    }
}

fn pod(status: Value) -> Arc<Pod> {
    let pod = json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "u"},
        "spec": {"containers": [{"name": "app"}]},
        "status": status,
    });
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn host() -> Arc<Host> {
    Arc::new(Host { runtime: "fake".to_owned(), addresses: Vec::new() })
}

fn exit(cause: Cause) -> Exit {
    Exit { cause, message: None, started_at: START, finished_at: START + SignedDuration::from_secs(5) }
}

/// What is written of a pod whose only container is in this state.
fn written(attempt: u32, state: ContainerState) -> Checkpoint {
    let mut observed = Observed::new(pod(Value::Null), host());
    observed.admission = Admission::Admitted;
    observed.started_at = Some(START);
    observed.containers[0].attempt = attempt;
    observed.containers[0].state = state;
    checkpoint(&observed)
}

fn known(attempt: u32, exit: Option<Exit>) -> Known {
    let spec: ContainerSpec = serde_json::from_value(json!({
        "id": format!("u_app_{attempt}"), "pod": {"namespace": "default", "name": "web", "uid": "u"},
        "name": "app", "annotations": {}, "root": "/r", "read_only_root": false, "command": [], "args": [],
        "network": {"host": false, "shared": true, "addresses": [], "hostname": "web", "dns": {"servers": [], "searches": [], "options": []}},
        "image": {
            "digest": format!("sha256:{}", "0".repeat(64)), "reference": "r", "repo_digest": "r", "size": 1,
            "content": {"Program": {"digest": format!("sha256:{}", "0".repeat(64)), "path": "/m", "name": "m"}},
        },
        "env": [], "mounts": [], "ports": [], "limits": {}, "pod_limits": {},
        "log": {"path": "/l", "max_size": 1, "max_files": 1}, "stdin": false, "tty": false,
    }))
    .unwrap();
    Known { spec, started_at: START, exit, container: Arc::new(Survivor) }
}

fn recovered(checkpoint: &Checkpoint, known: &[Known]) -> Observed {
    let checkpoint: Checkpoint = serde_json::from_str(&serde_json::to_string(checkpoint).unwrap()).unwrap();
    recover(pod(Value::Null), host(), Some(&checkpoint), known, START + SignedDuration::from_mins(1))
}

#[test]
fn what_was_under_way_is_lost_unless_the_runtime_knows_better() {
    let running = || ContainerState::Running { started_at: START };
    let state = |written: &Checkpoint, known: &[Known]| recovered(written, known).containers[0].state.clone();
    let lost = Exit { finished_at: START + SignedDuration::from_mins(1), ..exit(Cause::Lost) };
    assert_eq!(state(&written(3, running()), &[]), ContainerState::Terminated(lost.clone()));
    assert_eq!(state(&written(3, running()), &[known(2, None)]), ContainerState::Terminated(lost));
    assert_eq!(state(&written(3, running()), &[known(3, None)]), running());
    let ended = ContainerState::Terminated(exit(Cause::Exited(4)));
    assert_eq!(state(&written(3, running()), &[known(3, Some(exit(Cause::Exited(4))))]), ended);
    assert_eq!(state(&written(3, ended.clone()), &[known(3, None)]), ended);
    assert_eq!(state(&written(3, ContainerState::Waiting), &[]), ContainerState::Waiting);
}

#[test]
fn adopted_containers_have_their_volumes() {
    let running = written(0, ContainerState::Running { started_at: START });
    assert_eq!(recovered(&running, &[known(0, None)]).volumes, Volumes::Mounted);
    assert_eq!(recovered(&running, &[]).volumes, Volumes::Unmounted);
}

#[test]
fn only_what_was_interrupted_starts_again_at_once() {
    let of = |state| recovered(&written(1, state), &[]).containers[0].interrupted;
    assert!(of(ContainerState::Starting));
    assert!(of(ContainerState::Terminated(exit(Cause::Lost))));
    assert!(!of(ContainerState::Terminated(exit(Cause::Killed))));
    assert!(!of(ContainerState::Waiting));
}

#[test]
fn verdicts_survive() {
    let mut observed = Observed::new(pod(Value::Null), host());
    observed.admission = Admission::Refused { reason: "OutOfcpu".to_owned(), message: "none".to_owned() };
    let again = recovered(&checkpoint(&observed), &[]);
    assert_eq!(again.admission, observed.admission);
    assert_eq!(recover(pod(Value::Null), host(), None, &[], START).admission, Admission::Awaited);
}

/// What is known from the status alone: the attempt, its state, and the end before it.
fn reported(status: Value) -> (u32, ContainerState, Option<Cause>) {
    let mut status = status;
    status["name"] = "app".into();
    status["image"] = "app:1".into();
    status["imageID"] = "".into();
    status["ready"] = false.into();
    let status = json!({"startTime": "2026-01-01T00:00:00Z", "containerStatuses": [status]});
    let observed = recover(pod(status), host(), None, &[], START);
    assert_eq!(observed.admission, Admission::Admitted);
    let container = &observed.containers[0];
    (container.attempt, container.state.clone(), container.last.as_ref().map(|exit| exit.cause))
}

#[test]
fn a_status_tells_what_was_not_written() {
    let ended = |code: i32, reason: &str| {
        json!({"terminated": {
            "exitCode": code, "reason": reason, "startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:05Z",
        }})
    };
    let terminated = |cause| ContainerState::Terminated(exit(cause));
    let finished = json!({"restartCount": 2, "state": ended(0, "Completed"), "lastState": ended(1, "Error")});
    assert_eq!(reported(finished), (2, terminated(Cause::Exited(0)), Some(Cause::Exited(1))));
    let looping = json!({"restartCount": 2, "state": {"waiting": {}}, "lastState": ended(137, "OOMKilled")});
    assert_eq!(reported(looping), (2, terminated(Cause::OutOfMemory), None));
    let running = json!({"restartCount": 1, "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}});
    let lost = Exit { finished_at: START, ..exit(Cause::Lost) };
    assert_eq!(reported(running), (1, ContainerState::Terminated(lost), None));
    let waiting = json!({"restartCount": 0, "state": {"waiting": {"reason": "ContainerCreating"}}});
    assert_eq!(reported(waiting), (0, ContainerState::Waiting, None));
    let unknown = json!({"restartCount": -1, "state": ended(137, "ContainerStatusUnknown")});
    assert_eq!(reported(unknown), (0, terminated(Cause::Lost), None));
}

#[test]
fn a_run_that_goes_on_is_as_ready_as_its_status_says() {
    for is_started in [true, false] {
        let status = json!({"startTime": "2026-01-01T00:00:00Z", "containerStatuses": [{
            "name": "app", "image": "app:1", "imageID": "", "restartCount": 0,
            "started": is_started, "ready": is_started,
            "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
        }]});
        let observed = recover(pod(status), host(), None, &[known(0, None)], START);
        let course = &observed.containers[0].course;
        assert_eq!((course.started, course.ready), (is_started, is_started));
    }
}
