//! What others say of a pod: readiness gates, and which generation of the spec the node has seen.

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::scene::Scene;
use crate::{guests, manifests, states};

const GATE: &str = "example.com/open";

async fn say(scene: &Scene<'_>, pod: &str, status: &str) {
    let patch = json!({"status": {"conditions": [{"type": GATE, "status": status}]}});
    scene.api::<Pod>().patch_status(pod, &PatchParams::default(), &Patch::Strategic(patch)).await.unwrap();
}

async fn change(scene: &Scene<'_>, pod: &str, spec: Value) -> Pod {
    let patch = Patch::Strategic(json!({"spec": spec}));
    scene.api::<Pod>().patch(pod, &PatchParams::default(), &patch).await.unwrap()
}

#[tokio::test]
async fn a_pod_is_ready_when_its_gates_are_open() {
    let scene = Scene::new("ready-gates").await.unwrap();
    let mut spec = manifests::app("Always", &guests::image("sleep").await.unwrap(), &[]);
    spec["readinessGates"] = json!([{"conditionType": GATE}]);
    let says = |pod: &Pod, status: &str, message: Option<&str>| {
        states::condition(pod, "Ready")
            .is_some_and(|ready| ready.status == status && ready.message.as_deref() == message)
    };
    let missing = format!("corresponding condition of pod readiness gate {GATE:?} does not exist.");
    let pod = scene.run_until("gated", spec, |pod| says(pod, "False", Some(&missing))).await.unwrap();
    assert_eq!(states::condition(&pod, "Ready").unwrap().reason.as_deref(), Some("ReadinessGatesNotReady"));
    assert_eq!(states::condition(&pod, "ContainersReady").unwrap().status, "True");
    say(&scene, "gated", "True").await;
    scene.pod("gated", |pod| says(pod, "True", None)).await.unwrap();
    say(&scene, "gated", "False").await;
    let closed = format!("the status of pod readiness gate {GATE:?} is not \"True\", but False");
    let pod = scene.pod("gated", |pod| says(pod, "False", Some(&closed))).await.unwrap();
    assert_eq!(states::condition(&pod, GATE).unwrap().status, "False");
}

#[tokio::test]
async fn the_generation_that_the_node_has_seen_is_told() {
    let scene = Scene::new("generations").await.unwrap();
    let seen = |pod: &Pod| pod.status.as_ref().and_then(|status| status.observed_generation);
    let spec = manifests::app("Always", &guests::image("sleep").await.unwrap(), &[]);
    let pod = scene.run_until("runs", spec, states::is_running).await.unwrap();
    assert_eq!((pod.metadata.generation, seen(&pod)), (Some(1), Some(1)));
    let toleration = json!({"key": "example.com/new", "operator": "Exists"});
    let mut tolerations = json!(pod.spec.as_ref().unwrap().tolerations);
    tolerations.as_array_mut().unwrap().push(toleration);
    change(&scene, "runs", json!({"tolerations": tolerations})).await;
    let pod = scene.pod("runs", |pod| seen(pod) == Some(2)).await.unwrap();
    let of_ready = states::condition(&pod, "Ready").unwrap().observed_generation;
    assert_eq!((states::restarts(&pod), of_ready), (0, Some(2)));
    let spec = manifests::app("Always", "127.0.0.1:1/missing:v1", &[]);
    scene.run_until("pending", spec, |pod| seen(pod) == Some(1)).await.unwrap();
    change(&scene, "pending", json!({"activeDeadlineSeconds": 3600})).await;
    scene.pod("pending", |pod| seen(pod) == Some(2)).await.unwrap();
    let spec = manifests::of("Always", &json!({"image": "x", "resources": {"requests": {"cpu": "900"}}}));
    let mut bound = scene.placed(spec);
    bound["nodeName"] = scene.node.name().into();
    scene.create::<Pod>(manifests::pod("refused", &bound)).await.unwrap();
    let pod = scene.pod("refused", states::has_ended).await.unwrap();
    assert_eq!(seen(&pod), Some(1));
}
