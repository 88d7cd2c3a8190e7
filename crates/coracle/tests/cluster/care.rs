//! Probes and hooks of containers.

use std::time::{Duration, Instant};

use coracle_testing::ports;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::scene::Scene;
use crate::{guests, manifests, states};

/// The spec of a pod of one container that sleeps and takes commands, with this beside.
async fn tools(more: &Value) -> Value {
    let image = guests::image("tools-rust").await.unwrap();
    let mut container = json!({"image": image, "command": ["tools", "sleep"]});
    container.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    manifests::of("Always", &container)
}

fn command(words: &[&str]) -> Value {
    json!({"exec": {"command": words}})
}

/// A probe each second that believes its first try.
fn probe(handler: &Value) -> Value {
    let mut probe = json!({"periodSeconds": 1, "failureThreshold": 1});
    probe.as_object_mut().unwrap().extend(handler.as_object().unwrap().clone());
    probe
}

fn is_ready(pod: &Pod) -> bool {
    states::condition(pod, "Ready").is_some_and(|condition| condition.status == "True")
}

#[tokio::test]
async fn a_container_whose_liveness_probe_fails_is_started_again() {
    let scene = Scene::new("liveness").await.unwrap();
    let spec = tools(&json!({"livenessProbe": probe(&command(&["tools", "complain", "not well"]))})).await;
    let pod = scene.run_until("sick", spec, |pod| states::restarts(pod) >= 1).await.unwrap();
    assert_eq!(states::last(&pod).unwrap().exit_code, 143);
    scene.event("sick", "Unhealthy", "Liveness probe failed: not well\n").await.unwrap();
    let message = "Container app failed liveness probe, will be restarted";
    scene.event("sick", "Killing", message).await.unwrap();
}

#[tokio::test]
async fn hooks_and_probes_see_the_files_of_their_container() {
    let scene = Scene::new("files-of-hooks").await.unwrap();
    let looks = probe(&command(&["tools", "show", "/tmp/ready"]));
    let spec = tools(&json!({"readinessProbe": looks})).await;
    scene.run("unready", spec).await.unwrap();
    let writes = json!({"postStart": command(&["tools", "write", "/tmp/ready", "yes"])});
    let spec = tools(&json!({"readinessProbe": looks, "startupProbe": looks, "lifecycle": writes})).await;
    scene.run_until("ready", spec, is_ready).await.unwrap();
    let unready = scene.pod("unready", states::is_running).await.unwrap();
    assert!(!is_ready(&unready));
    let condition = states::condition(&unready, "Ready").unwrap();
    assert_eq!(condition.message.as_deref(), Some("containers with unready status: [app]"));
}

#[tokio::test]
async fn servers_are_probed_by_requests_and_connections() {
    let scene = Scene::new("probed-servers").await.unwrap();
    let image = guests::image("http-test-rust").await.unwrap();
    let server = |name: &str, handler: Value| {
        let port = ports::free().unwrap();
        let container = json!({
            "image": image, "ports": [{"name": "web", "containerPort": port}],
            "livenessProbe": {"tcpSocket": {"port": "web"}}, "readinessProbe": probe(&handler),
        });
        (name.to_owned(), manifests::of("Always", &container))
    };
    let (well, spec) = server("well", json!({"httpGet": {"path": "/hello", "port": "web"}}));
    scene.run(&well, spec).await.unwrap();
    let (unwell, spec) = server("unwell", json!({"httpGet": {"path": "/trap", "port": "web"}}));
    scene.run(&unwell, spec).await.unwrap();
    scene.pod(&well, is_ready).await.unwrap();
    let pod = scene.pod(&unwell, states::is_running).await.unwrap();
    scene
        .event(&unwell, "Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 500")
        .await
        .unwrap();
    assert!(!is_ready(&pod) && states::restarts(&pod) == 0);
}

#[tokio::test]
async fn hooks_take_their_time_of_the_grace() {
    let scene = Scene::new("last-hooks").await.unwrap();
    let sleeps = json!({"lifecycle": {"preStop": {"sleep": {"seconds": 3}}}});
    scene.run_until("sleeps", tools(&sleeps).await, states::is_running).await.unwrap();
    let hangs = json!({"lifecycle": {"preStop": command(&["tools", "spin"])}});
    scene.run_until("hangs", tools(&hangs).await, states::is_running).await.unwrap();
    let fails = json!({"lifecycle": {"preStop": command(&["no-such-program"])}});
    scene.run_until("fails", tools(&fails).await, states::is_running).await.unwrap();
    for (name, grace, waited) in [("sleeps", None, 3), ("hangs", Some(2), 2), ("fails", None, 0)] {
        let began = Instant::now();
        scene.delete(name, grace).await.unwrap();
        scene.gone(name).await.unwrap();
        assert!(began.elapsed() >= Duration::from_secs(waited), "{name}");
        assert!(began.elapsed() < Duration::from_secs(25), "{name}: the whole grace was waited for");
    }
    scene.event("fails", "FailedPreStopHook", "PreStopHook failed").await.unwrap();
    scene.event("sleeps", "Killing", "Stopping container app").await.unwrap();
}

#[tokio::test]
async fn a_container_whose_first_hook_fails_does_not_stay() {
    let scene = Scene::new("first-hooks").await.unwrap();
    let spec = tools(&json!({"lifecycle": {"postStart": command(&["tools", "exit", "7"])}})).await;
    let pod = scene.run_until("fails", spec, |pod| states::restarts(pod) >= 1).await.unwrap();
    assert!(!is_ready(&pod));
    scene.event("fails", "FailedPostStartHook", "PostStartHook failed").await.unwrap();
    scene.event("fails", "Killing", "FailedPostStartHook").await.unwrap();
}
