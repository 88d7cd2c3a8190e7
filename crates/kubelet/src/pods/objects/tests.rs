use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use tokio::time::timeout;

use super::*;
use crate::pods::testing::{FakeApi, Fault, shown};

const PATIENCE: Duration = Duration::from_mins(1);

fn path(kind: &str, name: &str) -> String {
    format!("/api/v1/namespaces/default/{kind}/{name}")
}

fn names(config_maps: &[&str], secrets: &[&str]) -> ObjectNames {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    ObjectNames { config_maps: owned(config_maps), secrets: owned(secrets) }
}

fn source(api: &FakeApi) -> ObjectSource {
    ObjectSource::new(&PodApi::new(api.client()))
}

async fn watches(api: &FakeApi, number: usize) {
    shown(&api.state, &format!("{number} watches"), |state| (state.watches.len() == number).then_some(()))
        .await;
}

fn colour(objects: &Objects) -> Option<&str> {
    let map = objects.config_maps.get("settings")?;
    map.data.as_ref()?.get("colour").map(String::as_str)
}

#[tokio::test(start_paused = true)]
async fn a_thousand_pods_share_ten_watches_and_let_go_of_them() {
    let api = FakeApi::new();
    let all: Vec<_> = (0..10).map(|number| format!("map-{number}")).collect();
    for name in &all {
        api.put(&path("configmaps", name), json!({ "data": { "colour": "blue" } }));
    }
    let (source, wanted) = (source(&api), names(&all.iter().map(String::as_str).collect::<Vec<_>>(), &[]));
    let pods: Vec<_> = (0..1000).map(|_| source.hold("default")).collect();
    for pod in &pods {
        assert_eq!(pod.get(&wanted).await.unwrap().config_maps.len(), 10);
    }
    watches(&api, 10).await;
    for part in ["GET /api/v1/namespaces/default/configmaps/", "WATCH /api/v1/namespaces/default/configmaps"]
    {
        assert_eq!(api.state.borrow().called(part).len(), 10, "{part}");
    }
    assert!(api.state.borrow().watches.iter().all(|watch| watch.contains("metadata.name%3Dmap-")));
    let last = pods.into_iter().last().unwrap();
    assert_eq!(source.config_maps.len(), 10);
    watches(&api, 10).await;
    drop(last);
    watches(&api, 0).await;
    assert_eq!(source.config_maps.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_refers_to_an_object_hears_of_its_changes_only() {
    let api = FakeApi::new();
    let (source, wanted) = (source(&api), names(&["settings"], &[]));
    let pod = source.hold("default");
    assert!(pod.get(&wanted).await.unwrap().config_maps.is_empty());
    watches(&api, 1).await;
    timeout(PATIENCE, pod.changed()).await.expect_err("nothing has changed");
    for (object, expected) in [
        (Some(json!({ "data": { "colour": "blue" } })), Some("blue")),
        (Some(json!({ "data": { "colour": "red" } })), Some("red")),
        (None, None),
    ] {
        match object {
            Some(object) => api.put(&path("configmaps", "settings"), object),
            None => api.take(&path("configmaps", "settings")),
        }
        timeout(PATIENCE, pod.changed()).await.expect("a change");
        assert_eq!(colour(&pod.get(&wanted).await.unwrap()), expected);
    }
    api.break_watch();
    api.put(&path("configmaps", "settings"), json!({ "data": { "colour": "green" } }));
    timeout(PATIENCE, pod.changed()).await.expect("a change that the watch did not tell");
    assert_eq!(colour(&pod.get(&wanted).await.unwrap()), Some("green"));
}

#[tokio::test(start_paused = true)]
async fn an_immutable_object_is_not_watched() {
    let api = FakeApi::new();
    api.put(&path("secrets", "keys"), json!({ "immutable": true, "data": {} }));
    api.put(&path("secrets", "others"), json!({ "data": {} }));
    let pod = source(&api).hold("default");
    assert_eq!(pod.get(&names(&[], &["keys", "others"])).await.unwrap().secrets.len(), 2);
    watches(&api, 1).await;
    assert!(api.state.borrow().watches[0].contains("others"));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_an_authorizer_that_is_behind_is_not_told() {
    let api = FakeApi::new();
    api.put(&path("configmaps", "settings"), json!({ "data": { "colour": "blue" } }));
    api.fault("GET", Fault::Refuse(403));
    let (pod, wanted) = (source(&api).hold("default"), names(&["settings"], &[]));
    let (answer, ()) = tokio::join!(pod.get(&wanted), async {
        shown(&api.state, "a second try", |state| (state.called("GET").len() == 2).then_some(())).await;
        api.heal();
    });
    assert_eq!(colour(&answer.unwrap()), Some("blue"));
}

#[tokio::test(start_paused = true)]
async fn what_the_api_server_does_not_tell_is_an_error_until_it_does() {
    let api = FakeApi::new();
    api.put(&path("configmaps", "settings"), json!({ "data": { "colour": "blue" } }));
    api.fault("GET", Fault::Refuse(500));
    let (pod, wanted) = (source(&api).hold("default"), names(&["settings"], &[]));
    let error = pod.get(&wanted).await.err().expect("an error").to_string();
    assert_eq!(error, "failed to fetch configmap \"settings\": refused 500");
    api.heal();
    timeout(PATIENCE, pod.changed()).await.expect("news");
    assert_eq!(colour(&pod.get(&wanted).await.unwrap()), Some("blue"));
}

const BUNDLES: &str = "/apis/certificates.k8s.io/v1beta1";

fn bundle(certificates: &str) -> serde_json::Value {
    let body = format!("-----BEGIN CERTIFICATE-----\n{certificates}\n-----END CERTIFICATE-----\n");
    json!({ "spec": { "trustBundle": body } })
}

fn trusts(optional: bool) -> Vec<ClusterTrustBundleProjection> {
    vec![serde_json::from_value(json!({ "name": "one", "path": "p", "optional": optional })).unwrap()]
}

#[tokio::test(start_paused = true)]
async fn trust_bundles_are_watched_once_while_somebody_asks_for_one() {
    let api = FakeApi::new();
    api.put(BUNDLES, json!({ "resources": [{ "name": "clustertrustbundles" }] }));
    api.put(&format!("{BUNDLES}/clustertrustbundles/one"), bundle("AAAA"));
    let source = source(&api);
    let pods = [source.hold("default"), source.hold("other")];
    for pod in &pods {
        let found = pod.trust_anchors(&trusts(false)).await.unwrap();
        assert!(found[0].as_ref().unwrap().contains("\nAAAA\n"), "{found:?}");
    }
    watches(&api, 1).await;
    timeout(PATIENCE, pods[0].changed()).await.expect_err("nothing has changed");
    api.put(&format!("{BUNDLES}/clustertrustbundles/one"), bundle("BBBB"));
    for pod in &pods {
        timeout(PATIENCE, pod.changed()).await.expect("a change");
        let found = pod.trust_anchors(&trusts(false)).await.unwrap();
        assert!(found[0].as_ref().unwrap().contains("\nBBBB\n"), "{found:?}");
    }
    api.take(&format!("{BUNDLES}/clustertrustbundles/one"));
    timeout(PATIENCE, pods[0].changed()).await.expect("a change");
    assert_eq!(pods[0].trust_anchors(&trusts(false)).await.unwrap(), [None]);
    drop(pods);
    watches(&api, 0).await;
}

#[tokio::test(start_paused = true)]
async fn an_api_server_without_trust_bundles_is_named_until_it_has_them() {
    let api = FakeApi::new();
    let pod = source(&api).hold("default");
    let error = pod.trust_anchors(&trusts(false)).await.unwrap_err().to_string();
    let why = "the API server serves no clustertrustbundles.certificates.k8s.io";
    assert_eq!(error, format!("failed to fetch clustertrustbundle \"one\": {why}"));
    assert_eq!(pod.trust_anchors(&trusts(true)).await.unwrap(), [None]);
    api.put(BUNDLES, json!({ "resources": [{ "name": "clustertrustbundles" }] }));
    api.put(&format!("{BUNDLES}/clustertrustbundles/one"), bundle("AAAA"));
    timeout(Duration::from_secs(1), pod.changed()).await.expect("news");
    assert!(pod.trust_anchors(&trusts(false)).await.unwrap()[0].is_some());
}
