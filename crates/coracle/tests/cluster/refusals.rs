//! What cannot run is named, and the node goes on.

use coracle_testing::registry::{Artifact, Files};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use crate::scene::Scene;
use crate::{guests, manifests, states};

/// What a pod waits for, and why.
fn complaint(pod: &Pod) -> String {
    let waiting = states::waiting(pod);
    let part = |part: Option<&String>| part.cloned().unwrap_or_default();
    let reason = part(waiting.and_then(|waiting| waiting.reason.as_ref()));
    format!("{reason}: {}", part(waiting.and_then(|waiting| waiting.message.as_ref())))
}

/// Waits until the pod waits for that reason, with a message and an Event that contain `part`.
pub(crate) async fn check(scene: &Scene<'_>, pod: &str, reason: &str, part: &str) {
    let is_so = |pod: &Pod| {
        let complaint = complaint(pod);
        complaint.contains(reason) && complaint.to_lowercase().contains(part)
    };
    let seen = scene.pod(pod, is_so).await;
    let seen = seen.unwrap_or_else(|error| panic!("{pod}: not {reason} with {part:?}: {error:#}"));
    assert_eq!((states::phase(&seen), states::restarts(&seen)), ("Pending", 0), "{pod}");
}

/// A good pod still runs.
pub(crate) async fn goes_on(scene: &Scene<'_>) {
    let image = guests::image("hello").await.unwrap();
    let pod = scene.run_until("good", manifests::once(&image, &[]), states::has_ended).await.unwrap();
    assert_eq!(states::phase(&pod), "Succeeded");
    let log = scene.node.log().unwrap();
    assert!(!log.contains("panicked"), "{log}");
}

#[tokio::test]
async fn modules_that_cannot_run_are_named() {
    let scene = Scene::new("bad-modules").await.unwrap();
    let whole = guests::wasm("hello-rust").unwrap();
    let cases: [(&str, Vec<u8>, &str); 5] = [
        ("truncated", whole[..whole.len() / 2].to_vec(), "unexpected end"),
        ("unknown-import", guests::wasm("unknown-import").unwrap(), "brew_coffee"),
        ("component-unknown-import", guests::wasm("component-unknown-import").unwrap(), "kettle"),
        ("component-no-run", guests::wasm("component-no-run").unwrap(), "wasi:cli/run"),
        ("no-start", guests::wasm("no-start").unwrap(), "_start"),
    ];
    for (name, wasm, _) in &cases {
        let image = guests::push(&format!("bad-{name}"), "v1", &Artifact::cncf(wasm.clone())).await.unwrap();
        scene.run(name, manifests::once(&image, &[])).await.unwrap();
    }
    for (name, _, part) in &cases {
        let pod = scene.pod(name, states::has_ended).await.unwrap();
        let message = states::start_error(&pod).to_lowercase();
        assert!(message.contains(part), "{name}: {message}");
        assert_eq!((states::phase(&pod), states::restarts(&pod)), ("Failed", 0), "{name}");
        scene.event(name, "Failed", "Error: ").await.unwrap();
    }
    goes_on(&scene).await;
}

#[tokio::test]
async fn images_that_cannot_be_pulled_are_named() {
    let scene = Scene::new("bad-images").await.unwrap();
    let registry = guests::registry().await.unwrap();
    let cases = [
        ("missing", registry.image("nothing:v1"), "ImagePull", "not found"),
        ("corrupt", corrupt().await, "ImagePull", "digest"),
        ("not-wasm", not_wasm(b"#!/bin/sh\necho hello\n").await, "ImagePull", "is not webassembly"),
        ("empty", not_wasm(b"").await, "ImagePull", "is not webassembly"),
        ("linux", linux().await, "ImagePull", "it is for linux/amd64, linux/arm64"),
        ("unreachable", "127.0.0.1:1/hello:v1".to_owned(), "", "127.0.0.1:1"),
        ("invalid", "Not/An/Image".to_owned(), "InvalidImageName", "not/an/image"),
    ];
    for (name, image, _, _) in &cases {
        scene.run(name, manifests::once(image, &[])).await.unwrap();
    }
    for (name, image, reason, part) in &cases {
        check(&scene, name, reason, part).await;
        scene.event(name, "Failed", "Error: ").await.unwrap();
        if *reason == "ImagePull" {
            scene.event(name, "Failed", &format!("Failed to pull image {image:?}: ")).await.unwrap();
            scene.event(name, "BackOff", "Back-off pulling image").await.unwrap();
        }
    }
    goes_on(&scene).await;
}

