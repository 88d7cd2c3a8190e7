//! Probes by request: what they hold up, what they end, and what they say while a pod ends.

use bytes::Bytes;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::outside::Outside;
use crate::scene::Scene;
use crate::{guests, manifests, states};

/// A probe of a path each second that believes its first try.
fn of(server: &Outside, path: &str) -> Value {
    json!({"httpGet": {"host": "127.0.0.1", "port": server.port, "path": path}, "periodSeconds": 1, "failureThreshold": 1})
}

fn patient(mut probe: Value) -> Value {
    probe["failureThreshold"] = json!(600);
    probe
}

/// A container that sleeps, with this beside.
async fn sleeper(more: &Value) -> Value {
    let mut container = json!({"image": guests::image("sleep").await.unwrap()});
    container.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    container
}

fn is_ready(pod: &Pod) -> bool {
    states::condition(pod, "Ready").is_some_and(|condition| condition.status == "True")
}

fn side(pod: &Pod) -> Option<&ContainerStatus> {
    pod.status.as_ref()?.init_container_statuses.as_ref()?.first()
}

#[tokio::test]
async fn redirects_are_followed_here_and_told_of_when_they_lead_away() {
    let (scene, server) = (Scene::new("redirects").await.unwrap(), Outside::start().await);
    server.says("/fine", 200);
    server.answers("/near", "HTTP/1.1 302 X\r\nlocation: /fine\r\ncontent-length: 0\r\n\r\n");
    let away = "HTTP/1.1 301 X\r\nlocation: http://elsewhere.invalid/\r\ncontent-length: 4\r\n\r\naway";
    server.answers("/far", away);
    for (name, path) in [("near", "/near"), ("far", "/far")] {
        let container =
            sleeper(&json!({"readinessProbe": of(&server, path), "livenessProbe": of(&server, path)})).await;
        let pod = scene.run_until(name, manifests::of("Always", &container), is_ready).await.unwrap();
        assert_eq!(states::restarts(&pod), 0, "{name}");
    }
    let message = "Liveness probe warning: Probe terminated redirects, Response body: away";
    scene.event("far", "ProbeWarning", message).await.unwrap();
    assert!(server.asked("/fine", 1).await.contains("user-agent: kube-probe/1.36"));
}

#[tokio::test]
async fn other_probes_begin_when_the_startup_probe_has_succeeded() {
    let (scene, server) = (Scene::new("starts-up").await.unwrap(), Outside::start().await);
    let probes = json!({
        "startupProbe": patient(of(&server, "/up")), "livenessProbe": of(&server, "/live"),
        // So rarely that it would be late if it did not begin at once.
        "readinessProbe": {"httpGet": {"host": "127.0.0.1", "port": server.port, "path": "/ready"}, "periodSeconds": 3600},
    });
    let spec = manifests::of("Always", &sleeper(&probes).await);
    scene.run_until("slow", spec, states::is_running).await.unwrap();
    server.asked("/up", 3).await;
    let pod = scene.pod("slow", |_| true).await.unwrap();
    assert_eq!(states::status(&pod).unwrap().started, Some(false));
    assert_eq!((server.count("/live"), server.count("/ready")), (0, 0));
    for path in ["/live", "/ready", "/up"] {
        server.says(path, 200);
    }
    let pod = scene.pod("slow", is_ready).await.unwrap();
    assert_eq!((states::status(&pod).unwrap().started, states::restarts(&pod)), (Some(true), 0));
    server.says("/live", 503);
    scene.pod("slow", |pod| states::restarts(pod) == 1).await.unwrap();
    let message = "Liveness probe failed: HTTP probe failed with statuscode: 503";
    scene.event("slow", "Unhealthy", message).await.unwrap();
}

#[tokio::test]
async fn a_container_that_does_not_come_up_is_started_again() {
    let (scene, server) = (Scene::new("never-up").await.unwrap(), Outside::start().await);
    let spec = manifests::of("Always", &sleeper(&json!({"startupProbe": of(&server, "/up")})).await);
    scene.run_until("again", spec, |pod| states::restarts(pod) >= 1).await.unwrap();
    scene
        .event("again", "Unhealthy", "Startup probe failed: HTTP probe failed with statuscode: 404")
        .await
        .unwrap();
    let message = "Container app failed startup probe, will be restarted";
    scene.event("again", "Killing", message).await.unwrap();
    let spec = manifests::of("Never", &sleeper(&json!({"startupProbe": of(&server, "/up")})).await);
    let pod = scene.run_until("once", spec, states::has_ended).await.unwrap();
    assert_eq!((states::phase(&pod), states::exit(&pod)), ("Failed", Some((143, "Error"))));
}

#[tokio::test]
async fn a_probe_may_have_a_grace_of_its_own() {
    let (scene, server) = (Scene::new("own-grace").await.unwrap(), Outside::start().await);
    let image = guests::image("tools-rust").await.unwrap();
    let mut probe = of(&server, "/live");
    probe["terminationGracePeriodSeconds"] = json!(2);
    let hangs = json!({"preStop": {"exec": {"command": ["tools", "spin"]}}});
    let container =
        json!({"image": image, "command": ["tools", "sleep"], "lifecycle": hangs, "livenessProbe": probe});
    let mut spec = manifests::of("Always", &container);
    spec["terminationGracePeriodSeconds"] = json!(600);
    scene.run_until("hangs", spec, |pod| states::restarts(pod) >= 1).await.unwrap();
    scene.delete("hangs", Some(1)).await.unwrap();
    scene.gone("hangs").await.unwrap();
}

