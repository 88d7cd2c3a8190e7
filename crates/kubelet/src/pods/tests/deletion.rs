use std::time::Duration;

use coracle_lifecycle::Cause;
use serde_json::json;

use crate::pods::testing::{Fault, Scene, container, pod, shown};

const SECOND: Duration = Duration::from_secs(1);

/// Waits until the latest run of a pod was asked to stop with these graces, in seconds.
async fn stopped(scene: &Scene, name: &str, graces: &[u32]) {
    let graces: Vec<Duration> = graces.iter().map(|grace| SECOND * *grace).collect();
    let what = format!("{name} stopped with {graces:?}");
    shown(&scene.runtime.state, &what, |state| (state.of(name).last()?.stops == graces).then_some(())).await;
}

fn deletions(scene: &Scene) -> usize {
    scene.api.state.borrow().called("DELETE").len()
}

#[tokio::test(start_paused = true)]
async fn a_deleted_pod_ends_then_says_so_then_goes() {
    let scene = Scene::new().await;
    let uid = scene.create("p", pod("Always", "deaf"));
    scene.phase("p", "Running").await;
    scene.delete("p", 30);
    stopped(&scene, "p", &[30]).await;
    scene.api.fault("/status", Fault::Hang);
    scene.runtime.exit("p", Cause::Killed);
    scene.knows("p", "Failed").await;
    scene.api.change("p", |pod| pod["metadata"]["labels"] = json!({ "changed": "yes" }));
    scene.create("later", pod("Always", "app"));
    scene.run("later", 0).await;
    assert_eq!(deletions(&scene), 0, "before the API server has the last status");
    scene.api.heal();
    scene.gone("p").await;
    let state = scene.api.state.borrow().calls.clone();
    let last = state
        .iter()
        .rfind(|call| call.line.starts_with("PATCH") && call.line.ends_with("/p/status"))
        .unwrap();
    assert_eq!(last.body["status"]["phase"], "Failed");
    assert_eq!(container(&last.body)["state"]["terminated"]["exitCode"], 137);
    scene.forgotten(&uid).await;
    assert!(scene.runtime.state.borrow().removed_pods.contains(&uid));
    assert_eq!((deletions(&scene), scene.runtime.state.borrow().of("p").len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_shorter_grace_is_passed_on() {
    let scene = Scene::new().await;
    scene.create("p", pod("Always", "deaf"));
    scene.phase("p", "Running").await;
    scene.delete("p", 30);
    stopped(&scene, "p", &[30]).await;
    scene.delete("p", 5);
    stopped(&scene, "p", &[30, 5]).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_deleted_by_force_leaves_nothing() {
    let scene = Scene::new().await;
    let uid = scene.create("p", pod("Always", "app"));
    scene.phase("p", "Running").await;
    scene.api.remove("p");
    stopped(&scene, "p", &[1]).await;
    scene.forgotten(&uid).await;
    assert_eq!(deletions(&scene), 0);
}

#[tokio::test(start_paused = true)]
async fn a_deletion_gives_up_the_pull() {
    let scene = Scene::new().await;
    scene.images.change(|images| images.hang = true);
    let uid = scene.create("p", pod("Always", "app"));
    shown(&scene.images.state, "a pull", |images| (images.pulls.len() == 1).then_some(())).await;
    scene.api.fault("DELETE", Fault::Refuse(500));
    scene.delete("p", 30);
    scene.phase("p", "Failed").await;
    assert_eq!(scene.images.state.borrow().given_up, 1, "not only when the worker ends");
    scene.api.heal();
    scene.gone("p").await;
    scene.forgotten(&uid).await;
    assert!(scene.runtime.state.borrow().runs.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_ran_is_told_before_the_object_goes_though_others_ended_the_pod() {
    let scene = Scene::new().await;
    let uid = scene.create("p", pod("Always", "deaf"));
    scene.phase("p", "Running").await;
    scene.api.change("p", |pod| pod["status"]["phase"] = json!("Failed"));
    stopped(&scene, "p", &[30]).await;
    scene.delete("p", 30);
    scene.create("later", pod("Always", "app"));
    scene.run("later", 0).await;
    scene.api.fault("/p/status", Fault::Refuse(500));
    scene.runtime.exit("p", Cause::Killed);
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(deletions(&scene), 0, "before the API server has the last status");
    scene.api.heal();
    scene.gone("p").await;
    let calls = scene.api.state.borrow().calls.clone();
    let last = calls.iter().rfind(|call| call.line.starts_with("PATCH") && call.line.ends_with("/p/status"));
    assert_eq!(container(&last.unwrap().body)["state"]["terminated"]["exitCode"], 137);
    scene.forgotten(&uid).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_was_deleted_before_it_came_goes() {
    let scene = Scene::new().await;
    scene.api.fault("WATCH", Fault::Hang);
    let uid = scene.create("p", pod("Always", "app"));
    scene.delete("p", 30);
    scene.api.break_watch();
    scene.api.heal();
    scene.gone("p").await;
    scene.forgotten(&uid).await;
    assert!(scene.runtime.state.borrow().runs.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_deletion_that_failed_is_tried_again() {
    let scene = Scene::new().await;
    scene.api.fault("DELETE", Fault::Refuse(500));
    scene.create("p", pod("Never", "app"));
    scene.phase("p", "Running").await;
    scene.delete("p", 1);
    scene.api_shows("three tries", |state| (state.called("DELETE").len() == 3).then_some(())).await;
    scene.api.heal();
    scene.gone("p").await;
}

/// A `StatefulSet` does this: names come again, UIDs do not.
#[tokio::test(start_paused = true)]
async fn a_pod_created_again_under_its_name_is_another_pod() {
    let scene = Scene::new().await;
    let old = scene.create("p", pod("Always", "deaf"));
    scene.phase("p", "Running").await;
    scene.api.remove("p");
    let new = scene.create("p", pod("Always", "app"));
    let shown = scene.phase("p", "Running").await;
    assert_eq!(container(&shown)["containerID"], format!("fake://{new}_c_0"));
    scene.runtime.change(|runtime| {
        let first = &mut runtime.runs[0];
        assert_eq!(first.stops, [SECOND]);
        first.end(Cause::Killed);
    });
    scene.forgotten(&old).await;
    let state = scene.api.state.borrow();
    assert_eq!(state.pod("p")["status"]["phase"], "Running");
    assert_eq!(state.pod("p")["metadata"]["uid"], new);
    assert!(scene.layout.checkpoint(&coracle_lifecycle::PodUid::new(new)).exists());
}

#[tokio::test(start_paused = true)]
async fn a_pod_created_again_unseen_keeps_its_status() {
    let scene = Scene::new().await;
    let old = scene.create("p", pod("OnFailure", "app"));
    scene.phase("p", "Running").await;
    scene.api.fault("WATCH", Fault::Hang);
    scene.api.remove("p");
    let new = scene.create("p", pod("Always", "app"));
    scene.runtime.exit("p", Cause::Exited(0));
    scene.forgotten(&old).await;
    assert_eq!(scene.api.state.borrow().pod("p")["status"]["phase"], "Pending", "not the old pod's status");
    scene.api.heal();
    let shown = scene.phase("p", "Running").await;
    assert_eq!(shown["metadata"]["uid"], new);
}

#[tokio::test(start_paused = true)]
async fn an_older_state_does_not_bring_a_pod_back() {
    let scene = Scene::new().await;
    let uid = scene.create("p", pod("OnFailure", "app"));
    scene.phase("p", "Running").await;
    scene.api.fault("WATCH", Fault::Hang);
    scene.api.change("p", |pod| pod["metadata"]["labels"] = json!({ "changed": "yes" }));
    scene.create("q", pod("Always", "app"));
    scene.api.remove("p");
    scene.runtime.exit("p", Cause::Exited(0));
    scene.forgotten(&uid).await;
    // The watch tells of the change, though the API server has answered that the pod is gone.
    scene.api.heal();
    scene.api.fault("DELETED", Fault::Hang);
    scene.api.fault("/p/status", Fault::Refuse(500));
    scene.phase("q", "Running").await;
    assert_eq!(scene.runtime.state.borrow().of("p").len(), 1);
    scene.forgotten(&uid).await;
}
