//! Images as volumes: what guests find in them.

use coracle_testing::registry::{Artifact, Files};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::files::{self, outcomes};
use crate::scene::Scene;
use crate::{guests, states};

/// An image of two layers that nobody could run, with links that would lead out of it.
async fn image() -> String {
    let base = Files::default().file("weights/one", b"old").file("weights/deep/two", b"two");
    let top = Files::default()
        .file("weights/one", b"one")
        .link("inside", "weights/one")
        .link("absolute", "/weights/deep")
        .link("up", "../../../../../../../../etc/passwd");
    let image = Artifact::image(vec![base, top], &json!({})).unwrap();
    guests::push("model", "v1", &image).await.unwrap()
}

/// A spec of one container that does these things, with the volume `v` of an image.
async fn spec(source: Value, mounts: Value, commands: &[&str]) -> Value {
    files::spec(json!([{"name": "v", "image": source}]), mounts, commands).await
}

#[tokio::test]
async fn an_image_is_mounted_whole_in_parts_and_never_written() {
    let scene = Scene::new("image-volume").await.unwrap();
    let mounts = json!([
        {"name": "v", "mountPath": "/model"}, {"name": "v", "mountPath": "/part", "subPath": "weights/deep"},
        {"name": "v", "mountPath": "/one.bin", "subPath": "weights/one"},
    ]);
    let allowed = [
        ("list /model/weights", "deep one"),
        ("read /model/weights/one", "one"),
        ("read /model/inside", "one"),
        ("read /model/absolute/two", "two"),
        ("list /part", "two"),
        ("read /one.bin", "one"),
    ];
    let refused = [
        "write /model/weights/one x",
        "write /model/new x",
        "remove /model/inside",
        "mkdir /part/new",
        "read /model/up",
    ];
    let commands: Vec<&str> = allowed.iter().map(|(command, _)| *command).chain(refused).collect();
    let source = json!({"reference": image().await, "pullPolicy": "IfNotPresent"});
    let pod = scene.run_until("p", spec(source, mounts, &commands).await, states::has_ended).await.unwrap();
    let found = outcomes(&scene, "p").await;
    for (command, outcome) in allowed {
        assert_eq!(found[command], outcome, "{command}: {found:?}");
    }
    for command in refused {
        assert!(found[command].starts_with("error"), "{command}: {found:?}");
    }
    scene.event("p", "Pulled", "Successfully pulled image").await.unwrap();
    let volume = scene.pod_directory(&pod).join("volumes/kubernetes.io~image/v");
    scene.delete("p", Some(1)).await.unwrap();
    scene.gone("p").await.unwrap();
    assert!(!volume.exists());
}

#[tokio::test]
async fn a_bare_artifact_is_a_file_of_its_name() {
    let scene = Scene::new("artifact-volume").await.unwrap();
    let reference = guests::image("exit-code").await.unwrap();
    let size = guests::wasm("exit-code").unwrap().len();
    let mounts = json!([{"name": "v", "mountPath": "/modules"}]);
    let commands = ["list /modules", "size /modules/exit-code"];
    let spec = spec(json!({"reference": reference}), mounts, &commands).await;
    scene.run_until("p", spec, states::has_ended).await.unwrap();
    let found = outcomes(&scene, "p").await;
    assert_eq!(
        [&found["list /modules"], &found["size /modules/exit-code"]],
        ["exit-code", &size.to_string()]
    );
}

#[tokio::test]
async fn a_container_waits_for_an_image_that_it_mounts_as_for_its_own() {
    let scene = Scene::new("no-image-volume").await.unwrap();
    let mounts = json!([{"name": "v", "mountPath": "/v"}]);
    let missing = guests::registry().await.unwrap().image("no-model:v1");
    let missing_spec = spec(json!({"reference": missing}), mounts.clone(), &["list /v"]).await;
    let waits = |pod: &Pod| matches!(states::waiting_reason(pod), "ErrImagePull" | "ImagePullBackOff");
    scene.run_until("missing", missing_spec, waits).await.unwrap();
    scene.event("missing", "Failed", "no-model").await.unwrap();
    let never = spec(json!({"reference": missing, "pullPolicy": "Never"}), mounts, &["list /v"]).await;
    let waits = |pod: &Pod| states::waiting_reason(pod) == "ErrImageNeverPull";
    scene.run_until("never", never, waits).await.unwrap();
    let model = Artifact::image(vec![Files::default().file("late", b"late")], &json!({})).unwrap();
    guests::push("no-model", "v1", &model).await.unwrap();
    scene.pod("missing", states::has_ended).await.unwrap();
    assert_eq!(outcomes(&scene, "missing").await["list /v"], "late");
}
