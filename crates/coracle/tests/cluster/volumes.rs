//! Volumes of Kubernetes' own content, seen by guests.

use std::fs;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::files::{outcomes, ran, spec};
use crate::scene::Scene;
use crate::states;

/// A spec whose one container does these things with its volume `v`, mounted at `/v`.
async fn with_volume(source: Value, commands: &[&str]) -> Value {
    let mut volume = source;
    volume["name"] = "v".into();
    spec(json!([volume]), json!([{"name": "v", "mountPath": "/v"}]), commands).await
}

async fn put_objects(scene: &Scene<'_>) {
    let settings = json!({"data": {"colour": "blue", "size": "big"}, "binaryData": {"raw": "AP8K"}, "metadata": {"name": "settings"}});
    scene.create::<ConfigMap>(settings).await.unwrap();
    let keys = json!({"stringData": {"password": "hunter2"}, "metadata": {"name": "keys"}});
    scene.create::<Secret>(keys).await.unwrap();
}

#[tokio::test]
async fn every_source_becomes_files() {
    let scene = Scene::new("contents").await.unwrap();
    put_objects(&scene).await;
    let commands = ["list /v", "read /v/colour", "size /v/raw"];
    let spec = with_volume(json!({"configMap": {"name": "settings"}}), &commands).await;
    let found = ran(&scene, "map", spec).await;
    assert!(found["list /v"] == "..0 ..data colour raw size", "{found:?}");
    assert_eq!([&found["read /v/colour"], &found["size /v/raw"]], ["blue", "3"]);

    let items = json!([{"key": "password", "path": "deep/er/word", "mode": 256}]);
    let secret = json!({"secret": {"secretName": "keys", "items": items}});
    let found =
        ran(&scene, "secret", with_volume(secret, &["read /v/deep/er/word", "read /v/password"]).await).await;
    assert_eq!(found["read /v/deep/er/word"], "hunter2");
    assert!(found["read /v/password"].starts_with("error"), "{found:?}");

    let resource = json!({"containerName": "app", "resource": "limits.memory", "divisor": "1Mi"});
    let items = json!([
        {"path": "name", "fieldRef": {"fieldPath": "metadata.name"}},
        {"path": "memory", "resourceFieldRef": resource},
    ]);
    let mut spec =
        with_volume(json!({"downwardAPI": {"items": items}}), &["read /v/name", "read /v/memory"]).await;
    spec["containers"][0]["resources"] = json!({"limits": {"memory": "48Mi"}});
    let found = ran(&scene, "shows", spec).await;
    assert_eq!([&found["read /v/name"], &found["read /v/memory"]], ["shows", "48"]);

    let sources = json!([
        {"configMap": {"name": "settings", "items": [{"key": "size", "path": "size"}]}},
        {"secret": {"name": "keys"}}, {"secret": {"name": "gone", "optional": true}},
    ]);
    let spec =
        with_volume(json!({"projected": {"sources": sources}}), &["read /v/size", "read /v/password"]).await;
    let found = ran(&scene, "all", spec).await;
    assert_eq!([&found["read /v/size"], &found["read /v/password"]], ["big", "hunter2"]);
    assert!(!scene.node.log().unwrap().contains("hunter2"));
}

#[tokio::test]
async fn changes_reach_a_guest_that_runs() {
    let scene = Scene::new("propagation").await.unwrap();
    put_objects(&scene).await;
    let sources = json!([{"configMap": {"name": "settings"}}, {"secret": {"name": "keys"}}]);
    let commands = ["follow /v/colour red", "follow /v/password secret2", "list /v"];
    let spec = with_volume(json!({"projected": {"sources": sources}}), &commands).await;
    scene.run_until("p", spec, states::is_running).await.unwrap();
    let parameters = PatchParams::default();
    let colour = Patch::Merge(json!({"data": {"colour": "red", "new": "x"}}));
    scene.api::<ConfigMap>().patch("settings", &parameters, &colour).await.unwrap();
    let password = Patch::Merge(json!({"stringData": {"password": "secret2"}}));
    scene.api::<Secret>().patch("keys", &parameters, &password).await.unwrap();
    scene.pod("p", states::has_ended).await.unwrap();
    let log = scene.logs("p", &[]).await.unwrap();
    assert!(log.contains("/v/colour holds blue\n/v/colour holds red\n"), "{log}");
    assert!(outcomes(&scene, "p").await["list /v"].contains(" new "), "{log}");
}