#[tokio::test]
async fn readiness_is_told_while_a_pod_ends_and_liveness_ends_nothing_any_more() {
    let (scene, server) = (Scene::new("ends-unready").await.unwrap(), Outside::start().await);
    server.says("/live", 200);
    server.says("/ready", 200);
    let care = json!({
        "livenessProbe": of(&server, "/live"), "readinessProbe": of(&server, "/ready"),
        "lifecycle": {"preStop": {"sleep": {"seconds": 300}}},
    });
    let mut spec = manifests::of("Always", &sleeper(&care).await);
    spec["terminationGracePeriodSeconds"] = json!(600);
    scene.run_until("ends", spec, is_ready).await.unwrap();
    scene.delete("ends", None).await.unwrap();
    scene.pod("ends", |pod| pod.metadata.deletion_timestamp.is_some() && is_ready(pod)).await.unwrap();
    let liveness = server.count("/live");
    server.says("/live", 500);
    server.says("/ready", 500);
    let pod = scene.pod("ends", |pod| !is_ready(pod)).await.unwrap();
    assert!(states::is_running(&pod) && states::restarts(&pod) == 0);
    server.asked("/ready", server.count("/ready") + 3).await;
    assert!(server.count("/live") <= liveness + 1, "a pod that ends is not probed for its life");
    // A grace that shrinks cuts even the hook short.
    scene.delete("ends", Some(2)).await.unwrap();
    scene.gone("ends").await.unwrap();
}

#[tokio::test]
async fn a_sidecar_holds_up_the_others_until_it_has_started_and_restarts_alone() {
    let (scene, server) = (Scene::new("slow-sidecar").await.unwrap(), Outside::start().await);
    server.says("/live", 200);
    let mut sidecar = sleeper(&json!({
        "name": "side", "restartPolicy": "Always", "startupProbe": patient(of(&server, "/up")), "livenessProbe": of(&server, "/live"),
    }))
    .await;
    sidecar["lifecycle"] = json!({"postStart": {"sleep": {"seconds": 0}}});
    let mut spec = manifests::of("Never", &sleeper(&json!({})).await);
    spec["initContainers"] = json!([sidecar]);
    scene.run("served", spec).await.unwrap();
    server.asked("/up", 2).await;
    let pod =
        scene.pod("served", |pod| side(pod).is_some_and(|side| side.container_id.is_some())).await.unwrap();
    assert_eq!((states::phase(&pod), states::waiting_reason(&pod)), ("Pending", "PodInitializing"));
    let condition = states::condition(&pod, "Initialized").unwrap();
    assert_eq!(condition.message.as_deref(), Some("containers with incomplete status: [side]"));
    server.says("/up", 200);
    scene.pod("served", is_ready).await.unwrap();
    server.says("/live", 500);
    let pod = scene.pod("served", |pod| side(pod).is_some_and(|side| side.restart_count >= 1)).await.unwrap();
    assert!(states::is_running(&pod) && states::restarts(&pod) == 0);
    scene.event("served", "Killing", "Init container side failed liveness probe").await.unwrap();
}

/// Answers health checks: that all is well, or not.
async fn serve_health(stream: TcpStream, status: u8) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        let head = http::Response::builder().header("content-type", "application/grpc");
        let mut body = respond.send_response(head.body(()).unwrap(), false).unwrap();
        body.send_data(Bytes::from(vec![0, 0, 0, 0, 2, 8, status]), false).unwrap();
        let ok = [(http::HeaderName::from_static("grpc-status"), http::HeaderValue::from_static("0"))];
        body.send_trailers(http::HeaderMap::from_iter(ok)).unwrap();
    }
}

/// A service of the node's own address that says of itself that it is so.
async fn service(status: u8) -> (u16, JoinSet<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let (port, mut tasks) = (listener.local_addr().unwrap().port(), JoinSet::new());
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(serve_health(stream, status));
        }
    });
    (port, tasks)
}

#[tokio::test]
async fn services_of_grpc_are_asked_how_they_are() {
    let scene = Scene::new("grpc").await.unwrap();
    let (well, unwell) = (service(1).await, service(2).await);
    for (name, port) in [("well", well.0), ("unwell", unwell.0)] {
        let probe =
            json!({"grpc": {"port": port, "service": "s"}, "periodSeconds": 1, "failureThreshold": 1});
        let mut spec = manifests::of("Always", &sleeper(&json!({"readinessProbe": probe})).await);
        // The node's own network, in which this test serves.
        spec["hostNetwork"] = json!(true);
        scene.run(name, spec).await.unwrap();
    }
    scene.pod("well", is_ready).await.unwrap();
    let message = "Readiness probe failed: service unhealthy (responded with \"NOT_SERVING\")";
    scene.event("unwell", "Unhealthy", message).await.unwrap();
    assert!(!is_ready(&scene.pod("unwell", states::is_running).await.unwrap()));
}
