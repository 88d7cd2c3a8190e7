use std::time::Duration;

use serde_json::{Value, json};

use crate::pods::testing::{CONFIG_MAP, Fault, Scene, pod, shown};

fn container(name: &str, image: &str) -> Value {
    json!({ "name": name, "image": image, "imagePullPolicy": "IfNotPresent" })
}

/// A pod whose app container runs `app` after these.
fn after(init: &[Value], policy: &str, app: &str) -> Value {
    let mut pod = pod(policy, app);
    pod["spec"]["initContainers"] = json!(init);
    pod
}

fn sidecar(name: &str, image: &str) -> Value {
    let mut sidecar = container(name, image);
    sidecar["restartPolicy"] = json!("Always");
    sidecar
}

/// The containers of a pod in the order of their starts.
fn starts(scene: &Scene, pod: &str) -> Vec<String> {
    scene.runtime.state.borrow().of(pod).iter().map(|run| run.spec.name.clone()).collect()
}

#[tokio::test(start_paused = true)]
async fn init_containers_come_first_one_by_one() {
    let scene = Scene::new().await;
    let init = [container("one", "exits-0"), sidecar("side", "app"), container("two", "exits-0")];
    scene.create("p", after(&init, "Always", "app"));
    let shown = scene.phase("p", "Running").await;
    assert_eq!(starts(&scene, "p"), ["one", "side", "two", "c"]);
    let names: Vec<_> = shown["status"]["initContainerStatuses"]
        .as_array()
        .unwrap()
        .iter()
        .map(|status| (status["name"].as_str().unwrap(), status["ready"].as_bool().unwrap()))
        .collect();
    assert_eq!(names, [("one", true), ("side", true), ("two", true)]);
    let state = scene.api.state.borrow();
    let path = |event: &&Value| event["involvedObject"]["fieldPath"] == "spec.initContainers{two}";
    assert!(state.events.values().find(path).is_some(), "{:?}", state.events);
}

#[tokio::test(start_paused = true)]
async fn an_init_container_that_fails_for_good_fails_the_pod() {
    let scene = Scene::new().await;
    let init = [sidecar("side", "app"), container("one", "exits-3")];
    scene.create("p", after(&init, "Never", "app"));
    let shown = scene.phase("p", "Failed").await;
    assert_eq!(starts(&scene, "p"), ["side", "one"]);
    assert_eq!(shown["status"]["initContainerStatuses"][1]["state"]["terminated"]["exitCode"], 3);
    assert_eq!(shown["status"]["containerStatuses"][0]["state"]["waiting"]["reason"], "PodInitializing");
}

#[tokio::test(start_paused = true)]
async fn a_sidecar_ends_when_the_work_is_done() {
    let scene = Scene::new().await;
    scene.create("p", after(&[sidecar("side", "app")], "Never", "exits-0"));
    let shown = scene.phase("p", "Succeeded").await;
    let ended = &shown["status"]["initContainerStatuses"][0]["state"]["terminated"];
    assert_eq!(ended["exitCode"], 143);
}

#[tokio::test(start_paused = true)]
async fn what_has_finished_does_not_run_again_after_a_restart_of_the_agent() {
    let mut scene = Scene::new().await;
    scene.create("p", after(&[container("one", "exits-0"), sidecar("side", "app")], "Always", "app"));
    scene.phase("p", "Running").await;
    scene.kill().await;
    scene.start().await;
    scene.run("p", 4).await;
    assert_eq!(starts(&scene, "p"), ["one", "side", "c", "side", "c"]);
}

#[tokio::test(start_paused = true)]
async fn an_ephemeral_container_runs_once_beside_the_others() {
    let scene = Scene::new().await;
    scene.create("p", pod("Always", "app"));
    scene.phase("p", "Running").await;
    scene.api.change("p", |pod| pod["spec"]["ephemeralContainers"] = json!([container("look", "exits-4")]));
    let ended =
        |pod: &Value| pod["status"]["ephemeralContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 4;
    scene.pod("p", "looked into", ended).await;
    assert_eq!(starts(&scene, "p"), ["c", "look"]);
}

#[tokio::test(start_paused = true)]
async fn another_image_restarts_just_that_container() {
    let scene = Scene::new().await;
    let mut two = pod("Never", "app");
    two["spec"]["containers"].as_array_mut().unwrap().push(container("other", "app"));
    scene.create("p", two);
    scene.phase("p", "Running").await;
    scene.api.change("p", |pod| pod["spec"]["containers"][0]["image"] = json!("app:2"));
    let run = scene.run("p", 2).await;
    assert_eq!((run.spec.name.as_str(), run.spec.image.reference.as_str()), ("c", "app:2"));
    assert_eq!(scene.event("Killing").await, "Container c definition changed, will be restarted");
    let again = |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"] == 1;
    let shown = scene.pod("p", "restarted", again).await;
    assert_eq!(shown["status"]["containerStatuses"][1]["restartCount"], 0);
}

#[tokio::test(start_paused = true)]
async fn a_start_that_hangs_does_not_hold_up_a_deletion() {
    let scene = Scene::new().await;
    scene.runtime.change(|runtime| runtime.hangs = true);
    let uid = scene.create("p", pod("Always", "app"));
    shown(&scene.runtime.state, "a start", |state| (state.starts == 1).then_some(())).await;
    let began = tokio::time::Instant::now();
    scene.delete("p", 5);
    scene.gone("p").await;
    assert_eq!(began.elapsed().as_secs(), 5, "its grace, for the start may still come to an end");
    scene.forgotten(&uid).await;
    scene.runtime.change(|runtime| runtime.hangs = false);
    scene.create("q", pod("Always", "app"));
    scene.phase("q", "Running").await;
    assert!(scene.runtime.state.borrow().of("p").is_empty(), "the start was given up");
}

#[tokio::test(start_paused = true)]
async fn a_mount_that_hangs_does_not_hold_up_a_deletion() {
    let scene = Scene::new().await;
    let mut with_volume = pod("Always", "app");
    with_volume["spec"]["volumes"] = json!([{ "name": "v", "projected": { "sources": [
        { "configMap": { "name": "kube-root-ca.crt" } }
    ] } }]);
    with_volume["spec"]["containers"][0]["volumeMounts"] = json!([{ "name": "v", "mountPath": "/v" }]);
    scene.api.fault(CONFIG_MAP, Fault::Hang);
    let uid = scene.create("p", with_volume);
    scene.api_shows("a mount", |state| (state.called(CONFIG_MAP).len() == 1).then_some(())).await;
    let began = tokio::time::Instant::now();
    scene.delete("p", 30);
    scene.gone("p").await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    scene.forgotten(&uid).await;
}
