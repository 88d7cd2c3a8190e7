//! Single files of volumes, also where all around them is read-only.

use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::files::{outcomes, ran, spec};
use crate::scene::Scene;
use crate::states;

async fn put_objects(scene: &Scene<'_>) {
    let settings = json!({"data": {"colour": "blue"}, "metadata": {"name": "settings"}});
    scene.create::<ConfigMap>(settings).await.unwrap();
    let keys = json!({"stringData": {"password": "hunter2"}, "metadata": {"name": "keys"}});
    scene.create::<Secret>(keys).await.unwrap();
}

fn volumes() -> Value {
    json!([
        {"name": "work", "emptyDir": {}}, {"name": "settings", "configMap": {"name": "settings"}},
        {"name": "keys", "secret": {"secretName": "keys"}},
    ])
}

/// A spec whose first container does some things with `/work`, and whose second does others with its own mounts.
async fn after(first: &[&str], mounts: Value, commands: &[&str]) -> Value {
    let mut pod = spec(volumes(), mounts, commands).await;
    let mut initial = pod["containers"][0].clone();
    initial["name"] = "first".into();
    initial["args"] = json!(first);
    initial["volumeMounts"] = json!([{"name": "work", "mountPath": "/work"}]);
    pod["initContainers"] = json!([initial]);
    pod
}

/// What the container waits for, where the node may not mount.
async fn needs_mount(scene: &Scene<'_>, name: &str, spec: Value) {
    let waits = |pod: &Pod| states::waiting_reason(pod) == "CreateContainerError";
    let pod = scene.run_until(name, spec, waits).await.unwrap();
    let message = states::waiting(&pod).unwrap().message.clone().unwrap();
    assert!(message.contains("needs the right to mount"), "{message}");
}

#[tokio::test]
async fn a_single_file_is_written_under_a_read_only_root() {
    let scene = Scene::new("single-writes").await.unwrap();
    put_objects(&scene).await;
    let mounts = json!([
        {"name": "work", "mountPath": "/etc/app/state", "subPath": "state"},
        {"name": "work", "mountPath": "/etc/app/read", "subPath": "state", "readOnly": true},
        {"name": "work", "mountPath": "/all"},
    ]);
    let refused =
        ["write /etc/app/other x", "write /etc/app/read x", "write /top x", "remove /etc/app/state"];
    let mut commands =
        vec!["append /etc/app/state +more", "read /etc/app/read", "read /all/state", "list /etc/app"];
    commands.extend(refused);
    let mut pod = after(&["write /work/state begun"], mounts, &commands).await;
    pod["containers"][0]["securityContext"] = json!({"readOnlyRootFilesystem": true});
    if !rustix::process::geteuid().is_root() {
        return needs_mount(&scene, "p", pod).await;
    }
    let found = ran(&scene, "p", pod).await;
    assert_eq!(
        [&found["read /etc/app/read"], &found["read /all/state"]],
        ["begun+more", "begun+more"],
        "{found:?}"
    );
    assert_eq!(found["list /etc/app"], "read state");
    for command in refused {
        assert!(found[command].starts_with("error"), "{command}: {found:?}");
    }
}

#[tokio::test]
async fn a_single_file_lies_in_a_volume_that_is_only_read() {
    let scene = Scene::new("single-reads").await.unwrap();
    put_objects(&scene).await;
    let mounts = json!([
        {"name": "settings", "mountPath": "/cfg"},
        {"name": "keys", "mountPath": "/cfg/password", "subPath": "password"},
        {"name": "work", "mountPath": "/data", "readOnly": true},
        {"name": "keys", "mountPath": "/data/there", "subPath": "password"},
    ]);
    let commands = [
        "list /cfg",
        "read /cfg/password",
        "read /data/there",
        "write /cfg/password x",
        "follow /cfg/colour red",
    ];
    let pod = after(&["write /work/there of-the-volume"], mounts, &commands).await;
    if !rustix::process::geteuid().is_root() {
        return needs_mount(&scene, "p", pod).await;
    }
    let running = scene.run_until("p", pod, states::is_running).await.unwrap();
    let volume = |place: &str| scene.pod_directory(&running).join("volumes").join(place);
    let of_volume = std::fs::read_to_string(volume("kubernetes.io~empty-dir/work/there")).unwrap();
    assert_eq!(of_volume, "of-the-volume", "only the container sees what is mounted over it");
    assert_eq!(std::fs::read_to_string(volume("kubernetes.io~configmap/settings/password")).unwrap(), "");
    let red = Patch::Merge(json!({"data": {"colour": "red"}}));
    scene.api::<ConfigMap>().patch("settings", &PatchParams::default(), &red).await.unwrap();
    scene.pod("p", states::has_ended).await.unwrap();
    let found = outcomes(&scene, "p").await;
    assert!(found["list /cfg"].ends_with("..data colour password"), "{found:?}");
    assert_eq!([&found["read /cfg/password"], &found["read /data/there"]], ["hunter2", "hunter2"]);
    assert!(found["write /cfg/password x"].starts_with("error"), "{found:?}");
    scene.delete("p", Some(1)).await.unwrap();
    scene.gone("p").await.unwrap();
    assert!(!volume("").exists());

    let mounts = json!([
        {"name": "work", "mountPath": "/data", "readOnly": true},
        {"name": "keys", "mountPath": "/data/nowhere", "subPath": "password"},
    ]);
    let waits = |pod: &Pod| states::waiting_reason(pod) == "CreateContainerError";
    let pod = scene.run_until("nowhere", spec(volumes(), mounts, &[]).await, waits).await.unwrap();
    let message =
        "volumeMount \"keys\": /data/nowhere lies in a mount that is read-only and has no such file";
    assert_eq!(states::waiting(&pod).unwrap().message.as_deref(), Some(message));
    scene.event("nowhere", "Failed", message).await.unwrap();
}
