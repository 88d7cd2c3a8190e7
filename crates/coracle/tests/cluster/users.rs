//! What is said of containers that may not begin.

use serde_json::{Value, json};

use crate::scene::Scene;
use crate::{guests, manifests, states};

async fn tools(words: &[&str], more: &Value) -> Value {
    let image = guests::image("tools-rust").await.unwrap();
    let mut container = json!({"image": image, "args": words});
    container.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    manifests::of("Never", &container)
}

#[tokio::test]
async fn who_must_not_be_root_is_not() {
    let scene = Scene::new("non-root").await.unwrap();
    let as_root = json!({"securityContext": {"runAsNonRoot": true, "runAsUser": 0}});
    scene.run("root", tools(&["exit", "0"], &as_root).await).await.unwrap();
    let as_nobody = json!({"securityContext": {"runAsNonRoot": true}});
    let nobody = tools(&["exit", "0"], &as_nobody).await;
    scene.run_until("nobody", nobody, states::has_ended).await.unwrap();
    let message = "Error: container's runAsUser breaks non-root policy (pod: \"root_";
    scene.event("root", "Failed", message).await.unwrap();
    let waits = |pod: &_| states::waiting_reason(pod) == "CreateContainerConfigError";
    scene.pod("root", waits).await.unwrap();
}
