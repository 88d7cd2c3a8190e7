use coracle_lifecycle::Cause;
use serde_json::json;

use crate::pods::testing::{Scene, pod};

#[tokio::test(start_paused = true)]
async fn the_oldest_pods_are_taken_first() {
    let mut scene = Scene::empty();
    scene.make_room(2);
    for (name, minute) in [("c", 1), ("a", 3), ("b", 2)] {
        scene.create_at(name, &format!("2023-11-14T22:0{minute}:00Z"), pod("Always", "app"));
    }
    scene.start().await;
    scene.phase("c", "Running").await;
    scene.phase("b", "Running").await;
    let refused = scene.phase("a", "Failed").await;
    assert_eq!(refused["status"]["reason"], "OutOfpods");
    assert!(refused["status"]["containerStatuses"].is_null());
    assert!(scene.event("OutOfpods").await.contains("requested: 1, used: 2, capacity: 2"));
}

#[tokio::test(start_paused = true)]
async fn what_has_ended_makes_room() {
    let mut scene = Scene::empty();
    scene.make_room(1);
    scene.start().await;
    scene.create("first", pod("Never", "app"));
    scene.phase("first", "Running").await;
    scene.create("refused", pod("Never", "app"));
    scene.phase("refused", "Failed").await;
    scene.runtime.exit("first", Cause::Exited(0));
    scene.phase("first", "Succeeded").await;
    scene.create("second", pod("Never", "app"));
    scene.phase("second", "Running").await;
    scene.kill().await;
    scene.start().await;
    scene.phase("second", "Failed").await;
    scene.create("third", pod("Never", "app"));
    scene.phase("third", "Running").await;
}

#[tokio::test(start_paused = true)]
async fn a_deleted_pod_makes_room() {
    let mut scene = Scene::empty();
    scene.make_room(1);
    scene.start().await;
    scene.create("first", pod("Always", "app"));
    scene.phase("first", "Running").await;
    scene.delete("first", 30);
    scene.gone("first").await;
    scene.create("second", pod("Always", "app"));
    scene.phase("second", "Running").await;
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_agent_took_keeps_its_place() {
    let mut scene = Scene::empty();
    scene.make_room(1);
    scene.start().await;
    scene.create_at("young", "2023-11-14T22:09:00Z", pod("Always", "app"));
    scene.phase("young", "Running").await;
    scene.kill().await;
    scene.create_at("late", "2023-11-14T22:19:00Z", pod("Always", "app"));
    scene.start().await;
    scene.phase("late", "Failed").await;
    scene.pod("young", "back", |pod| pod["status"]["containerStatuses"][0]["restartCount"] == 1).await;
}

#[tokio::test(start_paused = true)]
async fn what_the_runtime_cannot_run_is_refused() {
    let scene = Scene::new().await;
    let mut asking = pod("Always", "app");
    asking["spec"]["hostPID"] = json!(true);
    scene.create("p", asking);
    let refused = scene.phase("p", "Failed").await;
    assert_eq!(refused["status"]["message"], "Pod was rejected: spec.hostPID: not here");
    assert!(scene.images.state.borrow().pulls.is_empty());
}
