use coracle_lifecycle::Cause;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::ShutdownGrace;
use crate::pods::testing::{Fault, Scene, State, conditions, pod, shown};

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
async fn a_pod_refused_for_the_nodes_labels_is_looked_at_again() {
    let scene = Scene::new().await;
    let asking = |zone: &str| {
        let mut asking = pod("Always", "app");
        asking["spec"]["nodeSelector"] = json!({ "zone": zone });
        asking
    };
    let allocatable = json!({ "cpu": "2", "memory": "1Gi", "ephemeral-storage": "1Gi", "pods": "10" });
    let node = json!({ "metadata": { "name": "n1", "labels": { "zone": "a" } }, "status": { "allocatable": allocatable } });
    scene.api.put("/api/v1/nodes/n1", node);
    scene.create("misplaced", asking("b"));
    let refused = scene.phase("misplaced", "Failed").await;
    assert_eq!(refused["status"]["reason"], "NodeAffinity");
    scene.create("early", asking("a"));
    scene.phase("early", "Running").await;
    assert_eq!(scene.api.state.borrow().called("GET /api/v1/nodes/n1").len(), 2, "once for each");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_gone_before_the_second_look_takes_no_room() {
    let mut scene = Scene::empty();
    scene.make_room(1);
    scene.start().await;
    scene.api.fault("GET /api/v1/nodes/n1", Fault::Hang);
    let mut asking = pod("Always", "app");
    asking["spec"]["nodeSelector"] = json!({ "zone": "a" });
    let uid = scene.create("asking", asking);
    let is_asked = |state: &State| (!state.called("GET /api/v1/nodes/n1").is_empty()).then_some(());
    scene.api_shows("the question", is_asked).await;
    scene.api.remove("asking");
    scene.forgotten(&uid).await;
    scene.api.heal();
    scene.create("next", pod("Always", "app"));
    scene.phase("next", "Running").await;
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

fn critical(image: &str) -> Value {
    let mut pod = pod("Always", image);
    pod["spec"]["priority"] = json!(2_000_000_000);
    pod
}

#[tokio::test(start_paused = true)]
async fn a_critical_pod_takes_the_place_of_another_when_that_has_ended() {
    let mut scene = Scene::empty();
    scene.make_room(1);
    scene.start().await;
    scene.create("victim", pod("Always", "deaf"));
    scene.phase("victim", "Running").await;
    let uid = scene.create("critical", critical("app"));
    assert_eq!(scene.event("Preempting").await, "Preempted in order to admit critical pod");
    shown(&scene.runtime.state, "a stop", |state| state.of("victim")[0].stops.first().copied()).await;
    scene.create("late", pod("Always", "app"));
    scene.phase("late", "Failed").await;
    assert!(scene.runtime.state.borrow().of("critical").is_empty(), "while its place is taken");
    scene.runtime.exit("victim", Cause::Exited(0));
    let victim = scene.phase("victim", "Failed").await;
    assert_eq!(victim["status"]["reason"], "Preempting");
    assert_eq!(conditions(&victim)["DisruptionTarget"], "True");
    let taken = scene.phase("critical", "Running").await;
    assert_eq!(taken["metadata"]["uid"], uid);
}

#[tokio::test(start_paused = true)]
async fn a_critical_pod_that_goes_before_its_place_is_free_leaves_it_to_others() {
    let mut scene = Scene::empty();
    scene.make_room(1);
    scene.start().await;
    scene.create("victim", pod("Always", "deaf"));
    scene.phase("victim", "Running").await;
    let uid = scene.create("critical", critical("app"));
    scene.event("Preempting").await;
    scene.api.remove("critical");
    scene.forgotten(&uid).await;
    scene.runtime.exit("victim", Cause::Killed);
    scene.phase("victim", "Failed").await;
    scene.create("next", pod("Always", "app"));
    scene.phase("next", "Running").await;
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_the_pod_for_good() {
    let mut scene = Scene::new().await;
    let mut late = pod("Always", "app");
    late["spec"]["activeDeadlineSeconds"] = json!(60);
    scene.create("p", late);
    scene.phase("p", "Running").await;
    let shown = scene.phase("p", "Failed").await;
    let message = "Pod was active on the node longer than the specified deadline";
    assert_eq!(
        (&shown["status"]["reason"], &shown["status"]["message"]),
        (&json!("DeadlineExceeded"), &json!(message))
    );
    assert_eq!(scene.event("DeadlineExceeded").await, message);
    assert!(!conditions(&shown).contains_key("DisruptionTarget"));
    scene.kill().await;
    scene.start().await;
    scene.is_ready().await;
    scene.create("q", pod("Always", "app"));
    scene.phase("q", "Running").await;
    assert_eq!(scene.runtime.state.borrow().of("p").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn when_the_machine_goes_down_critical_pods_end_last() {
    let mut scene = Scene::empty();
    let seconds = std::time::Duration::from_secs;
    scene.shutdown_grace = ShutdownGrace::of(seconds(30), seconds(10));
    scene.start().await;
    scene.create("plain", pod("Always", "deaf"));
    scene.create("critical", critical("app"));
    scene.phase("plain", "Running").await;
    scene.phase("critical", "Running").await;
    let began = Instant::now();
    scene.stop.machine.cancel();
    let graces = shown(&scene.runtime.state, "a stop", |state| {
        let stops = &state.of("plain")[0].stops;
        (!stops.is_empty()).then(|| stops.clone())
    })
    .await;
    assert_eq!(graces, [seconds(20)]);
    assert_eq!(scene.ready.borrow().as_deref(), Some("node is shutting down"));
    scene.create("late", pod("Always", "app"));
    let late = scene.phase("late", "Failed").await;
    assert_eq!(late["status"]["reason"], "NodeShutdown");
    assert!(scene.runtime.state.borrow().of("critical")[0].stops.is_empty(), "before the others have ended");
    tokio::time::advance(seconds(5)).await;
    scene.runtime.exit("plain", Cause::Killed);
    let took = scene.ended(began).await;
    assert!((5..10).contains(&took.as_secs()), "{took:?}");
    for (name, grace) in [("plain", 20), ("critical", 10)] {
        let shown = scene.phase(name, "Failed").await;
        assert_eq!(shown["status"]["reason"], "Terminated");
        assert_eq!(conditions(&shown)["DisruptionTarget"], "True");
        assert_eq!(scene.runtime.state.borrow().of(name)[0].stops, [seconds(grace)]);
    }
}

#[tokio::test(start_paused = true)]
async fn when_the_machine_goes_down_pods_end_by_their_priority() {
    let mut scene = Scene::empty();
    let seconds = std::time::Duration::from_secs;
    scene.shutdown_grace =
        ShutdownGrace::by_priority([(0, seconds(20)), (50, seconds(15)), (99, seconds(10))]);
    scene.start().await;
    for (name, priority) in [("low", -7), ("usual", 49), ("high", 98)] {
        let mut pod = pod("Always", "deaf");
        pod["spec"]["priority"] = json!(priority);
        scene.create(name, pod);
        scene.phase(name, "Running").await;
    }
    let began = Instant::now();
    scene.stop.machine.cancel();
    for name in ["low", "usual"] {
        let first = shown(&scene.runtime.state, "a stop", |state| state.of(name)[0].stops.first().copied());
        assert_eq!(first.await, seconds(20));
    }
    assert!(scene.runtime.state.borrow().of("high")[0].stops.is_empty());
    scene.runtime.exit("low", Cause::Killed);
    scene.runtime.exit("usual", Cause::Killed);
    let first = shown(&scene.runtime.state, "a stop", |state| state.of("high")[0].stops.first().copied());
    assert_eq!(first.await, seconds(15));
    scene.runtime.exit("high", Cause::Killed);
    let took = scene.ended(began).await;
    assert!(took < seconds(10), "nobody waits for a group without pods: {took:?}");
}

#[tokio::test(start_paused = true)]
async fn pods_that_do_not_end_keep_the_others_waiting_only_so_long() {
    let mut scene = Scene::empty();
    let seconds = std::time::Duration::from_secs;
    scene.shutdown_grace = ShutdownGrace::of(seconds(30), seconds(10));
    scene.start().await;
    scene.create("plain", pod("Always", "deaf"));
    scene.create("critical", critical("app"));
    scene.phase("plain", "Running").await;
    scene.phase("critical", "Running").await;
    let began = Instant::now();
    scene.stop.machine.cancel();
    scene.phase("critical", "Failed").await;
    assert_eq!(began.elapsed().as_secs(), 20);
    scene.runtime.exit("plain", Cause::Killed);
    scene.ended(began).await;
}
