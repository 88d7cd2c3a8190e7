//! What a pod's life costs the API server.

use futures::TryStreamExt;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::ResourceExt;
use kube::api::{ListParams, WatchEvent, WatchParams};

use crate::scene::{LIMIT, Scene};
use crate::{guests, manifests, states};

/// All states in which the API server has shown a pod until it had ended.
async fn history(scene: &Scene<'_>, pod: &Pod) -> Vec<Pod> {
    let params = WatchParams::default().fields(&format!("metadata.name={}", pod.name_any()));
    let watch = scene.api::<Pod>().watch(&params, &pod.resource_version().unwrap()).await.unwrap();
    let mut watch = Box::pin(watch);
    let mut seen = Vec::new();
    let ended = async {
        while !seen.last().is_some_and(states::has_ended) {
            match watch.try_next().await.unwrap() {
                Some(WatchEvent::Added(pod) | WatchEvent::Modified(pod)) => seen.push(pod),
                other => panic!("{other:?}"),
            }
        }
    };
    tokio::time::timeout(LIMIT, ended).await.unwrap();
    seen
}

/// The Events about a pod by their reasons, the first seconds of its life long.
async fn reasons(scene: &Scene<'_>, pod: &str) -> Vec<String> {
    let params = ListParams::default().fields(&format!("involvedObject.kind=Pod,involvedObject.name={pod}"));
    let events = scene.api::<Event>().list(&params).await.unwrap().items;
    let mut reasons: Vec<String> = events.into_iter().filter_map(|event| event.reason).collect();
    reasons.sort_unstable();
    reasons
}

#[tokio::test]
async fn a_plain_life_costs_few_writes_and_the_kubelets_events() {
    let scene = Scene::new("writes").await.unwrap();
    // So long that its end is a write of its own, and a sandbox would have been told of.
    let artifact = coracle_testing::Artifact::cncf(guests::nap(7).unwrap());
    let image = guests::push("nap", "seven", &artifact).await.unwrap();
    let mut spec = scene.placed(manifests::once(&image, &[]));
    spec["nodeName"] = scene.node.name().into();
    // Without it a node that knows no cluster DNS says so in an Event, as a kubelet does.
    spec["dnsPolicy"] = "Default".into();
    for (name, expected) in [
        ("pulls", &["Created", "Pulled", "Pulling", "Started"][..]),
        ("has-it", &["Created", "Pulled", "Started"][..]),
    ] {
        let pod: Pod = scene.create(manifests::pod(name, &spec)).await.unwrap();
        let seen = history(&scene, &pod).await;
        let phases: Vec<&str> = seen.iter().map(states::phase).collect();
        // That it begins is told only where the machine takes longer than a moment for it.
        let told = phases.strip_prefix(&["Pending"]).unwrap_or(&phases);
        assert_eq!(told, ["Running", "Succeeded"], "{seen:#?}");
        scene.event(name, "Started", "").await.unwrap();
        assert_eq!(reasons(&scene, name).await, expected);
    }
}
