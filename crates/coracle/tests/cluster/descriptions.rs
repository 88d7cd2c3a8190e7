//! How a pod is described while it runs and after it has ended.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::json;

use crate::scene::Scene;
use crate::{guests, manifests, states};

/// The status of each condition the kubelet keeps.
fn conditions(pod: &Pod) -> Vec<(&str, &str)> {
    let kinds = ["PodScheduled", "PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready"];
    let status = |kind| states::condition(pod, kind).map_or("missing", |condition| condition.status.as_str());
    kinds.into_iter().map(|kind| (kind, status(kind))).collect()
}

#[tokio::test]
async fn a_running_pod_is_described_in_full() {
    let scene = Scene::new("describes").await.unwrap();
    let image = guests::image("ticker").await.unwrap();
    let resources = json!({"requests": {"cpu": "1m", "memory": "4Mi"}, "limits": {"memory": "16Mi"}});
    let spec = manifests::of("Always", &json!({"image": image, "resources": resources}));
    let pod = scene.run_until("ticks", spec, states::is_running).await.unwrap();
    let status = pod.status.as_ref().unwrap();
    assert_eq!((states::phase(&pod), status.qos_class.as_deref()), ("Running", Some("Burstable")));
    assert!(conditions(&pod).iter().all(|(_, status)| *status == "True"), "{:?}", conditions(&pod));
    assert!(status.start_time.is_some());
    assert_eq!(status.host_ip.as_deref(), Some("127.0.0.1"));
    assert_eq!(status.pod_ip, status.pod_ips.as_ref().map(|all| all[0].ip.clone()));
    assert_eq!(status.observed_generation, pod.metadata.generation);

    let app = states::status(&pod).unwrap();
    assert!(app.ready && app.started == Some(true) && app.restart_count == 0);
    assert_eq!(app.image, image);
    assert!(app.image_id.contains("ticker@sha256:"), "{}", app.image_id);
    let id = app.container_id.as_deref().unwrap();
    let info = scene.node_object().await.unwrap().status.unwrap().node_info.unwrap();
    let runtime = info.container_runtime_version.split_once("://").unwrap().0.to_owned();
    assert!(id.starts_with(&format!("{runtime}://")), "{id}");

    for (reason, part) in [
        ("Scheduled", scene.node.name()),
        ("Pulling", "Pulling image"),
        ("Pulled", "Successfully pulled image"),
        ("Created", "ontainer"),
        ("Started", "ontainer"),
    ] {
        let event = scene.event("ticks", reason, part).await.unwrap();
        assert_eq!((event.type_.as_deref(), event.involved_object.uid), (Some("Normal"), pod.uid()));
    }
}

#[tokio::test]
async fn a_finished_pod_is_described_in_full() {
    let scene = Scene::new("described").await.unwrap();
    let image = guests::image("hello").await.unwrap();
    let pod = scene.run_until("hello", manifests::once(&image, &[]), states::has_ended).await.unwrap();
    assert_eq!(pod.status.as_ref().unwrap().qos_class.as_deref(), Some("BestEffort"));
    let app = states::status(&pod).unwrap();
    assert!(!app.ready && app.started == Some(false));
    let ended = states::terminated(&pod).unwrap();
    assert!(ended.started_at.is_some() && ended.finished_at >= ended.started_at);
    assert_eq!(ended.container_id, app.container_id);
    for kind in ["ContainersReady", "Ready"] {
        let condition = states::condition(&pod, kind).unwrap();
        assert_eq!(
            (&*condition.status, condition.reason.as_deref()),
            ("False", Some("PodCompleted")),
            "{kind}"
        );
    }
    // A condition that is another's stays.
    let patch = json!({"status": {"conditions": [{"type": "example.com/seen", "status": "True"}]}});
    let (params, patch) = (kube::api::PatchParams::default(), kube::api::Patch::Strategic(patch));
    scene.api::<Pod>().patch_status("hello", &params, &patch).await.unwrap();
    let running = scene.run_until("next", manifests::once(&image, &[]), states::has_ended).await.unwrap();
    assert_eq!(states::phase(&running), "Succeeded");
    let kept = scene.pod("hello", |_| true).await.unwrap();
    assert_eq!(states::condition(&kept, "example.com/seen").unwrap().status, "True");
}
