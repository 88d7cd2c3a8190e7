//! Deployments.

use std::collections::BTreeSet;

use coracle_testing::{Artifact, wait};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;

use crate::scene::{LIMIT, Scene};
use crate::{guests, manifests, states, until};

/// Waits until the controller has seen the latest wish and all replicas, and no others, fulfil it.
async fn rolled_out(scene: &Scene<'_>, replicas: i32) -> DeploymentStatus {
    let done = |deployment: &Deployment| {
        let status = deployment.status.clone().unwrap_or_default();
        let counts = [status.replicas, status.updated_replicas, status.available_replicas];
        status.observed_generation == deployment.metadata.generation
            && counts.iter().all(|count| count.unwrap_or(0) == replicas)
    };
    wait::object(scene.api::<Deployment>(), "web", LIMIT, done).await.unwrap().status.unwrap()
}

async fn pods(scene: &Scene<'_>) -> Vec<Pod> {
    scene.api::<Pod>().list(&ListParams::default().labels("app=web")).await.unwrap().items
}

async fn patch(scene: &Scene<'_>, spec: serde_json::Value) {
    let (params, patch) = (PatchParams::default(), Patch::Strategic(json!({"spec": spec})));
    scene.api::<Deployment>().patch("web", &params, &patch).await.unwrap();
}

#[tokio::test]
async fn a_deployment_becomes_available_rolls_and_scales_to_nothing() {
    let scene = Scene::new("deploys").await.unwrap();
    let one = guests::push("rolling", "v1", &Artifact::cncf(guests::wasm("ticker").unwrap())).await.unwrap();
    let two = guests::push("rolling", "v2", &Artifact::cncf(guests::wasm("sleep").unwrap())).await.unwrap();
    let manifest = json!({"metadata": {"name": "web"}, "spec": {
        "replicas": 3,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": scene.placed(manifests::app("Always", &one, &[])),
        },
    }});
    scene.create::<Deployment>(manifest).await.unwrap();
    rolled_out(&scene, 3).await;
    let first = pods(&scene).await;
    assert!(first.iter().all(states::is_running));

    let image = json!({"template": {"spec": {"containers": [{"name": "app", "image": two}]}}});
    patch(&scene, image).await;
    rolled_out(&scene, 3).await;
    let uid = |pod: &Pod| pod.metadata.uid.clone();
    let old: BTreeSet<_> = first.iter().map(uid).collect();
    let running: Vec<_> = pods(&scene).await.into_iter().filter(|pod| !old.contains(&uid(pod))).collect();
    assert_eq!(running.len(), 3);
    for pod in &running {
        assert_eq!(states::status(pod).unwrap().image, two);
    }

    patch(&scene, json!({"replicas": 0})).await;
    rolled_out(&scene, 0).await;
    for pod in first.iter().chain(&running) {
        scene.gone(pod.metadata.name.as_deref().unwrap()).await.unwrap();
        until::so("the pod's directory is gone", || !scene.pod_directory(pod).exists()).await.unwrap();
    }
}
