//! Hooks by request, and a stop signal where there are no signals.

use coracle_testing::Cluster;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::outside::Outside;
use crate::scene::{Scene, options};
use crate::{guests, manifests, states};

async fn sleeper(hooks: &Value) -> Value {
    let image = guests::image("sleep").await.unwrap();
    manifests::of("Always", &json!({"image": image, "lifecycle": hooks}))
}

#[tokio::test]
async fn hooks_ask_servers_and_take_any_answer() {
    let (scene, server) = (Scene::new("asks").await.unwrap(), Outside::start().await);
    let get = |path: &str, scheme: &str| json!({"httpGet": {"host": "127.0.0.1", "port": server.port, "path": path, "scheme": scheme}});
    let spec = sleeper(&json!({"postStart": get("/begins", "HTTP"), "preStop": get("/ends", "HTTPS")})).await;
    scene.run_until("asks", spec, states::is_running).await.unwrap();
    assert!(server.asked("/begins", 1).await.contains("user-agent: kube-lifecycle/1.36"));
    scene.delete("asks", None).await.unwrap();
    scene.gone("asks").await.unwrap();
    server.asked("/ends", 1).await;
    let message = format!(
        "request to HTTPS lifecycle hook 127.0.0.1:{} got HTTP response, retry with HTTP succeeded",
        server.port
    );
    scene.event("asks", "LifecycleHTTPFallback", &message).await.unwrap();
}

#[tokio::test]
async fn a_container_that_has_ended_has_no_last_hook() {
    let (scene, server) = (Scene::new("no-hook").await.unwrap(), Outside::start().await);
    let get = json!({"httpGet": {"host": "127.0.0.1", "port": server.port, "path": "/ends"}});
    let hello = guests::image("hello").await.unwrap();
    let mut spec = manifests::of("Never", &json!({"image": hello, "lifecycle": {"preStop": get}}));
    let other = json!({"name": "other", "image": guests::image("sleep").await.unwrap()});
    spec["containers"].as_array_mut().unwrap().push(other);
    scene.run_until("half", spec, |pod| states::terminated(pod).is_some()).await.unwrap();
    scene.delete("half", None).await.unwrap();
    scene.gone("half").await.unwrap();
    assert_eq!(server.count("/ends"), 0);
}

#[tokio::test]
async fn a_stop_signal_is_accepted_shown_and_changes_nothing() {
    let cluster = Cluster::builder().stop_signals().start().await.unwrap();
    let scene = Scene::with(&cluster, options("stop-signals").await.unwrap()).await.unwrap();
    let mut spec = sleeper(&json!({"stopSignal": "SIGUSR1"})).await;
    spec["os"] = json!({"name": "linux"});
    let pod = scene.run_until("signalled", spec, states::is_running).await.unwrap();
    assert_eq!(states::status(&pod).unwrap().stop_signal.as_deref(), Some("SIGUSR1"));
    scene.delete("signalled", None).await.unwrap();
    scene.gone("signalled").await.unwrap();
    let without: Pod = scene.run_until("plain", sleeper(&json!({})).await, states::is_running).await.unwrap();
    assert_eq!(states::status(&without).unwrap().stop_signal, None);
}
