use std::fs;

use serde_json::{Value, json};

use crate::pods::testing::{CONFIG_MAP, Scene, pod};

/// A pod with the volume that every pod gets which may speak to the API server.
fn with_access() -> Value {
    let mut pod = pod("Always", "app");
    pod["spec"]["serviceAccountName"] = json!("robot");
    pod["spec"]["volumes"] = json!([{ "name": "kube-api-access", "projected": { "defaultMode": 420, "sources": [
        { "serviceAccountToken": { "path": "token", "expirationSeconds": 3607 } },
        { "configMap": { "name": "kube-root-ca.crt", "items": [{ "key": "ca.crt", "path": "ca.crt" }] } },
        { "downwardAPI": { "items": [{ "path": "namespace", "fieldRef": { "fieldPath": "metadata.namespace" } }] } },
    ] } }]);
    pod["spec"]["containers"][0]["volumeMounts"] =
        json!([{ "name": "kube-api-access", "mountPath": "/access", "readOnly": true }]);
    pod
}

#[tokio::test(start_paused = true)]
async fn a_volume_waits_for_its_config_map() {
    let scene = Scene::new().await;
    let uid = scene.create("p", with_access());
    let message = scene.event("FailedMount").await;
    assert!(message.contains("kube-api-access") && message.contains("kube-root-ca.crt"), "{message}");
    scene.waits("p", "ContainerCreating").await;
    scene.api.put(CONFIG_MAP, json!({ "metadata": {}, "data": { "ca.crt": "the CA" } }));
    scene.phase("p", "Running").await;
    let run = scene.run("p", 0).await;
    let mount = &run.spec.mounts[0];
    assert_eq!((mount.target.as_str(), mount.read_only), ("/access", true));
    let read = |name: &str| fs::read_to_string(mount.source.join(name)).unwrap();
    assert_eq!([read("token"), read("ca.crt"), read("namespace")], ["a-token", "the CA", "default"]);
    let state = scene.api.state.borrow();
    let request =
        &state.called("POST /api/v1/namespaces/default/serviceaccounts/robot/token")[0].body["spec"];
    assert_eq!(request["boundObjectRef"]["uid"], uid);
    assert_eq!(request["expirationSeconds"], 3607);
}

#[tokio::test(start_paused = true)]
async fn a_volume_of_an_unknown_kind_is_named() {
    let scene = Scene::new().await;
    let mut with_volume = pod("Always", "app");
    with_volume["spec"]["volumes"] = json!([{ "name": "v", "nfs": { "server": "s", "path": "/" } }]);
    scene.create("p", with_volume);
    let message = scene.event("FailedMount").await;
    assert!(message.contains("\"v\"") && message.contains("nfs"), "{message}");
    assert!(scene.runtime.state.borrow().runs.is_empty());
    let secret = json!([{ "secret": { "name": "s" } }]);
    let mut projected = pod("Always", "app");
    projected["spec"]["volumes"] = json!([{ "name": "w", "projected": { "sources": secret } }]);
    scene.create("r", projected);
    let is_named = |state: &crate::pods::testing::State| {
        let mut messages = state.events.values().filter_map(|event| event["message"].as_str());
        messages.any(|message| message.contains("projected secret volumes")).then_some(())
    };
    scene.api_shows("the kind of the source", is_named).await;
    scene.create("q", pod("Always", "app"));
    scene.phase("q", "Running").await;
}
