use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::pods::testing::{Scene, container, pod};

/// A pod whose one container has this beside its program.
fn with(more: &Value) -> Value {
    let mut pod = pod("Always", "tools");
    pod["spec"]["containers"][0].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    pod
}

/// A probe each second by a command that ends as the scene's runtime says.
fn probe(more: &Value) -> Value {
    let mut probe = json!({ "exec": { "command": ["program", "health"] }, "periodSeconds": 1 });
    probe.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    probe
}

fn command(words: &[&str]) -> Value {
    json!({ "exec": { "command": words } })
}

/// An agent that has been there for a while, so that nothing is spread.
async fn scene() -> Scene {
    let scene = Scene::new().await;
    tokio::time::sleep(Duration::from_mins(10)).await;
    scene
}

fn is_ready(pod: &Value) -> bool {
    container(pod)["ready"] == true
}

#[tokio::test(start_paused = true)]
async fn a_container_is_ready_when_its_probe_says_so() {
    let scene = scene().await;
    scene.runtime.change(|runtime| runtime.health = 1);
    scene.create("p", with(&json!({ "readinessProbe": probe(&json!({ "failureThreshold": 2 })) })));
    assert_eq!(scene.event("Unhealthy").await, "Readiness probe failed: unwell\n");
    let shown = scene.phase("p", "Running").await;
    assert!(!is_ready(&shown) && container(&shown)["started"] == true);
    scene.runtime.change(|runtime| runtime.health = 0);
    scene.pod("p", "ready", is_ready).await;
    scene.runtime.change(|runtime| runtime.health = 1);
    let since = Instant::now();
    scene.pod("p", "unready", |pod| !is_ready(pod)).await;
    assert!(since.elapsed() >= Duration::from_secs(1), "one bad try is none");
    assert_eq!(container(&scene.phase("p", "Running").await)["restartCount"], 0);
}

#[tokio::test(start_paused = true)]
async fn a_container_that_does_not_live_is_started_again() {
    let scene = scene().await;
    let liveness = probe(
        &json!({ "failureThreshold": 3, "initialDelaySeconds": 5, "terminationGracePeriodSeconds": 7 }),
    );
    scene.create("p", with(&json!({ "livenessProbe": liveness })));
    scene.phase("p", "Running").await;
    scene.runtime.change(|runtime| runtime.health = 1);
    let shown = scene.pod("p", "restarted", |pod| container(pod)["restartCount"] == 1).await;
    assert_eq!(container(&shown)["lastState"]["terminated"]["exitCode"], 143);
    assert_eq!(scene.event("Killing").await, "Container c failed liveness probe, will be restarted");
    let run = scene.run("p", 0).await;
    assert_eq!(run.stops, [Duration::from_secs(7)], "the grace of the probe");
    let lived = run.exit.unwrap().finished_at.duration_since(run.started_at);
    assert_eq!(lived.as_secs(), 7, "five seconds, then a try each second");
}

