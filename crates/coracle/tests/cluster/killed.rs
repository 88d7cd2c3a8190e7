//! An agent that is killed, and started again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::scene::Scene;
use crate::{files, guests, manifests, states, until};

#[tokio::test]
async fn a_killed_agent_takes_up_where_it_was() {
    let mut scene = Scene::new("killed").await.unwrap();
    let (ticker, hello) = (guests::image("ticker").await.unwrap(), guests::image("hello").await.unwrap());
    let exit = guests::image("exit-code").await.unwrap();
    for (name, policy) in [("always", "Always"), ("onfailure", "OnFailure"), ("never", "Never")] {
        scene.run(name, manifests::app(policy, &ticker, &[])).await.unwrap();
    }
    let done = scene.run_until("done", manifests::once(&hello, &[]), states::has_ended).await.unwrap();
    let failed = scene.run_until("failed", manifests::once(&exit, &["4"]), states::has_ended).await.unwrap();
    for name in ["always", "onfailure", "never"] {
        scene.pod(name, states::is_running).await.unwrap();
    }
    scene.node.kill().await.unwrap();
    scene.node.restart().await.unwrap();

    let again = |pod: &Pod| states::restarts(pod) == 1 && states::is_running(pod);
    for name in ["always", "onfailure"] {
        let pod = scene.pod(name, again).await.unwrap();
        assert_eq!(states::last(&pod).unwrap().exit_code, 137);
        check_logs(&scene, name).await;
    }
    let never = scene.pod("never", states::has_ended).await.unwrap();
    assert_eq!(states::phase(&never), "Failed");
    assert_eq!(states::exit(&never), Some((137, "ContainerStatusUnknown")));
    for before in [done, failed] {
        let after = scene.pod(&before.name_any(), states::has_ended).await.unwrap();
        assert_eq!(states::terminated(&after), states::terminated(&before));
        assert_eq!((states::phase(&after), states::restarts(&after)), (states::phase(&before), 0));
        let runs = std::fs::read_dir(scene.pod_logs(&before).join("app")).unwrap().count();
        assert_eq!(runs, 1, "{} ran once", before.name_any());
    }
    assert_eq!(scene.logs("done", &[]).await.unwrap(), "hello from a guest\n");
}

/// The interrupted run and the one after it have each its own log.
async fn check_logs(scene: &Scene<'_>, pod: &str) {
    let log = scene.log_file(&scene.pod(pod, |_| true).await.unwrap(), "app", 1);
    until::so("the second run prints", || std::fs::read(&log).is_ok_and(|text| !text.is_empty()))
        .await
        .unwrap();
    let current = scene.logs(pod, &["--timestamps"]).await.unwrap();
    let previous = scene.logs(pod, &["--timestamps", "--previous"]).await.unwrap();
    let first = |log: &str| {
        let (time, line) = log.lines().next().unwrap().split_once(' ').unwrap();
        (time.parse::<jiff::Timestamp>().unwrap(), line.to_owned())
    };
    let (current, previous) = (first(&current), first(&previous));
    assert_eq!((&*current.1, &*previous.1), ("tick 0001", "tick 0001"));
    assert!(previous.0 < current.0, "{previous:?} {current:?}");
}

#[tokio::test]
async fn pods_deleted_while_the_agent_was_away_are_gone_after_it_is_back() {
    let mut scene = Scene::new("was-away").await.unwrap();
    let image = guests::image("ticker").await.unwrap();
    let mut pods = Vec::new();
    for name in ["gracefully", "by-force", "finished"] {
        let guest = if name == "finished" { guests::image("hello").await.unwrap() } else { image.clone() };
        scene.run(name, manifests::app("Always", &guest, &[])).await.unwrap();
    }
    for name in ["gracefully", "by-force"] {
        pods.push(scene.pod(name, states::is_running).await.unwrap());
    }
    pods.push(scene.pod("finished", |pod| states::restarts(pod) == 1).await.unwrap());
    scene.node.kill().await.unwrap();
    scene.delete("gracefully", None).await.unwrap();
    scene.delete("finished", None).await.unwrap();
    scene.delete("by-force", Some(0)).await.unwrap();
    assert!(pods.iter().all(|pod| scene.pod_directory(pod).exists()));

    scene.node.restart().await.unwrap();
    for pod in &pods {
        scene.gone(&pod.name_any()).await.unwrap();
        let is_left = || scene.pod_directory(pod).exists() || scene.pod_logs(pod).exists();
        until::so("its directories are gone", || !is_left()).await.unwrap();
    }
    let next = scene.run_until("next", manifests::app("Always", &image, &[]), states::is_running);
    assert_eq!(states::restarts(&next.await.unwrap()), 0);
}

const KEYS: usize = 20;

fn generation(number: u64) -> BTreeMap<String, String> {
    (0..KEYS).map(|key| (format!("key-{key}"), format!("generation {number}"))).collect()
}

/// The texts that one who opens the files of a volume now reads.
fn read(volume: &Path) -> BTreeSet<String> {
    let payload = volume.join("..data").canonicalize().unwrap();
    (0..KEYS).map(|key| std::fs::read_to_string(payload.join(format!("key-{key}"))).unwrap()).collect()
}

/// Between which two calls of the system's it was killed, nobody knows; the writer's own tests try them all.
#[tokio::test]
async fn a_volume_is_whole_whenever_the_agent_is_killed() {
    let mut scene = Scene::new("killed-writes").await.unwrap();
    let settings = json!({"metadata": {"name": "settings"}, "data": generation(0)});
    scene.create::<ConfigMap>(settings).await.unwrap();
    let volumes = json!([{"name": "v", "configMap": {"name": "settings"}}]);
    let mounts = json!([{"name": "v", "mountPath": "/v"}]);
    let mut spec = files::spec(volumes, mounts, &["sleep 600"]).await;
    spec["restartPolicy"] = "Always".into();
    let pod = scene.run_until("p", spec, states::is_running).await.unwrap();
    let volume = scene.pod_directory(&pod).join("volumes/kubernetes.io~configmap/v");
    let mut number = 0;
    for kill in 0..10 {
        for _ in 0..5 {
            number += 1;
            let next = Patch::Merge(json!({"data": generation(number)}));
            scene.api::<ConfigMap>().patch("settings", &PatchParams::default(), &next).await.unwrap();
        }
        // Not for anything to happen, but to be in the midst of what happens.
        tokio::time::sleep(Duration::from_millis(kill)).await;
        scene.node.kill().await.unwrap();
        let seen = read(&volume);
        assert_eq!(seen.len(), 1, "{seen:?}");
        scene.node.restart().await.unwrap();
    }
    let last = format!("generation {number}");
    until::so("the last generation", || read(&volume).into_iter().eq([last.clone()])).await.unwrap();
    let entries = || std::fs::read_dir(&volume).unwrap().count();
    until::so("nothing else is left", || entries() == KEYS + 2).await.unwrap();
}
