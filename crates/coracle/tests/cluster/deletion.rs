//! Pods that are deleted, by force or not, and made again.

use std::time::Instant;

use coracle_testing::wait;
use futures::{Stream, TryStreamExt};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{WatchEvent, WatchParams};
use serde_json::json;

use crate::scene::{LIMIT, Scene};
use crate::{guests, manifests, states, until};

/// All a watch says of a pod until it is gone, the last first.
async fn until_deleted(
    mut watch: impl Stream<Item = kube::Result<WatchEvent<Pod>>> + Unpin,
) -> anyhow::Result<Vec<Pod>> {
    let mut seen = Vec::new();
    while let Some(event) = watch.try_next().await? {
        match event {
            WatchEvent::Added(pod) | WatchEvent::Modified(pod) => seen.insert(0, pod),
            WatchEvent::Deleted(_) => break,
            other => anyhow::bail!("{other:?}"),
        }
    }
    Ok(seen)
}

#[tokio::test]
async fn the_end_of_a_pod_is_seen_before_it_goes() {
    let scene = Scene::new("deletes").await.unwrap();
    let image = guests::image("spin").await.unwrap();
    let pod =
        scene.run_until("spins", manifests::app("Always", &image, &[]), states::is_running).await.unwrap();
    let params = WatchParams::default().fields("metadata.name=spins");
    let watch = scene.api::<Pod>().watch(&params, &pod.resource_version().unwrap()).await.unwrap();

    let began = Instant::now();
    scene.delete("spins", None).await.unwrap();
    let seen = tokio::time::timeout(LIMIT, until_deleted(Box::pin(watch))).await.unwrap().unwrap();
    let took = began.elapsed();
    // The guest has 30 seconds of grace, of which one that cannot hear needs nothing.
    assert!(took.as_secs() < 10, "{took:?}");
    assert!(seen.last().unwrap().metadata.deletion_timestamp.is_some());
    let end = seen.first().unwrap();
    assert_eq!((states::phase(end), states::exit(end)), ("Failed", Some((143, "Error"))));
    for kind in ["Ready", "ContainersReady"] {
        assert_eq!(states::condition(end, kind).unwrap().status, "False", "{kind}");
    }
    scene.event("spins", "Killing", "Stopping container app").await.unwrap();
    until::so("its directories are gone", || !left(&scene, &pod)).await.unwrap();
    until::idle(scene.node.process_id()).await.unwrap();
}

/// Whether anything of the pod is left on the node.
fn left(scene: &Scene<'_>, pod: &Pod) -> bool {
    scene.pod_directory(pod).exists() || scene.pod_logs(pod).exists()
}

#[tokio::test]
async fn a_pod_deleted_by_force_leaves_nothing() {
    let scene = Scene::new("forced").await.unwrap();
    let (spin, ticker) = (guests::image("spin").await.unwrap(), guests::image("ticker").await.unwrap());
    let spec = json!({"restartPolicy": "Always", "containers": [
        {"name": "spin", "image": spin}, {"name": "tick", "image": ticker},
    ]});
    let both =
        |pod: &Pod| states::condition(pod, "Ready").is_some_and(|condition| condition.status == "True");
    let pod = scene.run_until("spins", spec, both).await.unwrap();
    until::so("it has its directories", || left(&scene, &pod)).await.unwrap();
    let output = scene.kubectl(&["delete", "pod", "spins", "--force", "--grace-period=0"]).await.unwrap();
    assert!(output.status.success(), "{output:?}");
    until::so("its directories are gone", || !left(&scene, &pod)).await.unwrap();
    until::idle(scene.node.process_id()).await.unwrap();
    let uid = pod.uid().unwrap();
    let open = until::open_files(scene.node.process_id());
    assert!(!open.iter().any(|path| path.to_string_lossy().contains(&uid)), "{open:?}");
}

