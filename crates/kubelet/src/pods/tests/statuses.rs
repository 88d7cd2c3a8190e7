use std::time::Duration;

use coracle_lifecycle::Cause;
use serde_json::{Value, json};

use crate::pods::testing::{Fault, Scene, conditions, container, pod};

/// The phases that were sent to the API server for the pod `p`, in order.
fn phases(scene: &Scene) -> Vec<String> {
    let state = scene.api.state.borrow();
    let phase = |body: &Value| body["status"]["phase"].as_str().unwrap().to_owned();
    state.called("pods/p/status").iter().map(|call| phase(&call.body)).collect()
}

#[tokio::test(start_paused = true)]
async fn the_newest_status_wins_while_the_api_server_hangs() {
    let scene = Scene::new().await;
    scene.api.fault("/status", Fault::Hang);
    scene.create("p", pod("OnFailure", "app"));
    scene.run("p", 0).await;
    scene.knows("p", "Running").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    scene.runtime.exit("p", Cause::Exited(1));
    scene.run("p", 1).await;
    scene.runtime.exit("p", Cause::Exited(0));
    scene.knows("p", "Succeeded").await;
    scene.api.heal();
    scene.phase("p", "Succeeded").await;
    assert_eq!(phases(&scene), ["Running", "Succeeded"]);
    assert_eq!(scene.api.state.borrow().most_writers, 1);
}

/// How often the status of the pod `p` was written.
fn writes(scene: &Scene) -> usize {
    scene.api.state.borrow().called("PATCH /api/v1/namespaces/default/pods/p/status").len()
}

