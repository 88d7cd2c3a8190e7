//! Guests that put more on the disk and into memory than they may.

use k8s_openapi::api::core::v1::{Pod, Secret};
use serde_json::{Value, json};

use crate::files::{outcomes, ran, spec};
use crate::scene::Scene;
use crate::{states, until};

/// Waits until a pod was evicted with this message, and told so.
async fn is_evicted(scene: &Scene<'_>, pod: &str, message: &str) {
    let ended = scene.pod(pod, states::has_ended).await.unwrap();
    let status = ended.status.as_ref().unwrap();
    assert_eq!(
        (status.phase.as_deref(), status.reason.as_deref()),
        (Some("Failed"), Some("Evicted")),
        "{pod}"
    );
    assert_eq!(status.message.as_deref(), Some(message));
    let condition = states::condition(&ended, "DisruptionTarget").unwrap();
    assert_eq!(
        (condition.status.as_str(), condition.reason.as_deref(), condition.message.as_deref()),
        ("True", Some("TerminationByKubelet"), Some(message))
    );
    scene.event(pod, "Evicted", message).await.unwrap();
}

fn limit(spec: &mut Value, resource: &str, limit: &str) {
    spec["containers"][0]["resources"] = json!({"limits": {resource: limit}});
}

#[tokio::test]
async fn who_writes_more_than_its_disk_is_evicted() {
    let scene = Scene::new("disk-limits").await.unwrap();
    let nothing = || json!([]);
    let mut root = spec(nothing(), nothing(), &["fill /file 3000000", "sleep 600"]).await;
    limit(&mut root, "ephemeral-storage", "1Mi");
    scene.run("root", root).await.unwrap();
    let mut log = spec(nothing(), nothing(), &["say 3000", "sleep 600"]).await;
    limit(&mut log, "ephemeral-storage", "2Mi");
    scene.run("log", log).await.unwrap();
    let mounts = json!([{"name": "v", "mountPath": "/v"}]);
    let mut volume =
        spec(json!([{"name": "v", "emptyDir": {}}]), mounts, &["fill /v/file 3000000", "sleep 600"]).await;
    limit(&mut volume, "ephemeral-storage", "2Mi");
    scene.run("volume", volume).await.unwrap();
    // The pod may have more than that in all.
    let mut one = spec(nothing(), nothing(), &["fill /file 3000000", "sleep 600"]).await;
    limit(&mut one, "ephemeral-storage", "1Mi");
    let mut other = one["containers"][0].clone();
    other["name"] = "other".into();
    other["args"] = json!(["sleep 600"]);
    other["resources"] = json!({"limits": {"ephemeral-storage": "100Mi"}});
    one["containers"].as_array_mut().unwrap().push(other);
    scene.run("one", one).await.unwrap();
    let of_pod = |limit: &str| {
        format!("Pod ephemeral local storage usage exceeds the total limit of containers {limit}. ")
    };
    for (pod, message) in [
        ("root", of_pod("1Mi")),
        ("log", of_pod("2Mi")),
        ("volume", of_pod("2Mi")),
        ("one", "Container app exceeded its local ephemeral storage limit \"1Mi\". ".to_owned()),
    ] {
        is_evicted(&scene, pod, &message).await;
    }
}

#[tokio::test]
async fn who_fills_memory_takes_no_room_from_secrets() {
    let scene = Scene::new("memory-bounds").await.unwrap();
    let keys = json!({"stringData": {"password": "hunter2"}, "metadata": {"name": "keys"}});
    scene.create::<Secret>(keys).await.unwrap();
    let volumes = json!([{"name": "m", "emptyDir": {"medium": "Memory"}}]);
    let mounts = json!([{"name": "m", "mountPath": "/m"}]);
    let commands =
        ["write /m/kept x", "fill /m/file 100000000", "size /m/file", "fill /m/more 10000", "sleep 600"];
    let mut fills = spec(volumes, mounts, &commands).await;
    limit(&mut fills, "memory", "32Mi");
    let pod = scene.run_until("fills", fills, states::is_running).await.unwrap();
    let file = scene.pod_directory(&pod).join("volumes/kubernetes.io~empty-dir/m/file");
    let log = scene.log_file(&pod, "app", 0);
    let is_full = || std::fs::read_to_string(&log).unwrap_or_default().contains("fill /m/more 10000: ");
    until::so("the guest has filled its memory", is_full).await.unwrap();
    if let Ok(found) = std::fs::metadata(&file) {
        assert!(found.len() <= (32 << 20) + (1 << 20), "{}", found.len());
    }
    let secret = json!([{"name": "s", "secret": {"secretName": "keys"}}]);
    let reads = spec(secret, json!([{"name": "s", "mountPath": "/s"}]), &["read /s/password"]).await;
    assert_eq!(ran(&scene, "reads", reads).await["read /s/password"], "hunter2");
    let said = outcomes(&scene, "fills").await;
    if rustix::process::geteuid().is_root() {
        assert!(said["fill /m/file 100000000"].starts_with("error"), "{said:?}");
        let still = scene.api::<Pod>().get("fills").await.unwrap();
        assert!(states::is_running(&still), "what is bounded by its file system is no reason to end");
    }
    scene.delete("fills", Some(1)).await.unwrap();
    scene.gone("fills").await.unwrap();
    assert!(!file.exists());
}

#[tokio::test]
async fn directories_of_any_depth_go_with_their_pod() {
    let scene = Scene::new("nested").await.unwrap();
    let volumes = json!([{"name": "v", "emptyDir": {}}, {"name": "w", "emptyDir": {"sizeLimit": "100Mi"}}]);
    let mounts = json!([{"name": "v", "mountPath": "/v"}, {"name": "w", "mountPath": "/w"}]);
    let commands = ["nest /v 5000", "nest /w 5000", "sleep 600"];
    let pod = scene.run_until("p", spec(volumes, mounts, &commands).await, states::is_running).await.unwrap();
    let message = "Usage of EmptyDir volume \"w\" exceeds the limit \"100Mi\". ";
    is_evicted(&scene, "p", message).await;
    assert_eq!(outcomes(&scene, "p").await["nest /v 5000"], "ok");
    scene.delete("p", Some(1)).await.unwrap();
    scene.gone("p").await.unwrap();
    let directory = scene.pod_directory(&pod);
    until::so("the pod's files are gone", || !directory.exists()).await.unwrap();
    assert!(!scene.node.log().unwrap().contains("panicked"));
}
