//! Programs that save what they have before they end.

use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use crate::scene::Scene;
use crate::{guests, manifests, states};

/// A pod with a deadline, whose one container leaves its state where its status shows it.
fn short(scene: &Scene<'_>, name: &str, container: &serde_json::Value) -> serde_json::Value {
    let mut spec = scene.placed(manifests::of("Never", container));
    spec["activeDeadlineSeconds"] = json!(3);
    spec["terminationGracePeriodSeconds"] = json!(60);
    let mut pod = manifests::pod(name, &spec);
    pod["metadata"]["annotations"] = json!({"coracle.dev/stop": "stdin"});
    pod
}

#[tokio::test]
async fn a_program_saves_its_state_when_its_input_ends() {
    let scene = Scene::new("hears").await.unwrap();
    for guest in ["saver-rust", "saver-rust-p2"] {
        let image = guests::image(guest).await.unwrap();
        let container = json!({"image": image, "args": ["/dev/termination-log"]});
        scene.create::<Pod>(short(&scene, guest, &container)).await.unwrap();
    }
    for guest in ["saver-rust", "saver-rust-p2"] {
        let pod = scene.pod(guest, states::has_ended).await.unwrap();
        assert_eq!(pod.status.as_ref().unwrap().reason.as_deref(), Some("DeadlineExceeded"));
        assert_eq!(states::exit(&pod), Some((0, "Completed")), "{guest}");
        let saved = states::terminated(&pod).unwrap().message.clone().unwrap();
        assert!(saved.starts_with("counted to "), "{guest}: {saved}");
        assert!(scene.logs(guest, &[]).await.unwrap().contains("saved "), "{guest}");
    }
}

#[tokio::test]
async fn another_program_saves_the_state_of_one_that_cannot_hear() {
    let scene = Scene::new("saved-by-hook").await.unwrap();
    let image = guests::image("tools-rust").await.unwrap();
    let saves = json!({"exec": {"command": ["tools", "write", "/dev/termination-log", "saved"]}});
    let container = json!({"image": image, "command": ["tools", "spin"], "lifecycle": {"preStop": saves}});
    let mut pod = short(&scene, "deaf", &container);
    pod["metadata"]["annotations"] = json!({});
    scene.create::<Pod>(pod).await.unwrap();
    let pod = scene.pod("deaf", states::has_ended).await.unwrap();
    assert_eq!(states::exit(&pod), Some((143, "Error")));
    assert_eq!(states::terminated(&pod).unwrap().message.as_deref(), Some("saved"));
}

#[tokio::test]
async fn a_way_of_hearing_that_nobody_knows_is_refused_by_name() {
    let scene = Scene::new("unheard").await.unwrap();
    let image = guests::image("hello").await.unwrap();
    let mut pod = short(&scene, "unheard", &json!({"image": image}));
    pod["metadata"]["annotations"] = json!({"coracle.dev/stop": "SIGTERM"});
    scene.create::<Pod>(pod).await.unwrap();
    let pod = scene.pod("unheard", states::has_ended).await.unwrap();
    let message = pod.status.unwrap().message.unwrap();
    assert!(message.contains("metadata.annotations[coracle.dev/stop]"), "{message}");
}
