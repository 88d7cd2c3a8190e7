//! Objects and files as large as they may be.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use serde_json::json;

use crate::scene::Scene;
use crate::{files, states};

/// What the API server lets one object hold.
const MOST: usize = 1 << 20;

#[tokio::test]
async fn objects_of_a_mebibyte_are_given_whole() {
    let scene = Scene::new("sizes").await.unwrap();
    let metadata = |name: &str| ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    let text = [("text".to_owned(), "ü".repeat(MOST / 2))];
    let map = ConfigMap { data: Some(text.into()), metadata: metadata("large"), ..ConfigMap::default() };
    scene.api::<ConfigMap>().create(&PostParams::default(), &map).await.unwrap();
    // No text in any encoding.
    let bytes = [("bytes".to_owned(), ByteString(vec![0xff; MOST]))];
    let secret = Secret { data: Some(bytes.into()), metadata: metadata("large"), ..Secret::default() };
    scene.api::<Secret>().create(&PostParams::default(), &secret).await.unwrap();
    let mounts = json!([{"name": "map", "mountPath": "/map"}, {"name": "secret", "mountPath": "/secret"}]);
    let commands = ["size /map/text", "size /secret/bytes"];
    let volumes = json!([
        {"name": "map", "configMap": {"name": "large"}}, {"name": "secret", "secret": {"secretName": "large"}},
    ]);
    let spec = files::spec(volumes, mounts, &commands).await;
    scene.run_until("p", spec, states::has_ended).await.unwrap();
    let log = scene.logs("p", &[]).await.unwrap();
    assert_eq!(log, format!("size /map/text: {MOST}\nsize /secret/bytes: {MOST}\n"));
}