#[tokio::test]
async fn a_pod_of_a_name_that_was_there_before_is_another() {
    let scene = Scene::new("again").await.unwrap();
    let (ticker, hello) = (guests::image("ticker").await.unwrap(), guests::image("hello").await.unwrap());
    let old =
        scene.run_until("name", manifests::app("Always", &ticker, &[]), states::is_running).await.unwrap();
    scene.delete("name", Some(0)).await.unwrap();
    let spec = manifests::once(&hello, &[]);
    let new = scene.run_until("name", spec, states::has_ended).await.unwrap();
    assert_ne!(new.uid(), old.uid());
    assert_eq!((states::phase(&new), states::restarts(&new)), ("Succeeded", 0));
    assert_eq!(scene.logs("name", &[]).await.unwrap(), "hello from a guest\n");
    until::so("the old one's directories are gone", || !left(&scene, &old)).await.unwrap();
    assert!(left(&scene, &new));
}

#[tokio::test]
async fn a_stateful_set_gets_its_pod_back() {
    let scene = Scene::new("stateful").await.unwrap();
    let image = guests::image("ticker").await.unwrap();
    let manifest = json!({"metadata": {"name": "db"}, "spec": {
        "replicas": 1,
        "serviceName": "db",
        "selector": {"matchLabels": {"app": "db"}},
        "template": {
            "metadata": {"labels": {"app": "db"}},
            "spec": scene.placed(manifests::app("Always", &image, &[])),
        },
    }});
    scene.create::<StatefulSet>(manifest).await.unwrap();
    let old = scene.pod("db-0", states::is_running).await.unwrap();
    scene.delete("db-0", None).await.unwrap();
    let new = scene.pod("db-0", |pod| pod.uid() != old.uid() && states::is_running(pod)).await.unwrap();
    assert_eq!(states::restarts(&new), 0);
    let ready =
        |set: &StatefulSet| set.status.as_ref().is_some_and(|status| status.ready_replicas == Some(1));
    wait::object(scene.api::<StatefulSet>(), "db", LIMIT, ready).await.unwrap();
    let log = scene.log_file(&new, "app", 0);
    let text = until::found("a line", || std::fs::read_to_string(&log).ok().filter(|text| !text.is_empty()));
    assert!(text.await.unwrap().lines().next().unwrap().ends_with(" stdout F tick 0001"));
    until::so("the old one's directories are gone", || !left(&scene, &old)).await.unwrap();
}

#[tokio::test]
async fn a_guest_that_hears_nothing_is_stopped_all_the_same() {
    let scene = Scene::new("deaf").await.unwrap();
    let guests = ["sleep", "sleep-rust", "sleep-rust-p2", "spin-in-start-section"];
    for guest in guests {
        let image = guests::image(guest).await.unwrap();
        scene.run(guest, manifests::app("Always", &image, &[])).await.unwrap();
    }
    for guest in guests {
        scene.event(guest, "Pulled", "Successfully pulled image").await.unwrap();
        // One that never gets through its start section may never be called running.
        if guest != "spin-in-start-section" {
            scene.pod(guest, states::is_running).await.unwrap();
        }
    }
    let began = Instant::now();
    for guest in guests {
        scene.delete(guest, None).await.unwrap();
    }
    for guest in guests {
        scene.gone(guest).await.unwrap();
    }
    assert!(began.elapsed().as_secs() < 10, "{:?}", began.elapsed());
    until::idle(scene.node.process_id()).await.unwrap();
}

#[tokio::test]
async fn a_pod_that_never_started_is_deleted_at_once() {
    let scene = Scene::new("unstarted").await.unwrap();
    let image = guests::registry().await.unwrap().image("nothing:v1");
    let fails = |pod: &Pod| states::waiting_reason(pod).contains("ImagePull");
    let pod = scene.run_until("pulls", manifests::app("Always", &image, &[]), fails).await.unwrap();
    scene.delete("pulls", None).await.unwrap();
    scene.gone("pulls").await.unwrap();
    until::so("its directories are gone", || !left(&scene, &pod)).await.unwrap();
}
