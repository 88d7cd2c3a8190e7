use std::fs;
use std::time::Duration;

use coracle_lifecycle::{Cause, PodUid};
use serde_json::{Value, json};

use crate::pods::testing::{Fault, Scene, conditions, container, pod, shown};

/// A scene with a running pod of each restart policy, named after it.
async fn with_running_pods() -> Scene {
    let scene = Scene::new().await;
    for policy in ["Always", "OnFailure", "Never"] {
        scene.create(policy, pod(policy, "app"));
        scene.phase(policy, "Running").await;
    }
    scene
}

/// What must be true of [`with_running_pods`] once a new agent has taken over.
async fn interrupted(scene: &Scene) {
    for policy in ["Always", "OnFailure"] {
        let is_back = |pod: &Value| {
            container(pod)["restartCount"] == 1 && container(pod)["state"]["running"].is_object()
        };
        let shown = scene.pod(policy, "running again", is_back).await;
        assert_eq!(container(&shown)["lastState"]["terminated"]["reason"], "ContainerStatusUnknown");
    }
    let shown = scene.phase("Never", "Failed").await;
    let terminated = &container(&shown)["state"]["terminated"];
    assert_eq!(
        (&terminated["reason"], &terminated["exitCode"]),
        (&json!("ContainerStatusUnknown"), &json!(137))
    );
    assert_eq!(conditions(&shown)["DisruptionTarget"], "True");
    assert_eq!(scene.runtime.state.borrow().runs.len(), 5);
}

#[tokio::test(start_paused = true)]
async fn after_an_orderly_end_pods_come_back() {
    let mut scene = with_running_pods().await;
    scene.shut_down().await;
    let stops: Vec<_> = scene.runtime.state.borrow().runs.iter().map(|run| run.stops.clone()).collect();
    assert_eq!(stops, [[Duration::from_secs(30)]; 3]);
    assert_eq!(conditions(scene.api.state.borrow().pod("Always"))["Ready"], "False", "the last words");
    scene.start().await;
    interrupted(&scene).await;
}

#[tokio::test(start_paused = true)]
async fn after_a_sudden_end_pods_come_back() {
    let mut scene = with_running_pods().await;
    scene.kill().await;
    scene.start().await;
    interrupted(&scene).await;
}

