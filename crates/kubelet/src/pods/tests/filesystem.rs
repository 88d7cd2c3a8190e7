use std::fs;
use std::time::Duration;

use coracle_lifecycle::{Cause, ImageError};
use serde_json::{Value, json};

use crate::pods::testing::{Scene, container, pod};

/// A pod whose volume `v` has this source and is mounted at `/v`.
fn with_volume(source: Value) -> Value {
    let mut pod = pod("Never", "app");
    let mut volume = source;
    volume["name"] = json!("v");
    pod["spec"]["volumes"] = json!([volume]);
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{ "name": "v", "mountPath": "/v" }]);
    pod
}

#[tokio::test(start_paused = true)]
async fn the_last_words_of_a_container_are_shown() {
    let scene = Scene::new().await;
    scene.create("p", pod("Never", "app"));
    let root = scene.run("p", 0).await.spec.root;
    fs::write(root.join("dev/termination-log"), "it broke").unwrap();
    scene.runtime.exit("p", Cause::Exited(3));
    let ended = scene.phase("p", "Failed").await;
    assert_eq!(container(&ended)["state"]["terminated"]["message"], "it broke");
}

#[tokio::test(start_paused = true)]
async fn who_puts_too_much_into_a_volume_is_evicted() {
    let scene = Scene::new().await;
    scene.create("p", with_volume(json!({ "emptyDir": { "sizeLimit": "64Ki" } })));
    let volume = scene.run("p", 0).await.spec.mounts[0].source.clone();
    fs::write(volume.join("little"), vec![1; 1 << 14]).unwrap();
    tokio::time::sleep(Duration::from_secs(30)).await;
    scene.phase("p", "Running").await;
    fs::write(volume.join("much"), vec![1; 1 << 17]).unwrap();
    let ended = scene.phase("p", "Failed").await;
    assert_eq!(ended["status"]["reason"], "Evicted");
    assert_eq!(ended["status"]["message"], "Usage of EmptyDir volume \"v\" exceeds the limit \"64Ki\". ");
}

#[tokio::test(start_paused = true)]
async fn a_path_of_the_machine_is_mounted_where_it_really_lies() {
    let scene = Scene::new().await;
    let allowed = scene.layout.root().join("host");
    fs::create_dir(allowed.join("data")).unwrap();
    std::os::unix::fs::symlink("data", allowed.join("link")).unwrap();
    scene.create("p", with_volume(json!({ "hostPath": { "path": allowed.join("link") } })));
    let mount = scene.run("p", 0).await.spec.mounts[0].clone();
    assert_eq!(mount.source, allowed.join("data").canonicalize().unwrap());
    assert!(!mount.read_only);
    scene.create("q", with_volume(json!({ "hostPath": { "path": "/etc" } })));
    let message = scene.event("FailedMount").await;
    assert!(message.contains("hostPath \"/etc\" is not allowed on this node"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn a_mount_of_no_volume_is_named() {
    let scene = Scene::new().await;
    let mut pod = with_volume(json!({ "emptyDir": {} }));
    pod["spec"]["containers"][0]["volumeMounts"][0]["name"] = json!("other");
    scene.create("p", pod);
    let waits = |pod: &Value| container(pod)["state"]["waiting"]["reason"] == "CreateContainerConfigError";
    let pod = scene.pod("p", "waiting", waits).await;
    assert_eq!(container(&pod)["state"]["waiting"]["message"], "no volume is called \"other\"");
}

#[tokio::test(start_paused = true)]
async fn an_image_that_is_mounted_is_waited_for_like_the_containers_own() {
    let scene = Scene::new().await;
    scene.images.fail("model:v1", ImageError::NotFound("there is no model".to_owned()));
    scene.create("p", with_volume(json!({ "image": { "reference": "model:v1" } })));
    let waits = |pod: &Value| container(pod)["state"]["waiting"]["reason"] == "ImagePullBackOff";
    scene.pod("p", "waiting", waits).await;
    let message = scene.event("Failed").await;
    assert!(message.contains("there is no model"), "{message}");
    assert!(scene.runtime.state.borrow().runs.is_empty());
}
