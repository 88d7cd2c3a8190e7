//! Certificates of pods, with a signer of the test's own.

use std::future::ready;
use std::pin::pin;
use std::time::Duration;

use coracle_testing::Cluster;
use futures::TryStreamExt;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, watcher};
use kube::{Api, ResourceExt};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, IsCa, KeyPair,
    date_time_ymd,
};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::scene::{LIMIT, Scene, options};
use crate::{guests, manifests, states};

const SIGNER: &str = "example.com/signer";
/// Longer than the shortest life that the API server allows.
const LIFE: SignedDuration = SignedDuration::from_hours(2);

fn requests(scene: &Scene<'_>) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("certificates.k8s.io", "v1beta1", "PodCertificateRequest");
    Api::namespaced_with(scene.client.clone(), &scene.namespace, &ApiResource::from_gvk(&kind))
}

/// The request of a pod, once it is there.
async fn request(scene: &Scene<'_>, pod: &str) -> DynamicObject {
    let seen = watcher(requests(scene), Config::default()).applied_objects();
    let of_pod = seen.try_filter(|request| ready(request.data["spec"]["podName"] == pod));
    timeout(LIMIT, pin!(of_pod).try_next()).await.expect("the node asks in time").unwrap().unwrap()
}

async fn answer(scene: &Scene<'_>, request: &DynamicObject, condition: &str, rest: Value) {
    let mut status = rest;
    status["conditions"] = json!([{
        "type": condition, "status": "True", "reason": "TestReason", "message": "as the test wants",
        "lastTransitionTime": request.creation_timestamp(),
    }]);
    let change = Patch::Merge(json!({ "status": status }));
    requests(scene).patch_status(&request.name_any(), &PatchParams::default(), &change).await.unwrap();
}

/// Signs what a request asks for, and gives back the certificate as PEM.
async fn issue(scene: &Scene<'_>, request: &DynamicObject) -> String {
    let wanted: ByteString =
        serde_json::from_value(request.data["spec"]["stubPKCS10Request"].clone()).unwrap();
    let mut wanted = CertificateSigningRequestParams::from_der(&wanted.0.into()).unwrap();
    let now = request.creation_timestamp().unwrap().0;
    let since_epoch = |time: Timestamp| Duration::from_secs(time.as_second().unsigned_abs());
    wanted.params.not_before = date_time_ymd(1970, 1, 1) + since_epoch(now);
    wanted.params.not_after = date_time_ymd(1970, 1, 1) + since_epoch(now + LIFE);
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let certificate = wanted.signed_by(&authority).unwrap().pem();
    let status = json!({
        "certificateChain": certificate, "notBefore": now, "notAfter": now + LIFE, "beginRefreshAt": now + LIFE / 2,
    });
    answer(scene, request, "Issued", status).await;
    certificate
}

/// A pod that prints the files of a certificate.
async fn spec(kind: &str) -> Value {
    let image = guests::image("files-rust").await.unwrap();
    let paths = ["/v/bundle.pem", "/v/key.pem", "/v/chain.pem"];
    let container =
        json!({"image": image, "args": paths, "volumeMounts": [{"name": "v", "mountPath": "/v"}]});
    let mut spec = manifests::of("Never", &container);
    let certificate = json!({
        "signerName": SIGNER, "keyType": kind, "credentialBundlePath": "bundle.pem", "keyPath": "key.pem",
        "certificateChainPath": "chain.pem", "maxExpirationSeconds": 10800,
    });
    spec["volumes"] = json!([{"name": "v", "projected": {"sources": [{"podCertificate": certificate}]}}]);
    spec
}

async fn is_issued(scene: &Scene<'_>, pod: &str, kind: &str) {
    scene.run(pod, spec(kind).await).await.unwrap();
    let asked = request(scene, pod).await;
    let object = scene.pod(pod, |_| true).await.unwrap();
    let spec = &asked.data["spec"];
    assert_eq!(spec["podUID"], json!(object.metadata.uid));
    assert_eq!((&spec["nodeName"], &spec["signerName"]), (&json!(scene.node.name()), &json!(SIGNER)));
    assert_eq!(spec["maxExpirationSeconds"], 10800);
    let chain = issue(scene, &asked).await;
    scene.pod(pod, states::has_ended).await.unwrap();
    let log = scene.logs(pod, &[]).await.unwrap();
    let file = |path: &str| {
        let (_, content) = log.split_once(&format!("file {path}\n")).unwrap();
        content.split("file ").next().unwrap().trim().to_owned()
    };
    assert_eq!(file("/v/chain.pem"), chain.trim(), "{kind}");
    let key = file("/v/key.pem");
    assert_eq!(file("/v/bundle.pem"), format!("{key}\n{}", chain.trim()), "{kind}");
    let key = KeyPair::from_pem(&key).unwrap();
    let wanted: ByteString = serde_json::from_value(spec["stubPKCS10Request"].clone()).unwrap();
    let wanted = CertificateSigningRequestParams::from_der(&wanted.0.into()).unwrap();
    assert_eq!(rcgen::PublicKeyData::der_bytes(&wanted.public_key), key.public_key_raw(), "{kind}");
}

#[tokio::test]
async fn pods_get_the_certificates_that_a_signer_issues_and_wait_for_them() {
    let cluster = Cluster::builder().pod_certificates().start().await.unwrap();
    let scene = Scene::with(&cluster, options("certificates").await.unwrap()).await.unwrap();
    for (pod, kind) in [
        ("one", "ED25519"),
        ("two", "ECDSAP256"),
        ("three", "ECDSAP384"),
        ("four", "RSA3072"),
        ("five", "RSA4096"),
    ] {
        is_issued(&scene, pod, kind).await;
    }
    // Who issues in this test cannot sign for such keys; that the request is signed with one, the API server has seen.
    scene.run("six", spec("ECDSAP521").await).await.unwrap();
    request(&scene, "six").await;

    scene.run("denied", spec("ED25519").await).await.unwrap();
    let asked = request(&scene, "denied").await;
    let name = asked.name_any();
    let failed = |why: &str| format!("MountVolume.SetUp failed for volume \"v\" : {why}");
    scene.event("denied", "FailedMount", &failed("credential bundle is not issued yet")).await.unwrap();
    answer(&scene, &asked, "Denied", json!({})).await;
    let why = "reason=\"TestReason\", message=\"as the test wants\"";
    let told = format!("PodCertificateRequest {}/{name} was denied, {why}", scene.namespace);
    scene.event("denied", "Denied", &told).await.unwrap();
    let denied = format!("PodCertificateRequest was permanently denied: {}", why.replace(',', ""));
    scene.event("denied", "FailedMount", &failed(&denied)).await.unwrap();
    scene.pod("denied", |pod: &Pod| states::waiting_reason(pod) == "ContainerCreating").await.unwrap();

    scene.delete("denied", None).await.unwrap();
    scene.gone("denied").await.unwrap();
}