#[tokio::test(start_paused = true)]
async fn an_orderly_end_waits_for_the_grace_of_containers() {
    let mut scene = Scene::new().await;
    scene.create("p", pod("Always", "deaf"));
    scene.phase("p", "Running").await;
    let runtime = scene.runtime.clone();
    let end = async {
        shown(&runtime.state, "a stop", |state| state.runs[0].stops.first().copied()).await;
        tokio::time::advance(Duration::from_secs(20)).await;
        runtime.exit("p", Cause::Killed);
    };
    let (took, ()) = tokio::join!(scene.shut_down(), end);
    assert!((20..25).contains(&took.as_secs()), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn without_an_api_server_the_end_comes_all_the_same() {
    let mut scene = Scene::new().await;
    let mut patient = pod("Always", "app");
    patient["spec"]["terminationGracePeriodSeconds"] = json!(3600);
    scene.create("p", patient);
    scene.phase("p", "Running").await;
    scene.api.fault("/", Fault::Hang);
    let took = scene.shut_down().await;
    assert!((5..20).contains(&took.as_secs()), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn what_has_finished_never_runs_again() {
    let mut scene = Scene::new().await;
    scene.api.fault("/status", Fault::Refuse(500));
    scene.create("p", pod("Never", "exits-0"));
    scene.create("q", pod("OnFailure", "exits-0"));
    for name in ["p", "q"] {
        scene.run(name, 0).await;
        scene.knows(name, "Succeeded").await;
    }
    scene.kill().await;
    scene.api.heal();
    scene.start().await;
    scene.phase("p", "Succeeded").await;
    scene.phase("q", "Succeeded").await;
    assert_eq!(scene.runtime.state.borrow().runs.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn back_off_survives_the_agent() {
    let mut scene = Scene::new().await;
    scene.create("p", pod("Always", "exits-1"));
    scene.run("p", 2).await;
    scene.waits("p", "CrashLoopBackOff").await;
    scene.kill().await;
    scene.start().await;
    let (second, third) = (scene.run("p", 2).await, scene.run("p", 3).await);
    assert_eq!(third.started_at.duration_since(second.started_at).as_secs(), 20);
    assert_eq!(third.spec.id.attempt(), Some(3));
}

#[tokio::test(start_paused = true)]
async fn a_deletion_that_was_never_answered_completes() {
    let mut scene = Scene::new().await;
    let uid = scene.create("p", pod("Always", "app"));
    scene.phase("p", "Running").await;
    scene.api.fault("DELETE", Fault::Refuse(500));
    scene.delete("p", 30);
    scene.phase("p", "Failed").await;
    scene.kill().await;
    scene.api.heal();
    scene.start().await;
    scene.gone("p").await;
    scene.forgotten(&uid).await;
    assert_eq!(scene.runtime.state.borrow().runs.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_left_of_pods_that_are_gone_is_removed() {
    let mut scene = Scene::new().await;
    let uid = scene.create("p", pod("Always", "app"));
    scene.phase("p", "Running").await;
    scene.kill().await;
    scene.api.remove("p");
    let unknown = scene.layout.pods().join("unknown");
    fs::create_dir(&unknown).unwrap();
    assert_eq!(fs::read_dir(scene.layout.logs()).unwrap().count(), 1);
    scene.start().await;
    scene.is_ready().await;
    // The agent's end waits for all it has begun.
    scene.shut_down().await;
    assert!(!unknown.exists());
    assert_eq!(fs::read_dir(scene.layout.logs()).unwrap().count(), 0);
    scene.forgotten(&uid).await;
}

#[tokio::test(start_paused = true)]
async fn logs_go_with_their_pod_though_its_checkpoint_is_lost() {
    let mut scene = Scene::new().await;
    let stays = scene.create("stays", pod("Always", "app"));
    scene.phase("stays", "Running").await;
    let lost = PodUid::new(scene.create("no-directory", pod("Always", "app")));
    let damaged = PodUid::new(scene.create("no-checkpoint", pod("Always", "app")));
    for name in ["no-directory", "no-checkpoint"] {
        scene.phase(name, "Running").await;
    }
    scene.kill().await;
    for name in ["no-directory", "no-checkpoint"] {
        scene.api.remove(name);
    }
    fs::remove_dir_all(scene.layout.pod(&lost)).unwrap();
    fs::write(scene.layout.checkpoint(&damaged), "{").unwrap();
    scene.start().await;
    scene.is_ready().await;
    scene.shut_down().await;
    let logs = fs::read_dir(scene.layout.logs()).unwrap();
    let logs: Vec<_> = logs.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(logs, [format!("default_stays_{stays}")]);
}

#[tokio::test(start_paused = true)]
async fn containers_that_outlived_the_agent_run_on() {
    let mut scene = Scene::new().await;
    for name in ["runs", "ends"] {
        scene.create(name, pod("Never", "app"));
        scene.phase(name, "Running").await;
    }
    scene.create("gone", pod("Always", "deaf"));
    scene.phase("gone", "Running").await;
    scene.kill_agent_only().await;
    scene.api.remove("gone");
    scene.runtime.change(|runtime| {
        let run = runtime.runs.iter_mut().find(|run| run.spec.pod.name == "ends").unwrap();
        run.end(Cause::Exited(3));
    });
    scene.start().await;
    let ended = scene.phase("ends", "Failed").await;
    assert_eq!(container(&ended)["state"]["terminated"]["exitCode"], 3);
    shown(&scene.runtime.state, "the orphan stopped", |state| state.of("gone")[0].stops.first().copied())
        .await;
    scene.runtime.exit("gone", Cause::Killed);
    shown(&scene.runtime.state, "ends acknowledged", |state| {
        (state.of("gone")[0].is_removed && state.of("ends")[0].is_removed).then_some(())
    })
    .await;
    scene.runtime.exit("runs", Cause::Exited(0));
    scene.phase("runs", "Succeeded").await;
    assert_eq!(scene.runtime.state.borrow().runs.len(), 3);
}