#[tokio::test(start_paused = true)]
async fn a_plain_life_costs_two_writes_and_a_running_pod_none() {
    let scene = Scene::new().await;
    scene.create("p", pod("Never", "app"));
    scene.phase("p", "Running").await;
    assert_eq!(phases(&scene), ["Running"]);
    tokio::time::sleep(Duration::from_mins(1)).await;
    let calls = scene.api.state.borrow().calls.len();
    tokio::time::sleep(Duration::from_hours(24)).await;
    let after: Vec<String> =
        scene.api.state.borrow().calls[calls..].iter().map(|call| call.line.clone()).collect();
    assert!(after.iter().all(|line| line.starts_with("WATCH ")), "{after:?}");
    scene.runtime.exit("p", Cause::Exited(0));
    scene.phase("p", "Succeeded").await;
    tokio::time::sleep(Duration::from_hours(1)).await;
    assert_eq!(writes(&scene), 2);
    let state = scene.api.state.borrow();
    let mut reasons: Vec<_> = state.events.values().map(|event| event["reason"].as_str().unwrap()).collect();
    reasons.sort_unstable();
    assert_eq!(reasons, ["Created", "Pulled", "Pulling", "Started"]);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_waits_for_is_written_a_little_later() {
    let scene = Scene::new().await;
    scene.images.change(|images| images.hang = true);
    scene.create("p", pod("Never", "app"));
    let is_so = |pod: &Value| container(pod)["state"]["waiting"]["reason"] == "ContainerCreating";
    let began = tokio::time::Instant::now();
    scene.pod("p", "waiting for its image", is_so).await;
    assert!(began.elapsed() < Duration::from_millis(200));
    assert_eq!(writes(&scene), 1);
    scene.api.change("p", |pod| pod["metadata"]["generation"] = json!(7));
    scene.pod("p", "of its generation", |pod| pod["status"]["observedGeneration"] == 7).await;
    assert!(began.elapsed() >= Duration::from_secs(4));
    assert_eq!(writes(&scene), 2);
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_changes_are_taken_without_a_write() {
    let scene = Scene::new().await;
    scene.create("p", pod("Never", "app"));
    scene.phase("p", "Running").await;
    for number in 0..10_000 {
        scene.api.change("p", |pod| pod["metadata"]["labels"] = json!({ "number": number.to_string() }));
    }
    scene.create("q", pod("Never", "app"));
    scene.phase("q", "Running").await;
    assert_eq!(writes(&scene), 1);
    scene.runtime.exit("p", Cause::Exited(0));
    scene.phase("p", "Succeeded").await;
}

#[tokio::test(start_paused = true)]
async fn addresses_are_replaced_and_not_added() {
    let scene = Scene::new().await;
    scene.create("p", pod("Never", "app"));
    scene.phase("p", "Running").await;
    scene.api.change("p", |pod| pod["status"]["hostIPs"] = json!([{ "ip": "192.0.2.99" }]));
    scene.runtime.exit("p", Cause::Exited(0));
    let shown = scene.phase("p", "Succeeded").await;
    assert_eq!(shown["status"]["hostIPs"], json!([{ "ip": "192.0.2.7" }]));
}

#[tokio::test(start_paused = true)]
async fn a_status_has_one_writer_at_a_time() {
    let scene = Scene::new().await;
    scene.api.fault("/status", Fault::Mute);
    scene.create("p", pod("OnFailure", "exits-1"));
    scene.run("p", 4).await;
    scene.api.heal();
    let has_restarted = |pod: &Value| container(pod)["restartCount"].as_u64() >= Some(4);
    scene.pod("p", "restarted", has_restarted).await;
    assert_eq!(scene.api.state.borrow().most_writers, 1);
}

#[tokio::test(start_paused = true)]
async fn a_status_that_was_refused_is_written_later() {
    let scene = Scene::new().await;
    scene.api.fault("/status", Fault::Refuse(500));
    scene.create("p", pod("Never", "exits-0"));
    let times = scene
        .api_shows("ten tries", |state| {
            let calls = state.called("/status");
            (calls.len() == 10).then(|| calls.iter().map(|call| call.at).collect::<Vec<_>>())
        })
        .await;
    assert!(times[9] - times[0] > Duration::from_mins(1), "no hot loop");
    scene.api.heal();
    scene.phase("p", "Succeeded").await;
}

#[tokio::test(start_paused = true)]
async fn what_others_say_of_a_pod_stays() {
    let scene = Scene::new().await;
    scene.create("p", pod("Never", "app"));
    scene.phase("p", "Running").await;
    let gate = json!({ "type": "example.com/gate", "status": "True" });
    scene.api.change("p", |pod| pod["status"]["conditions"].as_array_mut().unwrap().push(gate));
    scene.runtime.exit("p", Cause::Exited(0));
    let shown = scene.phase("p", "Succeeded").await;
    assert_eq!(conditions(&shown)["example.com/gate"], "True");
    assert_eq!(conditions(&shown)["Ready"], "False");
    assert_eq!(shown["status"]["qosClass"], "BestEffort");
}

#[tokio::test(start_paused = true)]
async fn what_ran_is_told_though_others_ended_the_pod() {
    let scene = Scene::new().await;
    scene.create("p", pod("Always", "app"));
    scene.phase("p", "Running").await;
    scene.api.change("p", |pod| {
        pod["status"]["phase"] = json!("Failed");
        pod["status"]["reason"] = json!("NodeLost");
    });
    let is_told = |pod: &Value| container(pod)["state"]["terminated"]["exitCode"] == 143;
    let shown = scene.pod("p", "the end of its container", is_told).await;
    assert_eq!(
        (&shown["status"]["phase"], &shown["status"]["reason"]),
        (&json!("Failed"), &json!("NodeLost"))
    );
}

/// What the node lifecycle controller does to the pods of a node it has not heard of for long.
fn unready(pod: &mut Value) {
    let conditions = pod["status"]["conditions"].as_array_mut().unwrap();
    let ready = conditions.iter_mut().find(|condition| condition["type"] == "Ready").unwrap();
    ready["status"] = json!("False");
}

#[tokio::test(start_paused = true)]
async fn a_status_that_others_overwrote_is_written_again() {
    let scene = Scene::new().await;
    scene.create("p", pod("Always", "app"));
    scene.phase("p", "Running").await;
    scene.api.change("p", unready);
    scene.pod("p", "ready again", |pod| conditions(pod)["Ready"] == "True").await;
}

#[tokio::test(start_paused = true)]
async fn a_status_that_others_overwrote_before_its_answer_came_is_written_again() {
    let scene = Scene::new().await;
    scene.api.fault("/status", Fault::Mute);
    scene.create("p", pod("Always", "app"));
    scene.run("p", 0).await;
    scene.knows("p", "Running").await;
    // The first try is given up, the second one brings the newest status, and its answer is still to come.
    scene.phase("p", "Running").await;
    scene.api.change("p", unready);
    scene
        .api_shows("the change", |state| (conditions(state.pod("p"))["Ready"] == "False").then_some(()))
        .await;
    // The watch has told of the change when it has told of a pod that came after it.
    scene.create("q", pod("Always", "app"));
    scene.run("q", 0).await;
    scene.api.heal();
    scene.pod("p", "ready again", |pod| conditions(pod)["Ready"] == "True").await;
}

#[tokio::test(start_paused = true)]
async fn calls_on_a_dead_connection_do_not_keep_others_waiting() {
    let scene = Scene::new().await;
    scene.make_room(100);
    scene.api.fault("/dead-", Fault::Hang);
    for number in 0..20 {
        scene.create(&format!("dead-{number}"), pod("Always", "app"));
    }
    scene.create("p", pod("Always", "app"));
    scene.phase("p", "Running").await;
}
