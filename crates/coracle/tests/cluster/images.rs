//! Where images come from, and when.

use coracle_testing::{Artifact, Cluster, NodeOptions, Registry};
use k8s_openapi::api::core::v1::{Pod, Secret};
use serde_json::{Value, json};

use crate::scene::{Scene, options};
use crate::{gate, guests, manifests, states};

fn with_policy(image: &str, policy: &str) -> Value {
    manifests::of("Never", &json!({"image": image, "imagePullPolicy": policy}))
}

/// What a pod prints that runs this image once.
async fn printed(scene: &Scene<'_>, name: &str, spec: Value) -> String {
    let pod = scene.run_until(name, spec, states::has_ended).await.unwrap();
    assert_eq!(states::exit(&pod), Some((0, "Completed")), "{name}");
    scene.logs(name, &[]).await.unwrap()
}

#[tokio::test]
async fn a_tag_that_moved_is_seen_by_those_who_always_ask() {
    const OLD: &str = "hello from a guest\n";
    const NEW: &str = "to standard output\nto standard error\n";
    let scene = Scene::new("pulls").await.unwrap();
    let registry = guests::registry().await.unwrap();
    let old = Artifact::cncf(guests::wasm("hello").unwrap());
    let digest = registry.push("moving", "v1", &old).await.unwrap();
    let image = registry.image("moving:v1");
    assert_eq!(printed(&scene, "first", with_policy(&image, "IfNotPresent")).await, OLD);
    scene.event("first", "Pulled", "Successfully pulled image").await.unwrap();

    let new = Artifact::cncf(guests::wasm("stdout-stderr").unwrap());
    assert_ne!(registry.push("moving", "v1", &new).await.unwrap(), digest);
    assert_eq!(printed(&scene, "second", with_policy(&image, "IfNotPresent")).await, OLD);
    scene.event("second", "Pulled", "already present on machine").await.unwrap();
    assert_eq!(printed(&scene, "third", with_policy(&image, "Never")).await, OLD);
    assert_eq!(printed(&scene, "fourth", with_policy(&image, "Always")).await, NEW);
    assert_eq!(printed(&scene, "fifth", with_policy(&image, "Never")).await, NEW);

    let by_digest = registry.image(&format!("moving@{digest}"));
    assert_eq!(printed(&scene, "sixth", with_policy(&by_digest, "IfNotPresent")).await, OLD);
    let pod = scene.pod("sixth", |_| true).await.unwrap();
    assert!(states::status(&pod).unwrap().image_id.ends_with(&digest));
}

#[tokio::test]
async fn an_image_that_is_not_here_is_not_pulled_when_that_is_forbidden() {
    let scene = Scene::new("never-pulls").await.unwrap();
    let image = guests::image("hello").await.unwrap();
    let waits = |pod: &Pod| states::waiting_reason(pod) == "ErrImageNeverPull";
    scene.run_until("waits", with_policy(&image, "Never"), waits).await.unwrap();
    scene.event("waits", "ErrImageNeverPull", &image).await.unwrap();
    // It comes to be here by another pod.
    assert_eq!(printed(&scene, "pulls", with_policy(&image, "IfNotPresent")).await, "hello from a guest\n");
    let ended = scene.pod("waits", states::has_ended).await.unwrap();
    assert_eq!(states::phase(&ended), "Succeeded");
}

#[tokio::test]
async fn an_image_that_is_not_there_is_asked_for_ever_more_seldom_until_it_is() {
    let scene = Scene::new("backs-off").await.unwrap();
    let registry = guests::registry().await.unwrap();
    let image = registry.image("late:v1");
    let fails = |pod: &Pod| states::waiting_reason(pod) == "ErrImagePull";
    scene.run_until("late", manifests::once(&image, &[]), fails).await.unwrap();
    let waits = |pod: &Pod| states::waiting_reason(pod) == "ImagePullBackOff";
    let pod = scene.pod("late", waits).await.unwrap();
    let waiting = states::status(&pod).unwrap().state.as_ref().unwrap().waiting.clone().unwrap();
    let expected = format!("Back-off pulling image \"{image}\": ErrImagePull: ");
    let message = waiting.message.unwrap();
    assert!(message.starts_with(&expected) && message.contains("not found"), "{message}");
    scene.event("late", "BackOff", &format!("Back-off pulling image \"{image}\"")).await.unwrap();
    scene.event("late", "Failed", "Error: ImagePullBackOff").await.unwrap();
    registry.push("late", "v1", &Artifact::cncf(guests::wasm("hello").unwrap())).await.unwrap();
    let ended = scene.pod("late", states::has_ended).await.unwrap();
    assert_eq!(states::exit(&ended), Some((0, "Completed")));
}

