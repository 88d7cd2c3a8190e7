//! Pods that serve HTTP.

use std::net::SocketAddr;
use std::time::Duration;

use coracle_testing::{http, ports};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::scene::Scene;
use crate::{guests, manifests, states};

/// The spec of a pod that serves on this port.
async fn server(guest: &str, port: u16) -> Value {
    let image = guests::image(guest).await.unwrap();
    manifests::of("Always", &json!({"image": image, "ports": [{"containerPort": port}]}))
}

/// Runs a server and tells where it answers.
async fn serve(scene: &Scene<'_>, name: &str, guest: &str) -> SocketAddr {
    let port = ports::free().unwrap();
    let pod = scene.run_until(name, server(guest, port).await, states::is_running).await.unwrap();
    let address = pod.status.unwrap().pod_ip.unwrap();
    SocketAddr::new(address.parse().unwrap(), port)
}

#[tokio::test]
async fn servers_answer_on_the_pods_address() {
    let scene = Scene::new("serves").await.unwrap();
    for guest in ["http-test-rust", "http-concurrent-rust"] {
        let address = serve(&scene, guest, guest).await;
        let answer = http::get(address, "/count").await.unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (200, "1\n"), "{guest}");
    }
}

#[tokio::test]
async fn a_server_that_is_deleted_answers_what_it_accepted_and_goes_at_once() {
    let scene = Scene::new("drains").await.unwrap();
    let address = serve(&scene, "server", "http-test-rust").await;
    let mut slow = TcpStream::connect(address).await.unwrap();
    slow.write_all(b"GET /sleep?2000 HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let asked = std::time::Instant::now();
    http::get(address, "/hello").await.unwrap();
    scene.delete("server", None).await.unwrap();
    let (answer, gone) = tokio::join!(http::answer(&mut slow), scene.gone("server"));
    gone.unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (200, "slept\n"));
    let waited = asked.elapsed();
    assert!(waited < Duration::from_secs(25), "the whole grace was waited for: {waited:?}");
}

#[tokio::test]
async fn a_malformed_annotation_is_refused_by_name() {
    let scene = Scene::new("malformed").await.unwrap();
    let mut pod = manifests::pod("bad", &scene.placed(server("http-test-rust", 8080).await));
    let annotation = "coracle.dev/http-concurrency";
    pod["metadata"]["annotations"] = json!({annotation: "plenty"});
    scene.create::<Pod>(pod).await.unwrap();
    let pod = scene.pod("bad", states::has_ended).await.unwrap();
    let status = pod.status.unwrap();
    assert_eq!(status.reason.as_deref(), Some("PodFeatureUnsupported"));
    let message = status.message.unwrap_or_default();
    assert!(message.contains(annotation) && message.contains("plenty"), "{message}");
}
