//! Trust bundles of the cluster as files.

use std::collections::BTreeMap;

use coracle_testing::Cluster;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, PostParams};
use kube::core::GroupVersionKind;
use serde_json::{Value, json};

use crate::scene::{Scene, options};
use crate::{guests, manifests, states};

async fn create(scene: &Scene<'_>, name: &str, signer: Option<&str>, certificates: &str) {
    let kind = GroupVersionKind::gvk("certificates.k8s.io", "v1beta1", "ClusterTrustBundle");
    let bundles = Api::<DynamicObject>::all_with(scene.client.clone(), &ApiResource::from_gvk(&kind));
    let mut spec = json!({"trustBundle": certificates});
    if let Some(signer) = signer {
        spec["signerName"] = signer.into();
    }
    let bundle: DynamicObject = serde_json::from_value(json!({
        "apiVersion": "certificates.k8s.io/v1beta1", "kind": "ClusterTrustBundle",
        "metadata": {"name": name, "labels": {"ring": "one"}}, "spec": spec,
    }))
    .unwrap();
    bundles.create(&PostParams::default(), &bundle).await.unwrap();
}

/// A pod that prints what is at some paths of a volume with these trust bundles.
async fn spec(bundles: Value, paths: &[&str]) -> Value {
    let image = guests::image("files-rust").await.unwrap();
    let container =
        json!({"image": image, "args": paths, "volumeMounts": [{"name": "v", "mountPath": "/v"}]});
    let sources: Vec<Value> =
        bundles.as_array().unwrap().iter().map(|bundle| json!({"clusterTrustBundle": bundle})).collect();
    let mut spec = manifests::of("Never", &container);
    spec["volumes"] = json!([{"name": "v", "projected": {"sources": sources}}]);
    spec
}

async fn files(scene: &Scene<'_>, pod: &str) -> BTreeMap<String, String> {
    let log = scene.logs(pod, &[]).await.unwrap();
    let parts = log.split("file ").filter_map(|part| part.split_once('\n'));
    parts.map(|(path, content)| (path.to_owned(), content.trim().to_owned())).collect()
}

#[tokio::test]
async fn trust_bundles_are_found_by_name_and_signer_and_waited_for() {
    let cluster = Cluster::builder().trust_bundles().start().await.unwrap();
    let scene = Scene::with(&cluster, options("trusts").await.unwrap()).await.unwrap();
    let authority = cluster.client_certificate("somebody", &[]).unwrap().authority;
    let authority = std::fs::read_to_string(authority).unwrap();
    create(&scene, "plain", None, &authority).await;
    let bundles = json!([
        {"name": "plain", "path": "plain.pem"}, {"name": "gone", "path": "gone.pem", "optional": true},
    ]);
    let spec_of_name = spec(bundles, &["/v/plain.pem", "/v/gone.pem"]).await;
    scene.run_until("name", spec_of_name, states::has_ended).await.unwrap();
    let found = files(&scene, "name").await;
    assert_eq!(found["/v/plain.pem"], authority.trim());
    assert_eq!(found["/v/gone.pem"], "");

    let selector = json!({"matchLabels": {"ring": "one"}});
    let bundles =
        json!([{"signerName": "example.com/authority", "labelSelector": selector, "path": "all.pem"}]);
    scene.run("signer", spec(bundles, &["/v/all.pem"]).await).await.unwrap();
    let message =
        "MountVolume.SetUp failed for volume \"v\" : clustertrustbundle \"example.com/authority\" not found";
    scene.event("signer", "FailedMount", message).await.unwrap();
    scene.pod("signer", |pod: &Pod| states::waiting_reason(pod) == "ContainerCreating").await.unwrap();
    create(&scene, "example.com:authority:one", Some("example.com/authority"), &authority).await;
    scene.pod("signer", states::has_ended).await.unwrap();
    assert_eq!(files(&scene, "signer").await["/v/all.pem"], authority.trim());
}
