use std::fs;
use std::path::Path;

use coracle_lifecycle::{Cause, PodUid, StartError};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::pods::testing::{Scene, conditions, container, pod};

#[tokio::test(start_paused = true)]
async fn a_pod_runs_and_says_so() {
    let scene = Scene::new().await;
    let uid = scene.create("p", pod("Always", "app"));
    let shown = scene.phase("p", "Running").await;
    assert_eq!(conditions(&shown)["Ready"], "True");
    assert_eq!(container(&shown)["containerID"], format!("fake://{uid}_c_0"));
    assert_eq!(container(&shown)["restartCount"], 0);
    assert_eq!(shown["status"]["podIP"], "192.0.2.7");
    assert_eq!(scene.event("Started").await, "Container started");
    let first = scene.api.state.borrow().called("PATCH").first().unwrap().body.clone();
    assert_eq!(first["status"]["phase"], "Running", "nothing of it was to be waited for");
    assert_eq!(first["metadata"]["uid"], uid);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_never_restarts_ends_by_its_exit_code() {
    let scene = Scene::new().await;
    scene.create("good", pod("Never", "exits-0"));
    scene.create("bad", pod("Never", "exits-7"));
    let good = scene.phase("good", "Succeeded").await;
    assert_eq!(container(&good)["state"]["terminated"]["reason"], "Completed");
    let bad = scene.phase("bad", "Failed").await;
    assert_eq!(container(&bad)["state"]["terminated"]["exitCode"], 7);
    assert_eq!(scene.runtime.state.borrow().runs.len(), 2);
}

/// The seconds from the end of each run to the start of the next.
async fn waits(scene: &Scene, name: &str, restarts: usize) -> Vec<i64> {
    scene.run(name, restarts).await;
    let state = scene.runtime.state.borrow();
    let times: Vec<Timestamp> = state.of(name).iter().map(|run| run.started_at).collect();
    times.windows(2).map(|pair| pair[1].duration_since(pair[0]).as_secs()).collect()
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test(start_paused = true)]
async fn a_finished_pod_keeps_its_logs_and_its_checkpoint() {
    let mut scene = Scene::new().await;
    let uid = scene.create("p", pod("Never", "exits-0"));
    scene.phase("p", "Succeeded").await;
    let run = scene.run("p", 0).await;
    // The agent's end waits for all it has begun.
    scene.shut_down().await;
    assert_eq!(names(&scene.layout.pod(&PodUid::new(uid))), ["checkpoint.json"]);
    assert!(run.spec.log.path.exists());
}

#[tokio::test(start_paused = true)]
async fn restarts_back_off() {
    let scene = Scene::new().await;
    let uid = scene.create("always", pod("Always", "exits-0"));
    scene.create("failing", pod("OnFailure", "exits-3"));
    assert_eq!(waits(&scene, "always", 4).await, [0, 10, 20, 40]);
    assert_eq!(waits(&scene, "failing", 4).await, [0, 10, 20, 40]);
    let logs = scene.run("always", 4).await.spec.log.path.parent().unwrap().to_owned();
    assert_eq!(names(&logs), ["3.log", "4.log"]);
    let roots = scene.layout.containers(&PodUid::new(uid)).join("c");
    assert_eq!(names(&roots), ["4"]);
    let shown = scene.waits("always", "CrashLoopBackOff").await;
    assert_eq!(container(&shown)["lastState"]["terminated"]["exitCode"], 0);
    assert_eq!(shown["status"]["phase"], "Running");
}

#[tokio::test(start_paused = true)]
async fn on_failure_ends_with_the_first_success() {
    let scene = Scene::new().await;
    scene.create("p", pod("OnFailure", "app"));
    scene.run("p", 0).await;
    scene.runtime.exit("p", Cause::Exited(1));
    scene.run("p", 1).await;
    scene.runtime.exit("p", Cause::Exited(0));
    let shown = scene.phase("p", "Succeeded").await;
    assert_eq!(container(&shown)["restartCount"], 1);
    assert!(
        scene.runtime.state.borrow().runs.iter().all(|run| run.is_removed),
        "recorded ends are forgotten"
    );
}

#[tokio::test(start_paused = true)]
async fn a_run_that_cannot_start_is_tried_again() {
    let scene = Scene::new().await;
    scene.runtime.change(|runtime| runtime.refusal = Some(StartError::Exhausted("no room".to_owned())));
    scene.create("p", pod("Never", "app"));
    let shown = scene.waits("p", "RunContainerError").await;
    assert_eq!(container(&shown)["state"]["waiting"]["message"], "no room");
    scene.runtime.change(|runtime| runtime.refusal = None);
    let shown = scene.phase("p", "Running").await;
    assert_eq!(container(&shown)["restartCount"], 0);
}

#[tokio::test(start_paused = true)]
async fn a_command_that_is_not_there_loops_as_a_program_that_fails() {
    let scene = Scene::new().await;
    let refusal = StartError::Command("exec: \"x\": executable file not found in $PATH".to_owned());
    scene.runtime.change(|runtime| runtime.refusal = Some(refusal.clone()));
    scene.create("p", pod("OnFailure", "app"));
    let shown = scene.waits("p", "CrashLoopBackOff").await;
    let last = &container(&shown)["lastState"]["terminated"];
    assert_eq!((&last["exitCode"], &last["reason"]), (&json!(128), &json!("StartError")));
    assert_eq!(last["message"], refusal.to_string());
    scene.runtime.change(|runtime| runtime.refusal = None);
    let is_up = |pod: &Value| !container(pod)["state"]["running"].is_null();
    let shown = scene.pod("p", "up after its command came", is_up).await;
    assert!(container(&shown)["restartCount"].as_i64() >= Some(2));
}

#[tokio::test(start_paused = true)]
async fn an_unsupported_field_is_named_and_nothing_runs() {
    let scene = Scene::new().await;
    let mut with_claim = pod("Always", "app");
    with_claim["spec"]["containers"][0]["resources"] = json!({ "claims": [{ "name": "gpu" }] });
    scene.create("p", with_claim);
    let shown = scene.waits("p", "CreateContainerConfigError").await;
    let message = container(&shown)["state"]["waiting"]["message"].as_str().unwrap();
    assert!(message.contains("resources.claims"), "{message}");
    assert!(scene.event("Failed").await.contains("resources.claims"));
    assert!(scene.runtime.state.borrow().runs.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_that_cannot_be_written_starts_nothing() {
    let scene = Scene::new().await;
    let uid = scene.next_uid("p");
    let in_the_way = scene.layout.checkpoint(&PodUid::new(uid.clone()));
    fs::create_dir_all(in_the_way.join("x")).unwrap();
    assert_eq!(scene.create("p", pod("Always", "app")), uid);
    scene.waits("p", "CreateContainerError").await;
    assert!(scene.runtime.state.borrow().runs.is_empty());
    fs::remove_dir_all(in_the_way).unwrap();
    scene.phase("p", "Running").await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_takes_neither_the_node_nor_the_pod() {
    let scene = Scene::new().await;
    scene.create("p", pod("Always", "panics"));
    scene.create("other", pod("Always", "app"));
    scene.phase("other", "Running").await;
    let is_heard = |pod: &serde_json::Value| pod["status"]["phase"] == "Running";
    scene.api.change("p", |pod| pod["spec"]["containers"][0]["image"] = json!("app"));
    scene.pod("p", "running after its worker failed", is_heard).await;
}

#[tokio::test(start_paused = true)]
async fn what_ran_under_a_failed_worker_runs_on() {
    let scene = Scene::new().await;
    let mut two = pod("Always", "app");
    let second = json!({ "name": "d", "image": "panics", "imagePullPolicy": "Always" });
    two["spec"]["containers"].as_array_mut().unwrap().push(second);
    scene.images.change(|images| images.hang = true);
    scene.images.add("app");
    scene.create("p", two);
    scene.run("p", 0).await;
    scene.images.change(|images| images.hang = false);
    scene.api.change("p", |pod| pod["spec"]["containers"][1]["image"] = json!("app"));
    scene.phase("p", "Running").await;
    let runs =
        scene.runtime.state.borrow().runs.iter().map(|run| run.spec.id.to_string()).collect::<Vec<_>>();
    assert_eq!(runs.len(), 2, "{runs:?}");
}

#[tokio::test(start_paused = true)]
async fn a_runtime_class_is_served_or_waited_for() {
    let scene = Scene::new().await;
    let class = |name: &str| format!("/apis/node.k8s.io/v1/runtimeclasses/{name}");
    scene.api.put(&class("foreign"), json!({ "metadata": {}, "handler": "runc" }));
    let of_class = |name: &str| {
        let mut pod = pod("Never", "app");
        pod["spec"]["runtimeClassName"] = json!(name);
        pod
    };
    scene.create("foreign", of_class("foreign"));
    let told = scene.event("FailedCreatePodSandBox").await;
    let why = "failed to get sandbox runtime: RuntimeHandler \"runc\" not supported";
    assert_eq!(told, format!("Failed to create pod sandbox: {why}"));
    let shown = scene.waits("foreign", "ContainerCreating").await;
    assert_eq!(shown["status"]["phase"], "Pending");
    assert!(scene.runtime.state.borrow().runs.is_empty());
    scene.create("served", of_class("late"));
    scene.waits("served", "ContainerCreating").await;
    scene.api.put(&class("late"), json!({ "metadata": {}, "handler": "fake" }));
    scene.phase("served", "Running").await;
    assert_eq!(scene.runtime.state.borrow().of("served")[0].spec.runtime_handler.as_deref(), Some("fake"));
}