#[tokio::test(start_paused = true)]
async fn the_other_probes_wait_for_the_start() {
    let scene = scene().await;
    scene.runtime.change(|runtime| runtime.health = 1);
    let startup = probe(&json!({ "failureThreshold": 30 }));
    let liveness = command(&["program", "exit", "0"]);
    scene.create("p", with(&json!({ "startupProbe": startup, "livenessProbe": liveness })));
    let shown = scene.phase("p", "Running").await;
    assert!(container(&shown)["started"] == false && !is_ready(&shown));
    scene.event("Unhealthy").await;
    let execs = |scene: &Scene, word: &str| {
        let state = scene.runtime.state.borrow();
        state.execs.iter().filter(|command| command[1] == word).count()
    };
    assert_eq!(execs(&scene, "exit"), 0);
    scene.runtime.change(|runtime| runtime.health = 0);
    scene.pod("p", "started", |pod| container(pod)["started"] == true && is_ready(pod)).await;
    let tries = execs(&scene, "health");
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(execs(&scene, "health"), tries, "a container starts once");
    assert!((6..=7).contains(&execs(&scene, "exit")), "at once and every ten seconds");
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_hangs_has_failed() {
    let scene = scene().await;
    let hangs =
        json!({ "exec": { "command": ["program", "sleep"] }, "timeoutSeconds": 3, "failureThreshold": 1 });
    scene.create("p", with(&json!({ "livenessProbe": hangs })));
    let expected = "Liveness probe failed: command timed out: \"program sleep\" timed out after 3s";
    assert_eq!(scene.event("Unhealthy").await, expected);
    scene.run("p", 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_cannot_be_tried_says_nothing_of_the_container() {
    let scene = scene().await;
    let broken = json!({ "tcpSocket": { "port": "none" }, "periodSeconds": 1, "failureThreshold": 1 });
    scene.create("p", with(&json!({ "livenessProbe": broken })));
    let expected = "Liveness probe errored and resulted in unknown state: strconv.Atoi: parsing \"none\": invalid syntax";
    assert_eq!(scene.event("Unhealthy").await, expected);
    tokio::time::sleep(Duration::from_mins(1)).await;
    let shown = scene.phase("p", "Running").await;
    assert_eq!(container(&shown)["restartCount"], 0);
}

#[tokio::test(start_paused = true)]
async fn readiness_is_asked_for_until_the_end() {
    let scene = scene().await;
    let hook = json!({ "preStop": { "sleep": { "seconds": 20 } } });
    scene.create(
        "p",
        with(&json!({ "readinessProbe": probe(&json!({ "failureThreshold": 1 })), "lifecycle": hook })),
    );
    scene.pod("p", "ready", is_ready).await;
    scene.delete("p", 30);
    scene.event("Killing").await;
    scene.runtime.change(|runtime| runtime.health = 1);
    let shown = scene.pod("p", "unready", |pod| !is_ready(pod)).await;
    assert!(container(&shown)["state"]["running"].is_object());
    scene.gone("p").await;
}

#[tokio::test(start_paused = true)]
async fn a_container_does_not_run_before_its_first_hook_is_done() {
    let scene = scene().await;
    let hook = json!({ "postStart": { "sleep": { "seconds": 9 } } });
    scene.create("p", with(&json!({ "lifecycle": hook })));
    let began = Instant::now();
    scene.phase("p", "Running").await;
    scene.pod("p", "ready", is_ready).await;
    assert_eq!(began.elapsed().as_secs(), 9);
}

#[tokio::test(start_paused = true)]
async fn a_container_whose_first_hook_fails_is_ended() {
    let scene = scene().await;
    let hook = json!({ "postStart": command(&["program", "exit", "3"]) });
    scene.create("p", with(&json!({ "lifecycle": hook })));
    assert_eq!(scene.event("FailedPostStartHook").await, "PostStartHook failed");
    assert_eq!(scene.event("Killing").await, "FailedPostStartHook");
    scene.run("p", 1).await;
}

#[tokio::test(start_paused = true)]
async fn the_last_hook_comes_before_the_stop_and_within_the_grace() {
    let scene = scene().await;
    let hook = |seconds: u32| json!({ "lifecycle": { "preStop": { "sleep": { "seconds": seconds } } } });
    for (name, seconds, waited, left) in [("short", 4, 4, 26), ("long", 100, 30, 2)] {
        scene.create(name, with(&hook(seconds)));
        scene.phase(name, "Running").await;
        let began = Instant::now();
        scene.delete(name, 30);
        scene.gone(name).await;
        assert_eq!(began.elapsed().as_secs(), waited, "{name}");
        assert_eq!(scene.run(name, 0).await.stops, [Duration::from_secs(left)], "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_last_hook_that_fails_is_told_and_no_more() {
    let scene = scene().await;
    let hook = json!({ "preStop": command(&["no-such-program"]) });
    scene.create("p", with(&json!({ "lifecycle": hook })));
    scene.phase("p", "Running").await;
    scene.delete("p", 30);
    assert_eq!(scene.event("FailedPreStopHook").await, "PreStopHook failed");
    scene.gone("p").await;
}

#[tokio::test(start_paused = true)]
async fn hooks_that_hang_hold_nothing_up_for_longer_than_the_grace() {
    let scene = scene().await;
    let hangs = command(&["program", "sleep"]);
    for (name, hook) in [("first", "postStart"), ("last", "preStop")] {
        scene.create(name, with(&json!({ "lifecycle": { hook: hangs } })));
        scene.run(name, 0).await;
        let began = Instant::now();
        scene.delete(name, 20);
        scene.gone(name).await;
        assert!(began.elapsed() <= Duration::from_secs(22), "{name}: {:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn of_a_probe_that_writes_without_end_the_beginning_is_told() {
    let scene = scene().await;
    let floods = json!({ "exec": { "command": ["program", "flood"] }, "timeoutSeconds": 3 });
    scene.create("p", with(&json!({ "readinessProbe": floods })));
    let told = scene.event("Unhealthy").await;
    assert!(told.starts_with("Readiness probe failed: xxxx") && told.len() <= 1_024, "{}", told.len());
}

#[tokio::test(start_paused = true)]
async fn a_sidecar_lets_the_others_begin_when_it_has_started() {
    let scene = scene().await;
    scene.runtime.change(|runtime| runtime.health = 1);
    let mut with_sidecar = pod("Always", "app");
    with_sidecar["spec"]["initContainers"] = json!([{
        "name": "side", "image": "tools", "imagePullPolicy": "IfNotPresent", "restartPolicy": "Always",
        "startupProbe": probe(&json!({ "failureThreshold": 100 })),
    }]);
    scene.create("p", with_sidecar);
    scene.event("Unhealthy").await;
    assert_eq!(scene.runtime.state.borrow().of("p").len(), 1);
    scene.runtime.change(|runtime| runtime.health = 0);
    assert_eq!(scene.run("p", 1).await.spec.name, "c");
}

#[tokio::test(start_paused = true)]
async fn probes_of_a_new_agent_begin_spread_over_their_period() {
    let scene = Scene::new().await;
    let began = Instant::now();
    let readiness = json!({ "exec": { "command": ["program", "health"] }, "periodSeconds": 100 });
    for name in ["a", "b", "c", "d", "e"] {
        scene.create(name, with(&json!({ "readinessProbe": readiness })));
    }
    let mut times = Vec::new();
    for name in ["a", "b", "c", "d", "e"] {
        scene.pod(name, "ready", is_ready).await;
        times.push(began.elapsed().as_secs());
    }
    assert!(times.last().unwrap() > &0 && times.iter().all(|time| *time <= 101), "{times:?}");
}