#[tokio::test]
async fn a_pod_waits_for_what_its_volumes_lack() {
    let scene = Scene::new("mounts-wait").await.unwrap();
    let secret = json!({"secret": {"secretName": "keys", "items": [{"key": "password", "path": "p"}]}});
    scene.run("p", with_volume(secret, &["read /v/p"]).await).await.unwrap();
    let message = "MountVolume.SetUp failed for volume \"v\" : secret \"keys\" not found";
    scene.event("p", "FailedMount", message).await.unwrap();
    let waits = |pod: &Pod| states::waiting_reason(pod) == "ContainerCreating";
    scene.pod("p", waits).await.unwrap();
    let other = json!({"stringData": {"other": "x"}, "metadata": {"name": "keys"}});
    scene.create::<Secret>(other).await.unwrap();
    scene.event("p", "FailedMount", "references non-existent secret key: password").await.unwrap();
    let password = Patch::Merge(json!({"stringData": {"password": "here"}}));
    scene.api::<Secret>().patch("keys", &PatchParams::default(), &password).await.unwrap();
    scene.pod("p", states::has_ended).await.unwrap();
    assert_eq!(outcomes(&scene, "p").await["read /v/p"], "here");
}

#[tokio::test]
async fn what_kubernetes_made_is_not_written_by_guests() {
    let scene = Scene::new("unwritten").await.unwrap();
    put_objects(&scene).await;
    let commands = [
        "write /v/colour red",
        "append /v/colour red",
        "write /v/new x",
        "remove /v/colour",
        "remove /v/..data",
        "rename /v/colour /v/other",
        "mkdir /v/directory",
        "hardlink /v/..data/colour /mine",
        "symlink ../../../../../../etc/passwd /v/escape",
        "read /v/../../../../../../../../etc/passwd",
        "read /v/colour",
    ];
    let spec = with_volume(json!({"configMap": {"name": "settings"}}), &commands).await;
    let found = ran(&scene, "p", spec).await;
    for command in &commands[..commands.len() - 1] {
        assert!(found[*command].starts_with("error"), "{command}: {found:?}");
    }
    assert_eq!(found["read /v/colour"], "blue");
}

#[tokio::test]
async fn tokens_are_for_their_audience_and_lie_in_memory() {
    let scene = Scene::new("audiences").await.unwrap();
    let token =
        json!({"serviceAccountToken": {"path": "token", "audience": "vault", "expirationSeconds": 600}});
    let spec = with_volume(json!({"projected": {"sources": [token]}}), &["read /v/token", "sleep 600"]).await;
    let pod = scene.run_until("p", spec, states::is_running).await.unwrap();
    let volume = scene.pod_directory(&pod).join("volumes/kubernetes.io~projected/v");
    let token = fs::read_to_string(volume.join("token")).unwrap();
    let review = async |audience: &str| {
        let spec = TokenReviewSpec { token: token.clone(), audiences: Some(vec![audience.to_owned()]) };
        let review = TokenReview { spec, ..TokenReview::default() };
        let api = Api::<TokenReview>::all(scene.client.clone());
        api.create(&PostParams::default(), &review).await.unwrap().status.unwrap()
    };
    let vault = review("vault").await;
    assert_eq!((vault.authenticated, vault.audiences), (Some(true), Some(vec!["vault".to_owned()])));
    assert_ne!(review("somebody-else").await.authenticated, Some(true));
    let lies_in = fs::canonicalize(&volume).unwrap();
    assert!(lies_in.starts_with("/run") || lies_in.starts_with("/dev/shm"), "{}", lies_in.display());
    scene.delete("p", Some(1)).await.unwrap();
    scene.gone("p").await.unwrap();
    assert!(!lies_in.exists());
    assert!(!scene.node.log().unwrap().contains(&token));
}

/// What the node holds as it acts: the authorizer lets it read what its own pods refer to, and nothing else.
#[tokio::test]
async fn a_node_reads_only_what_its_own_pods_refer_to() {
    let (one, other) = (Scene::new("reader-one").await.unwrap(), Scene::new("reader-other").await.unwrap());
    put_objects(&one).await;
    let spec = with_volume(json!({"secret": {"secretName": "keys"}}), &["sleep 600"]).await;
    one.run_until("p", spec, states::is_running).await.unwrap();
    let as_node = async |scene: &Scene<'_>, method: &str| {
        let identity = scene.cluster.node_identity(scene.node.name()).unwrap();
        let client = scene.cluster.client(&identity.kubeconfig).await.unwrap();
        let secrets = Api::<Secret>::namespaced(client, &one.namespace);
        match method {
            "get" => secrets.get("keys").await.map(drop),
            _ => secrets.list(&ListParams::default()).await.map(drop),
        }
    };
    let is_forbidden =
        |result: kube::Result<()>| matches!(result, Err(kube::Error::Api(status)) if status.code == 403);
    as_node(&one, "get").await.unwrap();
    assert!(is_forbidden(as_node(&one, "list").await));
    assert!(is_forbidden(as_node(&other, "get").await));
}
