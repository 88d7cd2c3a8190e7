//! Programs that cannot be started, wherever in a pod they are.

use coracle_testing::registry::Artifact;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod};
use serde_json::{Value, json};

use crate::scene::Scene;
use crate::{guests, manifests, states};

async fn broken() -> String {
    let wasm = guests::wasm("no-start").unwrap();
    guests::push("unstarted", "v1", &Artifact::cncf(wasm)).await.unwrap()
}

/// How the latest run of a container ended that does not run.
fn end(status: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    let seen = [status.state.as_ref(), status.last_state.as_ref()];
    seen.into_iter().flatten().find_map(|state| state.terminated.as_ref())
}

fn is_unstarted(status: &ContainerStatus) -> bool {
    end(status).is_some_and(|end| (end.exit_code, end.reason.as_deref()) == (128, Some("StartError")))
}

fn init(pod: &Pod) -> Option<&ContainerStatus> {
    pod.status.as_ref()?.init_container_statuses.as_ref()?.first()
}

/// A pod with `first` before its container, and this policy.
fn behind(policy: &str, hello: &str, first: &Value) -> Value {
    let mut spec = manifests::of(policy, &json!({"image": hello}));
    spec["initContainers"] = json!([first]);
    spec
}

#[tokio::test]
async fn an_init_container_that_cannot_start_holds_up_its_pod_or_ends_it() {
    let scene = Scene::new("unstarted-init").await.unwrap();
    let (hello, broken) = (guests::image("hello").await.unwrap(), broken().await);
    let plain = json!({"name": "first", "image": broken});
    let sidecar = json!({"name": "first", "image": broken, "restartPolicy": "Always"});
    scene.run("never", behind("Never", &hello, &plain)).await.unwrap();
    scene.run("always", behind("Always", &hello, &plain)).await.unwrap();
    scene.run("sidecar", behind("Never", &hello, &sidecar)).await.unwrap();
    let failed = scene.pod("never", states::has_ended).await.unwrap();
    assert_eq!(states::phase(&failed), "Failed");
    assert!(init(&failed).is_some_and(is_unstarted), "{failed:?}");
    for name in ["always", "sidecar"] {
        let loops = |pod: &Pod| init(pod).is_some_and(|first| is_unstarted(first) && first.restart_count > 0);
        let pod = scene.pod(name, loops).await.unwrap();
        assert_eq!(
            (states::phase(&pod), states::waiting_reason(&pod)),
            ("Pending", "PodInitializing"),
            "{name}"
        );
        scene.delete(name, None).await.unwrap();
    }
}

#[tokio::test]
async fn rules_know_the_code_of_what_cannot_start_and_others_in_the_pod_run_on() {
    let scene = Scene::new("unstarted-rules").await.unwrap();
    let (ticker, broken) = (guests::image("ticker").await.unwrap(), broken().await);
    let mut spec = manifests::of(
        "Never",
        &json!({
            "image": broken, "restartPolicy": "Never",
            "restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "In", "values": [128]}}],
        }),
    );
    let other = json!({"name": "other", "image": ticker});
    spec["containers"].as_array_mut().unwrap().push(other);
    scene.run("two", spec).await.unwrap();
    let both = |pod: &Pod| {
        let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
        let runs =
            |status: &ContainerStatus| status.state.as_ref().is_some_and(|state| state.running.is_some());
        let (mut loops, mut goes_on) = (false, false);
        for status in statuses {
            loops |= is_unstarted(status) && status.restart_count > 0;
            goes_on |= status.name == "other" && runs(status);
        }
        loops && goes_on
    };
    let pod = scene.pod("two", both).await.unwrap();
    assert_eq!(states::phase(&pod), "Running");
    let ended = pod.status.as_ref().unwrap().container_statuses.as_ref().unwrap();
    let unstarted = ended.iter().find(|status| status.name != "other").and_then(end).unwrap();
    assert!(unstarted.message.as_deref().unwrap_or_default().contains("_start"), "{unstarted:?}");
    assert!(unstarted.container_id.is_some());
    scene.delete("two", Some(1)).await.unwrap();
}
