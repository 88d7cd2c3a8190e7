use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::pods::testing::{CONFIG_MAP, Fault, Scene, State, container, pod};

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
    assert_eq!([read("token"), read("ca.crt"), read("namespace")], ["token-1", "the CA", "default"]);
    let state = scene.api.state.borrow();
    let request =
        &state.called("POST /api/v1/namespaces/default/serviceaccounts/robot/token")[0].body["spec"];
    assert_eq!(request["boundObjectRef"]["uid"], uid);
    assert_eq!(request["expirationSeconds"], 3607);
}

#[tokio::test(start_paused = true)]
async fn a_volume_of_an_unknown_kind_is_named() {
    let scene = Scene::new().await;
    let nfs = || json!({ "nfs": { "server": "s", "path": "/" } });
    scene.create("p", with_volume(nfs()));
    let message = scene.event("FailedMount").await;
    assert!(message.contains("\"v\"") && message.contains("nfs"), "{message}");
    assert!(scene.runtime.state.borrow().runs.is_empty());
    scene.create("r", with_volume(json!({ "projected": { "sources": [{}] } })));
    let is_named = |state: &State| {
        let mut messages = state.events.values().filter_map(|event| event["message"].as_str());
        messages
            .any(|message| message.contains("projected source of this kind is not supported"))
            .then_some(())
    };
    scene.api_shows("the kind of the source", is_named).await;
    let mut unused = with_volume(nfs());
    unused["spec"]["containers"][0]["volumeMounts"] = json!([]);
    scene.create("q", unused);
    scene.phase("q", "Running").await;
}

#[tokio::test(start_paused = true)]
async fn of_several_volumes_that_cannot_be_made_each_is_named() {
    let scene = Scene::new().await;
    let mut two = with_volume(json!({ "secret": { "secretName": "one" } }));
    let both = json!([{ "secret": { "name": "two" } }, { "configMap": { "name": "three" } }]);
    let other = json!({ "name": "w", "projected": { "sources": both } });
    two["spec"]["volumes"].as_array_mut().unwrap().push(other);
    let mounts = two["spec"]["containers"][0]["volumeMounts"].as_array_mut().unwrap();
    mounts.push(json!({ "name": "w", "mountPath": "/w" }));
    scene.create("p", two);
    for message in [
        "MountVolume.SetUp failed for volume \"v\" : secret \"one\" not found",
        "MountVolume.SetUp failed for volume \"w\" : [secret \"two\" not found, configmap \"three\" not found]",
    ] {
        let is_told = |state: &State| {
            let mut events = state.events.values();
            events.any(|event| event["message"] == message).then_some(())
        };
        scene.api_shows(message, is_told).await;
    }
}

const SETTINGS: &str = "/api/v1/namespaces/default/configmaps/settings";
const KEYS: &str = "/api/v1/namespaces/default/secrets/keys";

/// A pod whose volume `v` has this source and is mounted at `/v`.
fn with_volume(source: Value) -> Value {
    let mut pod = pod("Always", "app");
    let mut volume = source;
    volume["name"] = json!("v");
    pod["spec"]["volumes"] = json!([volume]);
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{ "name": "v", "mountPath": "/v" }]);
    pod
}

/// Where the first mount of a pod's run lies.
async fn source_of(scene: &Scene, pod: &str) -> PathBuf {
    scene.run(pod, 0).await.spec.mounts[0].source.clone()
}

/// Waits until a file holds this, and says how long that took.
async fn holds(file: &Path, expected: &str) -> Duration {
    let began = Instant::now();
    while fs::read_to_string(file).ok().as_deref() != Some(expected) {
        assert!(began.elapsed() < Duration::from_hours(48), "{}: not {expected:?}", file.display());
        sleep(Duration::from_millis(10)).await;
    }
    began.elapsed()
}

