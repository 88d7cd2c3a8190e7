use std::fs;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use crate::clock;
use crate::pods::testing::{Scene, State, pod};

const API: &str = "/apis/certificates.k8s.io/v1beta1";
const REQUESTS: &str = "/apis/certificates.k8s.io/v1beta1/namespaces/default/podcertificaterequests";
const ACCOUNT: &str = "/api/v1/namespaces/default/serviceaccounts/default";

fn with_certificate(kind: &str) -> Value {
    let mut pod = pod("Always", "app");
    let certificate = json!({
        "keyType": kind, "signerName": "example.com/signer", "credentialBundlePath": "bundle.pem",
        "maxExpirationSeconds": 7200, "userAnnotations": { "example.com/a": "b" },
    });
    pod["spec"]["volumes"] =
        json!([{ "name": "v", "projected": { "sources": [{ "podCertificate": certificate }] } }]);
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{ "name": "v", "mountPath": "/v" }]);
    pod
}

async fn scene() -> Scene {
    let scene = Scene::new().await;
    scene.api.put(API, json!({ "resources": [{ "name": "podcertificaterequests" }] }));
    scene.api.put(ACCOUNT, json!({ "metadata": { "uid": "account-uid" } }));
    scene
}

fn requests(state: &State) -> Vec<(String, Value)> {
    let found = state.objects.iter().filter(|(path, _)| path.starts_with(REQUESTS));
    found.map(|(path, object)| (path.clone(), object.clone())).collect()
}

/// Waits for a request that nobody has answered.
async fn asked(scene: &Scene) -> (String, Value) {
    let open = |state: &State| requests(state).into_iter().find(|(_, object)| object["status"].is_null());
    scene.api_shows("a request", open).await
}

/// Answers as a signer does.
fn answer(scene: &Scene, (path, request): (String, Value), condition: &str, body: &str, refresh: Timestamp) {
    let mut request = request;
    request["status"] = json!({
        "conditions": [{ "type": condition, "status": "True", "reason": "Because", "message": "it is so" }],
        "certificateChain": format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n"),
        "beginRefreshAt": refresh, "notAfter": refresh + SignedDuration::from_mins(30),
    });
    scene.api.put(&path, request);
}

#[tokio::test(start_paused = true)]
async fn a_certificate_is_requested_and_renewed_when_its_signer_says() {
    let scene = scene().await;
    let uid = scene.create("p", with_certificate("ED25519"));
    let first = asked(&scene).await;
    let spec = &first.1["spec"];
    let expected = json!({
        "signerName": "example.com/signer", "podName": "p", "podUID": uid, "serviceAccountName": "default",
        "serviceAccountUID": "account-uid", "nodeName": spec["nodeName"], "nodeUID": spec["nodeUID"],
        "maxExpirationSeconds": 7200, "unverifiedUserAnnotations": { "example.com/a": "b" },
        "stubPKCS10Request": spec["stubPKCS10Request"],
    });
    assert_eq!(spec, &expected);
    assert!(spec["nodeName"].is_string() && spec["stubPKCS10Request"].is_string());
    assert_eq!(first.1["metadata"]["ownerReferences"][0]["uid"], uid);
    let message = scene.event("FailedMount").await;
    assert!(message.contains("credential bundle is not issued yet"), "{message}");
    let refresh = clock::now() + SignedDuration::from_mins(30);
    answer(&scene, first.clone(), "Issued", "AAAA", refresh);
    let bundle = scene.run("p", 0).await.spec.mounts[0].source.join("bundle.pem");
    let before = fs::read_to_string(&bundle).unwrap();
    assert!(before.starts_with("-----BEGIN PRIVATE KEY-----\n") && before.contains("\nAAAA\n"));

    let began = Instant::now();
    let second = asked(&scene).await;
    let waited = began.elapsed().as_secs();
    assert!((1795..=1811).contains(&waited), "{waited}");
    assert_ne!(second.1["spec"]["stubPKCS10Request"], first.1["spec"]["stubPKCS10Request"]);
    assert_eq!(fs::read_to_string(&bundle).unwrap(), before, "it is not issued yet");
    assert_eq!(scene.event("CertificateOverdueForRefresh").await, "PodCertificate refresh overdue");
    assert_eq!(scene.event("CertificateExpired").await, "PodCertificate expired");
    let waited = began.elapsed().as_secs();
    assert!((3600..=3602).contains(&waited), "{waited}");
    answer(&scene, second, "Issued", "BBBB", clock::now() + SignedDuration::from_mins(30));
    let renewed = async {
        while !fs::read_to_string(&bundle).unwrap().contains("\nBBBB\n") {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(2), renewed).await.unwrap();
    let key = |text: &str| text.split("-----END").next().unwrap().to_owned();
    assert_ne!(key(&fs::read_to_string(&bundle).unwrap()), key(&before));
    // What was asked for a pod goes with it.
    scene.api.remove("p");
    let is_over = |state: &State| (!state.watches.iter().any(|path| path.contains(REQUESTS))).then_some(());
    scene.api_shows("no watch of requests", is_over).await;
    let count = requests(&scene.api.state.borrow()).len();
    sleep(Duration::from_hours(2)).await;
    assert_eq!(requests(&scene.api.state.borrow()).len(), count);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_refused_is_not_made_again() {
    for (condition, words) in [("Denied", "was denied"), ("Failed", "failed")] {
        let scene = scene().await;
        scene.create("p", with_certificate("ECDSAP384"));
        let (path, request) = asked(&scene).await;
        let name = path.rsplit('/').next().unwrap().to_owned();
        answer(&scene, (path, request), condition, "AAAA", clock::now());
        let why = scene.event(condition).await;
        let expected =
            format!("PodCertificateRequest default/{name} {words}, reason=\"Because\", message=\"it is so\"");
        assert_eq!(why, expected);
        let told = |state: &State| {
            let mut messages = state.events.values().filter_map(|event| event["message"].as_str());
            let permanent = format!("was permanently {}: reason=\"Because\"", condition.to_lowercase());
            messages.any(|message| message.contains(&permanent)).then_some(())
        };
        scene.api_shows("why", told).await;
        sleep(Duration::from_mins(30)).await;
        assert_eq!(requests(&scene.api.state.borrow()).len(), 1);
        assert!(scene.runtime.state.borrow().runs.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_was_deleted_is_made_again() {
    let scene = scene().await;
    scene.create("p", with_certificate("ECDSAP256"));
    let (path, _) = asked(&scene).await;
    let is_watched = |state: &State| state.watches.iter().any(|watch| watch.contains(REQUESTS)).then_some(());
    scene.api_shows("a watch", is_watched).await;
    scene.api.take(&path);
    let again = asked(&scene).await;
    assert_ne!(again.0, path);
    answer(&scene, again, "Issued", "AAAA", clock::now() + SignedDuration::from_mins(30));
    scene.run("p", 0).await;
}

#[tokio::test(start_paused = true)]
async fn what_no_certificate_can_be_had_for_is_named() {
    let scene = scene().await;
    scene.create("p", with_certificate("RSA2048"));
    let message = scene.event("FailedMount").await;
    assert!(message.contains("cannot make keys of type \"RSA2048\""), "{message}");
    assert!(requests(&scene.api.state.borrow()).is_empty());
}