/// An image whose layer has other bytes than its digest says, of the same length.
async fn corrupt() -> String {
    let mut wasm = guests::wasm("hello").unwrap();
    wasm.extend([0, 5, 4, b'e', b'v', b'i', b'l']);
    let artifact = Artifact::cncf(wasm.clone());
    let image = guests::push("corrupt", "v1", &artifact).await.unwrap();
    wasm.pop();
    wasm.push(b'L');
    let registry = guests::registry().await.unwrap();
    registry.overwrite_blob(&artifact.layers[0].digest(), &wasm).unwrap();
    image
}

/// An image that is called WebAssembly and has other content.
async fn not_wasm(content: &'static [u8]) -> String {
    let repository = format!("not-wasm-{}", content.len());
    guests::push(&repository, "v1", &Artifact::cncf(content)).await.unwrap()
}

/// An ordinary container image for several machines.
async fn linux() -> String {
    let registry = guests::registry().await.unwrap();
    let artifact = Artifact::image(vec![Files::default().file("bin/sh", b"\x7fELF")], &json!({})).unwrap();
    let digest = registry.push("linux", "single", &artifact).await.unwrap();
    let size = artifact.manifest().to_string().len();
    let entry = |architecture: &str| {
        let platform = json!({"os": "linux", "architecture": architecture});
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        json!({"mediaType": media_type, "digest": digest, "size": size, "platform": platform})
    };
    let media_type = "application/vnd.oci.image.index.v1+json";
    let index =
        json!({"schemaVersion": 2, "mediaType": media_type, "manifests": [entry("amd64"), entry("arm64")]});
    registry.push_manifest("linux", "v1", media_type, index.to_string()).await.unwrap();
    registry.image("linux:v1")
}

#[tokio::test]
async fn volumes_that_are_not_supported_yet_are_named() {
    let scene = Scene::new("bad-volumes").await.unwrap();
    let image = guests::image("hello").await.unwrap();
    let cases = [
        ("nfs", "nfs", json!({"nfs": {"server": "192.0.2.1", "path": "/"}})),
        ("csi", "csi", json!({"csi": {"driver": "driver.example"}})),
    ];
    for (name, _, volume) in &cases {
        let mut volume = volume.clone();
        volume["name"] = "data".into();
        let mut spec = manifests::of(
            "Never",
            &json!({"image": image, "volumeMounts": [{"name": "data", "mountPath": "/data"}]}),
        );
        spec["volumes"] = json!([volume]);
        scene.run(name, spec).await.unwrap();
    }
    for (name, kind, _) in &cases {
        let event = scene.event(name, "FailedMount", kind).await.unwrap();
        assert!(event.message.unwrap().contains(r#"volume "data""#));
        let pod = scene.pod(name, |pod| states::waiting_reason(pod) == "ContainerCreating").await.unwrap();
        assert_eq!(states::phase(&pod), "Pending");
        scene.delete(name, None).await.unwrap();
        scene.gone(name).await.unwrap();
    }
    goes_on(&scene).await;
}

#[tokio::test]
async fn pods_that_no_node_of_this_kind_can_run_are_refused() {
    let scene = Scene::new("never-will").await.unwrap();
    let image = guests::image("hello").await.unwrap();
    let privileged = json!({"image": image, "securityContext": {"privileged": true}});
    let mut windows = manifests::once(&image, &[]);
    windows["os"] = json!({"name": "windows"});
    let cases = [
        ("privileged", manifests::of("Never", &privileged), "PodFeatureUnsupported", "privileged"),
        ("windows", windows, "PodOSNotSupported", "OS"),
    ];
    for (name, spec, reason, part) in cases {
        let pod = scene.run_until(name, spec, states::has_ended).await.unwrap();
        let status = pod.status.as_ref().unwrap();
        assert_eq!((states::phase(&pod), status.reason.as_deref()), ("Failed", Some(reason)));
        let message = status.message.as_deref().unwrap_or_default();
        assert!(message.starts_with("Pod was rejected: ") && message.contains(part), "{message}");
        scene.event(name, reason, part).await.unwrap();
    }
    goes_on(&scene).await;
}