#[tokio::test(start_paused = true)]
async fn changes_reach_a_pod_that_runs() {
    let scene = Scene::new().await;
    scene.api.put(SETTINGS, json!({ "data": { "k": "one" } }));
    scene.create("p", with_volume(json!({ "configMap": { "name": "settings" } })));
    let volume = source_of(&scene, "p").await;
    assert_eq!(fs::read_to_string(volume.join("k")).unwrap(), "one");
    scene.api.put(SETTINGS, json!({ "data": { "k": "two", "more": "x" } }));
    assert!(holds(&volume.join("k"), "two").await < Duration::from_secs(1));
    assert_eq!(fs::read_to_string(volume.join("more")).unwrap(), "x");
    assert_eq!(scene.api.state.borrow().called("WATCH /api/v1/namespaces/default/configmaps").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_deleted_while_it_is_used_stays_until_it_is_there_again() {
    let scene = Scene::new().await;
    scene.api.put(KEYS, json!({ "data": { "k": "b25l" } }));
    scene.create("p", with_volume(json!({ "secret": { "secretName": "keys" } })));
    let volume = source_of(&scene, "p").await;
    scene.phase("p", "Running").await;
    scene.api.take(KEYS);
    let message = scene.event("FailedMount").await;
    assert_eq!(message, "MountVolume.SetUp failed for volume \"v\" : secret \"keys\" not found");
    assert_eq!(fs::read_to_string(volume.join("k")).unwrap(), "one");
    scene.api.put(KEYS, json!({ "data": { "k": "dHdv" } }));
    assert!(holds(&volume.join("k"), "two").await < Duration::from_secs(1));
    assert_eq!(container(scene.api.state.borrow().pod("p"))["restartCount"], 0);
}

#[tokio::test(start_paused = true)]
async fn what_the_disk_refuses_is_named_and_tried_again_and_what_was_there_stays() {
    let scene = Scene::new().await;
    scene.api.put(SETTINGS, json!({ "data": { "k": "one" } }));
    scene.create("p", with_volume(json!({ "configMap": { "name": "settings" } })));
    let volume = source_of(&scene, "p").await;
    scene.phase("p", "Running").await;
    let aside = volume.with_extension("aside");
    fs::rename(&volume, &aside).unwrap();
    fs::write(&volume, "").unwrap();
    scene.api.put(SETTINGS, json!({ "data": { "k": "two" } }));
    let message = scene.event("FailedMount").await;
    let begin = "MountVolume.SetUp failed for volume \"v\" : ";
    assert!(message.starts_with(begin) && message.len() > begin.len() + 10, "{message}");
    assert_eq!(fs::read_to_string(aside.join("k")).unwrap(), "one");
    fs::remove_file(&volume).unwrap();
    fs::rename(&aside, &volume).unwrap();
    holds(&volume.join("k"), "two").await;
    assert_eq!(container(scene.api.state.borrow().pod("p"))["restartCount"], 0);
}

#[tokio::test(start_paused = true)]
async fn secrets_lie_in_memory_and_go_with_the_pod() {
    let scene = Scene::new().await;
    scene.api.put(KEYS, json!({ "data": { "k": "b25l" } }));
    let uid =
        scene.create("p", with_volume(json!({ "secret": { "secretName": "keys", "defaultMode": 256 } })));
    let volume = source_of(&scene, "p").await;
    let memory = scene.layout.memory().unwrap().join(&uid);
    assert_eq!(fs::canonicalize(&volume).unwrap(), fs::canonicalize(memory.join("v")).unwrap());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&volume), mode(&volume.join("..data")), mode(&volume.join("k"))), (0o700, 0o700, 0o400));
    assert!(scene.run("p", 0).await.spec.mounts[0].read_only);
    scene.delete("p", 0);
    scene.forgotten(&uid).await;
    assert!(!memory.exists());
}

#[tokio::test(start_paused = true)]
async fn what_a_pod_shows_of_itself_follows_it() {
    let scene = Scene::new().await;
    let label = json!([{ "path": "label", "fieldRef": { "fieldPath": "metadata.labels['a']" } }]);
    let mut shows = with_volume(json!({ "downwardAPI": { "items": label } }));
    shows["metadata"]["labels"] = json!({ "a": "one" });
    scene.create("p", shows);
    let volume = source_of(&scene, "p").await;
    assert_eq!(fs::read_to_string(volume.join("label")).unwrap(), "one");
    scene.api.change("p", |pod| pod["metadata"]["labels"]["a"] = json!("two"));
    assert!(holds(&volume.join("label"), "two").await < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn tokens_are_renewed_in_time_and_kept_while_they_cannot_be() {
    let scene = Scene::new().await;
    let tokens = json!([
        { "serviceAccountToken": { "path": "own", "expirationSeconds": 600 } },
        { "serviceAccountToken": { "path": "vault", "expirationSeconds": 7200, "audience": "vault" } },
    ]);
    scene.create("p", with_volume(json!({ "projected": { "sources": tokens } })));
    let volume = source_of(&scene, "p").await;
    let read = |name: &str| fs::read_to_string(volume.join(name)).unwrap();
    assert_eq!([read("own"), read("vault")], ["token-1", "token-2"]);
    let renewed = holds(&volume.join("own"), "token-3").await.as_secs();
    assert!((469..=481).contains(&renewed), "{renewed}");
    assert_eq!(read("vault"), "token-2", "it is not due");
    let asked = |state: &State| state.called("/serviceaccounts/default/token").len();
    assert_eq!(scene.api.state.borrow().called("/token")[1].body["spec"]["audiences"], json!(["vault"]));
    scene.api.fault("/token", Fault::Refuse(500));
    let before = asked(&scene.api.state.borrow());
    sleep(Duration::from_secs(590)).await;
    assert_eq!(read("own"), "token-3", "it is still good");
    let tries = asked(&scene.api.state.borrow()) - before;
    assert!((1..=3).contains(&tries), "{tries} tries in two minutes");
    assert!(scene.api.state.borrow().events.values().all(|event| event["reason"] != "FailedMount"));
    sleep(Duration::from_mins(1)).await;
    let message = scene.event("FailedMount").await;
    assert!(message.contains("a token of \"default\"") && !message.contains("token-"), "{message}");
    scene.api.heal();
    holds(&volume.join("own"), "token-4").await;
}
