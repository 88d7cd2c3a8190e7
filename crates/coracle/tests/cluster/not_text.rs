//! Bytes that are no text, wherever they may come from.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use coracle_testing::{Cluster, NodeOptions};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::files::{ran, spec};
use crate::scene::{Scene, options};
use crate::states;

/// Whether a pod waits for its configuration with this message.
fn waits(message: String) -> impl Fn(&Pod) -> bool {
    move |pod| {
        states::waiting(pod).is_some_and(|waiting| {
            waiting.reason.as_deref() == Some("CreateContainerConfigError")
                && waiting.message.as_deref() == Some(&message)
        })
    }
}

#[tokio::test]
async fn a_variable_that_is_no_text_is_named_and_awaited() {
    let scene = Scene::new("no-text").await.unwrap();
    // 0xff, and a zero byte, with which a variable ends.
    let keys = json!({"data": {"bytes": "/w==", "plain": "eA=="}, "metadata": {"name": "keys"}});
    scene.create::<Secret>(keys).await.unwrap();
    let zero = json!({"data": {"zero": "YQBi"}, "metadata": {"name": "zero"}});
    scene.create::<Secret>(zero).await.unwrap();
    let reference = |name: &str, key: &str| json!({"valueFrom": {"secretKeyRef": {"name": name, "key": key}}, "name": "V"});
    let cases = [
        ("one", json!({"env": [reference("keys", "bytes")]}), "bytes", "keys"),
        ("all", json!({"envFrom": [{"secretRef": {"name": "keys"}}]}), "bytes", "keys"),
        ("zero", json!({"env": [reference("zero", "zero")]}), "zero", "zero"),
    ];
    let with = async |fields: &Value| {
        let mut spec = spec(json!([]), json!([]), &["list /"]).await;
        spec["containers"][0].as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        spec
    };
    for (pod, fields, key, name) in &cases {
        scene.run(pod, with(fields).await).await.unwrap();
        let namespace = &scene.namespace;
        let message = format!(
            "key {key} in Secret {namespace}/{name} is not text, as an environment variable has to be"
        );
        scene.pod(pod, waits(message.clone())).await.unwrap();
        scene.event(pod, "Failed", &format!("Error: {message}")).await.unwrap();
    }
    scene
        .run_until("plain", with(&json!({"env": [reference("keys", "plain")]})).await, states::has_ended)
        .await
        .unwrap();
    for (name, key) in [("keys", "bytes"), ("zero", "zero")] {
        let text = Patch::Merge(json!({"stringData": {key: "text"}}));
        scene.api::<Secret>().patch(name, &PatchParams::default(), &text).await.unwrap();
    }
    for (pod, ..) in &cases {
        scene.pod(pod, states::has_ended).await.unwrap();
    }
}

#[tokio::test]
async fn a_file_of_variables_that_is_no_text_is_named() {
    let scene = Scene::new("no-text-file").await.unwrap();
    let volumes = json!([{"name": "work", "emptyDir": {}}]);
    let mounts = json!([{"name": "work", "mountPath": "/work"}]);
    // V='<0xff>'
    let mut pod_spec = spec(volumes, mounts.clone(), &["list /"]).await;
    let mut first = pod_spec["containers"][0].clone();
    first["name"] = "first".into();
    first["args"] = json!(["bytes /work/env 563d27ff27"]);
    let file = json!({"volumeName": "work", "path": "env", "key": "V"});
    pod_spec["containers"][0]["env"] = json!([{"name": "V", "valueFrom": {"fileKeyRef": file}}]);
    pod_spec["containers"][0]["volumeMounts"] = json!([]);
    pod_spec["initContainers"] = json!([first]);
    let message = "couldn't parse the env file env of volume \"work\": not UTF-8";
    scene.run_until("p", pod_spec, waits(message.to_owned())).await.unwrap();
    scene.event("p", "Failed", message).await.unwrap();
}

/// A guest names what it opens in UTF-8: other names it cannot list nor reach, and what lies beside them it can.
#[tokio::test]
async fn files_whose_names_are_no_text_are_in_nobodys_way() {
    let open = tempfile::tempdir().unwrap();
    let prefix = open.path().canonicalize().unwrap();
    let bytes = |name: &[u8]| prefix.join(OsStr::from_bytes(name));
    fs::create_dir(bytes(b"plain")).unwrap();
    fs::write(bytes(b"plain/file"), "text").unwrap();
    fs::create_dir(bytes(b"mixed")).unwrap();
    fs::write(bytes(b"mixed/name-\xff"), "bytes").unwrap();
    fs::write(bytes(b"mixed/file"), "text").unwrap();
    let arguments = vec!["--allowed-host-path".to_owned(), prefix.display().to_string()];
    let options = NodeOptions { arguments, ..options("no-text-names").await.unwrap() };
    let scene = Scene::with(Cluster::shared().await.unwrap(), options).await.unwrap();
    let volumes = json!([{"name": "v", "hostPath": {"path": prefix}}]);
    let mounts = json!([{"name": "v", "mountPath": "/v"}]);
    let commands = [
        "read /v/plain/file",
        "read /v/mixed/file",
        "list /v/plain",
        "list /v/mixed",
        "write /v/mixed/new x",
    ];
    let found = ran(&scene, "p", spec(volumes, mounts, &commands).await).await;
    assert_eq!([&found["read /v/plain/file"], &found["read /v/mixed/file"]], ["text", "text"]);
    assert_eq!([&found["list /v/plain"], &found["write /v/mixed/new x"]], ["file", "ok"]);
    // The runtime has no words for that name, and lists nothing rather than half of it.
    assert!(found["list /v/mixed"].starts_with("error: "), "{found:?}");
    assert_eq!(fs::read(bytes(b"mixed/name-\xff")).unwrap(), b"bytes");
}
