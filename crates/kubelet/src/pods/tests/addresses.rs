use serde_json::json;
use tokio::time::Instant;

use crate::pods::testing::{Scene, pod};

/// A scene whose pods have addresses of a range.
async fn scene(range: &str) -> Scene {
    let mut scene = Scene::empty();
    scene.runtime.change(|runtime| runtime.gives_addresses = true);
    scene.give_range(range);
    scene.start().await;
    scene
}

async fn address(scene: &Scene, name: &str) -> String {
    let pod = scene.phase(name, "Running").await;
    let status = &pod["status"];
    assert_eq!(status["podIPs"], json!([{ "ip": status["podIP"] }]));
    assert_eq!(status["hostIP"], "192.0.2.7");
    status["podIP"].as_str().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn each_pod_has_an_address_and_its_containers_know_it() {
    let scene = scene("10.0.0.0/24").await;
    for (name, expected) in [("a", "10.0.0.1"), ("b", "10.0.0.2")] {
        scene.create(name, pod("Always", "app"));
        assert_eq!(address(&scene, name).await, expected);
        let network = scene.run(name, 0).await.spec.network;
        assert_eq!(network.addresses, [expected.parse::<std::net::IpAddr>().unwrap()]);
        assert!(!network.shared && !network.host);
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_of_the_nodes_network_has_the_nodes_address() {
    let scene = scene("10.0.0.0/24").await;
    let mut host = pod("Always", "app");
    host["spec"]["hostNetwork"] = json!(true);
    scene.create("host", host);
    assert_eq!(address(&scene, "host").await, "192.0.2.7");
    assert!(scene.run("host", 0).await.spec.network.host);
}

#[tokio::test(start_paused = true)]
async fn an_address_is_kept_over_restarts_of_the_agent() {
    let mut scene = scene("10.0.0.0/24").await;
    for name in ["a", "b", "c"] {
        scene.create(name, pod("Always", "app"));
        scene.phase(name, "Running").await;
    }
    scene.kill().await;
    // Older than the others, so that it is taken before them; it has no address yet.
    scene.create_at("old", "2020-01-01T00:00:00Z", pod("Always", "app"));
    scene.start().await;
    assert_eq!(address(&scene, "old").await, "10.0.0.4");
    for (name, expected) in [("a", "10.0.0.1"), ("b", "10.0.0.2"), ("c", "10.0.0.3")] {
        scene.run(name, 1).await;
        assert_eq!(address(&scene, name).await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn an_address_is_free_again_when_its_pod_has_ended() {
    let scene = scene("10.0.0.0/30").await;
    for (name, expected) in [("a", "10.0.0.1"), ("b", "10.0.0.2")] {
        scene.create(name, pod("Never", "app"));
        assert_eq!(address(&scene, name).await, expected);
    }
    scene.create("c", pod("Never", "app"));
    assert_eq!(scene.phase("c", "Failed").await["status"]["reason"], "OutOfpods");
    scene.runtime.exit("a", coracle_lifecycle::Cause::Exited(0));
    let ended = scene.phase("a", "Succeeded").await;
    assert_eq!(ended["status"]["podIP"], "10.0.0.1");
    scene.create("d", pod("Never", "app"));
    assert_eq!(address(&scene, "d").await, "10.0.0.1");
}

#[tokio::test(start_paused = true)]
async fn pods_wait_for_the_range_of_their_addresses() {
    let mut scene = Scene::empty();
    scene.runtime.change(|runtime| runtime.gives_addresses = true);
    scene.create("a", pod("Always", "app"));
    scene.start().await;
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    assert!(scene.runtime.state.borrow().runs.is_empty());
    scene.give_range("10.0.0.0/24");
    assert_eq!(address(&scene, "a").await, "10.0.0.1");
}

#[tokio::test(start_paused = true)]
async fn without_a_range_pods_have_the_nodes_address_before_long() {
    let mut scene = Scene::empty();
    scene.runtime.change(|runtime| runtime.gives_addresses = true);
    scene.create("a", pod("Always", "app"));
    let began = Instant::now();
    scene.start().await;
    assert_eq!(address(&scene, "a").await, "192.0.2.7");
    assert!(began.elapsed().as_secs() < 15 && scene.run("a", 0).await.spec.network.shared);
}
