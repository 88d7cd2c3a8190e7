//! What ends a pod from outside: its deadline, an eviction, a drain, the end of the machine.

use std::os::unix::fs::PermissionsExt;

use coracle_testing::{Cluster, NodeOptions};
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{EvictParams, Patch, PatchParams, WatchEvent, WatchParams};
use serde_json::json;

use crate::scene::{LIMIT, Scene, options};
use crate::{guests, manifests, states};

#[tokio::test]
async fn a_deadline_ends_a_pod() {
    let scene = Scene::new("deadlines").await.unwrap();
    let image = guests::image("ticker").await.unwrap();
    let mut spec = manifests::app("Always", &image, &[]);
    spec["activeDeadlineSeconds"] = json!(2);
    scene.run("short", spec.clone()).await.unwrap();
    spec["activeDeadlineSeconds"] = json!(3600);
    scene.run_until("long", spec, states::is_running).await.unwrap();
    let shorter = Patch::Strategic(json!({"spec": {"activeDeadlineSeconds": 1}}));
    scene.api::<Pod>().patch("long", &PatchParams::default(), &shorter).await.unwrap();
    for name in ["short", "long"] {
        let pod = scene.pod(name, states::has_ended).await.unwrap();
        let status = pod.status.as_ref().unwrap();
        assert_eq!((states::phase(&pod), status.reason.as_deref()), ("Failed", Some("DeadlineExceeded")));
        let message = "Pod was active on the node longer than the specified deadline";
        assert_eq!(status.message.as_deref(), Some(message));
        assert_eq!(states::exit(&pod), Some((143, "Error")));
        let event = scene.event(name, "DeadlineExceeded", message).await.unwrap();
        assert_eq!(event.type_.as_deref(), Some("Normal"));
    }
}

/// The last that the API server shows of a pod before it is gone.
async fn last_seen(scene: &Scene<'_>, pod: &Pod) -> Pod {
    let params = WatchParams::default().fields(&format!("metadata.name={}", pod.name_any()));
    let watch = scene.api::<Pod>().watch(&params, &pod.resource_version().unwrap()).await.unwrap();
    let mut watch = Box::pin(watch);
    let mut last = pod.clone();
    let ended = async {
        while let Some(event) = watch.try_next().await.unwrap() {
            match event {
                WatchEvent::Added(pod) | WatchEvent::Modified(pod) => last = pod,
                _ => break,
            }
        }
    };
    tokio::time::timeout(LIMIT, ended).await.unwrap();
    last
}

#[tokio::test]
async fn an_evicted_pod_ends_and_says_who_ended_it() {
    let scene = Scene::new("evicts").await.unwrap();
    let image = guests::image("ticker").await.unwrap();
    let spec = manifests::app("Always", &image, &[]);
    let pod = scene.run_until("ticks", spec, states::is_running).await.unwrap();
    scene.api::<Pod>().evict("ticks", &EvictParams::default()).await.unwrap();
    let last = last_seen(&scene, &pod).await;
    assert_eq!((states::phase(&last), states::exit(&last)), ("Failed", Some((143, "Error"))));
    let disrupted = states::condition(&last, "DisruptionTarget").unwrap();
    assert_eq!((&*disrupted.status, disrupted.reason.as_deref()), ("True", Some("EvictionByEvictionAPI")));
    scene.gone("ticks").await.unwrap();
}

#[tokio::test]
async fn a_drained_node_is_empty_and_takes_pods_again_when_it_may() {
    let scene = Scene::new("drains").await.unwrap();
    let image = guests::image("ticker").await.unwrap();
    for name in ["a", "b"] {
        scene.run(name, manifests::app("Always", &image, &[])).await.unwrap();
    }
    for name in ["a", "b"] {
        scene.pod(name, states::is_running).await.unwrap();
    }
    let drained = scene.kubectl(&["drain", scene.node.name(), "--force", "--timeout=60s"]).await.unwrap();
    assert!(drained.status.success(), "{drained:?}");
    for name in ["a", "b"] {
        scene.gone(name).await.unwrap();
    }
    let hello = guests::image("hello").await.unwrap();
    scene.run("next", manifests::once(&hello, &[])).await.unwrap();
    let refused = |pod: &Pod| {
        states::condition(pod, "PodScheduled").is_some_and(|condition| condition.status == "False")
    };
    scene.pod("next", refused).await.unwrap();
    let opened = scene.kubectl(&["uncordon", scene.node.name()]).await.unwrap();
    assert!(opened.status.success(), "{opened:?}");
    scene.pod("next", states::has_ended).await.unwrap();
}