#[tokio::test]
async fn both_layouts_and_all_kinds_of_guests_run() {
    let scene = Scene::new("kinds").await.unwrap();
    let older = Artifact::wasm_to_oci(guests::wasm("hello-rust").unwrap());
    let older = guests::push("older", "v1", &older).await.unwrap();
    scene.run("older", manifests::once(&older, &[])).await.unwrap();
    for guest in ["hello-rust", "hello-rust-p2", "hello-go"] {
        let image = guests::image(guest).await.unwrap();
        scene.run(guest, manifests::once(&image, &[])).await.unwrap();
    }
    for name in ["older", "hello-rust", "hello-rust-p2", "hello-go"] {
        let pod = scene.pod(name, states::has_ended).await.unwrap();
        assert_eq!(states::exit(&pod), Some((0, "Completed")), "{name}");
        assert!(scene.logs(name, &[]).await.unwrap().to_lowercase().contains("hello"), "{name}");
    }
}

#[tokio::test]
async fn an_image_that_needs_credentials_is_pulled_with_them() {
    let registry = Registry::with_login("reader", "open sesame").await.unwrap();
    registry.push("private", "v1", &Artifact::cncf(guests::wasm("hello").unwrap())).await.unwrap();
    let mut options: NodeOptions = options("logs-in").await.unwrap();
    options.insecure_registries.push(registry.host());
    let scene = Scene::with(Cluster::shared().await.unwrap(), options).await.unwrap();
    secret(&scene, "right", &registry, "open sesame").await;
    secret(&scene, "wrong", &registry, "guessed").await;

    let image = registry.image("private:v1");
    let with = |secret: Option<&str>| {
        let mut spec = manifests::once(&image, &[]);
        spec["imagePullSecrets"] = secret.map_or(json!([]), |name| json!([{"name": name}]));
        spec
    };
    let refused = |pod: &Pod| {
        let message = states::waiting(pod).and_then(|waiting| waiting.message.clone()).unwrap_or_default();
        states::waiting_reason(pod).contains("ImagePull") && message.to_lowercase().contains("auth")
    };
    scene.run_until("without", with(None), refused).await.unwrap();
    scene.event("without", "Failed", "Failed to pull image").await.unwrap();
    scene.run_until("wrong", with(Some("wrong")), refused).await.unwrap();
    assert_eq!(printed(&scene, "right", with(Some("right"))).await, "hello from a guest\n");
}

async fn secret(scene: &Scene<'_>, name: &str, registry: &Registry, password: &str) {
    let login = registry.login().unwrap();
    let config = json!({"auths": {registry.host(): {"username": login.user, "password": password}}});
    let manifest = json!({
        "metadata": {"name": name},
        "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": config.to_string()},
    });
    scene.create::<Secret>(manifest).await.unwrap();
}

#[tokio::test]
async fn the_summary_of_the_node_tells_what_images_and_files_take_up() {
    let scene = Scene::new("summary").await.unwrap();
    let image = guests::image("sleep").await.unwrap();
    scene.run_until("sleeps", manifests::once(&image, &[]), states::is_running).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let summary = gate::get(&gate::administrator(&scene, &directory).await, "/stats/summary").await.unwrap();
    let summary: Value = serde_json::from_str(&summary).unwrap();
    let node = &summary["node"];
    assert_eq!(node["nodeName"], scene.node.name());
    let module = guests::wasm("sleep").unwrap().len() as u64;
    let images = node["runtime"]["imageFs"]["usedBytes"].as_u64().unwrap();
    assert!((module..module + 100_000).contains(&images), "{images} bytes for a module of {module}");
    let disk = rustix::fs::statvfs(scene.node.root_directory()).unwrap();
    assert_eq!(node["fs"]["capacityBytes"], disk.f_blocks * disk.f_frsize);
    assert_eq!(node["runtime"]["imageFs"]["capacityBytes"], node["fs"]["capacityBytes"]);
    assert!(node["fs"]["availableBytes"].as_u64() < node["fs"]["capacityBytes"].as_u64());
    assert_eq!(summary["pods"][0]["podRef"]["name"], "sleeps");
    assert_eq!(summary["pods"][0]["containers"][0]["name"], "app");
}

#[tokio::test]
async fn prometheus_is_told_how_long_pods_took_to_start() {
    let scene = Scene::new("metrics").await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let administrator = gate::administrator(&scene, &directory).await;
    let count = async || {
        let metrics = gate::get(&administrator, "/metrics").await.unwrap();
        let count =
            metrics.lines().find_map(|line| line.strip_prefix("kubelet_pod_start_duration_seconds_count "));
        count.and_then(|count| count.parse::<u32>().ok()).unwrap_or_else(|| panic!("no count in {metrics}"))
    };
    let before = count().await;
    let image = guests::image("sleep").await.unwrap();
    scene.run_until("sleeps", manifests::once(&image, &[]), states::is_running).await.unwrap();
    // The node has its answer a moment after the watch has the pod.
    while count().await != before + 1 {
        tokio::task::yield_now().await;
    }
}