/// A node that gives pods time before the machine goes down.
async fn with_grace(name: &str) -> NodeOptions {
    let mut options = options(name).await.unwrap();
    let graces = ["--shutdown-grace-period=20s", "--shutdown-grace-period-critical-pods=10s"];
    options.arguments.extend(graces.map(str::to_owned));
    options
}

/// Runs an ordinary pod, a critical one and one that has ended.
async fn inhabit(scene: &Scene<'_>) {
    let (ticker, hello) = (guests::image("ticker").await.unwrap(), guests::image("hello").await.unwrap());
    let mut critical = manifests::app("Always", &ticker, &[]);
    critical["priorityClassName"] = json!("system-node-critical");
    scene.run("critical", critical).await.unwrap();
    let mut ordinary = manifests::app("Always", &ticker, &[]);
    ordinary["containers"][0]["lifecycle"] = json!({"preStop": {"sleep": {"seconds": 3}}});
    scene.run("ordinary", ordinary).await.unwrap();
    scene.run_until("done", manifests::once(&hello, &[]), states::has_ended).await.unwrap();
    for name in ["critical", "ordinary"] {
        scene.pod(name, states::is_running).await.unwrap();
    }
}

/// All that ran has ended for good, the critical pod after the ordinary one, and the node says why it is not Ready.
async fn check_machine_went_down(scene: &Scene<'_>) {
    let pods = scene.api::<Pod>();
    for name in ["critical", "ordinary"] {
        let pod = pods.get(name).await.unwrap();
        let status = pod.status.as_ref().unwrap();
        assert_eq!((states::phase(&pod), status.reason.as_deref()), ("Failed", Some("Terminated")), "{name}");
        let message = "Pod was terminated in response to imminent node shutdown.";
        assert_eq!(status.message.as_deref(), Some(message));
        assert_eq!(states::condition(&pod, "DisruptionTarget").unwrap().status, "True");
    }
    let ended = async |name| {
        let pod = pods.get(name).await.unwrap();
        states::terminated(&pod).and_then(|ended| ended.finished_at.clone()).unwrap()
    };
    assert!(ended("ordinary").await <= ended("critical").await, "by priority");
    assert_eq!(states::phase(&pods.get("done").await.unwrap()), "Succeeded");
    let node = scene.node_object().await.unwrap();
    let conditions = node.status.unwrap().conditions.unwrap_or_default();
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready").unwrap();
    assert_eq!(ready.status, "False");
    assert!(ready.message.as_deref().unwrap_or_default().contains("node is shutting down"), "{ready:?}");
}

#[tokio::test]
async fn when_the_power_fails_pods_end_for_good() {
    let cluster = Cluster::shared().await.unwrap();
    let scene = Scene::with(cluster, with_grace("loses-power").await).await.unwrap();
    inhabit(&scene).await;
    assert_eq!(scene.node.lose_power().await.unwrap().code(), Some(0));
    check_machine_went_down(&scene).await;
}

#[tokio::test]
async fn when_systemd_stops_the_system_pods_end_for_good() {
    let programs = tempfile::tempdir().unwrap();
    let systemctl = programs.path().join("systemctl");
    std::fs::write(&systemctl, "#!/bin/sh\n[ \"$1\" = is-system-running ] && echo stopping\nexit 1\n")
        .unwrap();
    std::fs::set_permissions(&systemctl, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut options = with_grace("system-stops").await;
    let path = format!("{}:{}", programs.path().display(), std::env::var("PATH").unwrap());
    options.environment.push(("PATH".to_owned(), path));
    let scene = Scene::with(Cluster::shared().await.unwrap(), options).await.unwrap();
    inhabit(&scene).await;
    assert_eq!(scene.node.terminate().await.unwrap().code(), Some(0));
    check_machine_went_down(&scene).await;
}
