//! How the node reaches registries: who it is to them, mirrors, and whose signatures it trusts.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use coracle_testing::{Artifact, Cluster, NodeOptions, Registry};
use k8s_openapi::api::core::v1::{Pod, Secret, ServiceAccount};
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tempfile::TempDir;

use crate::scene::{Scene, options};
use crate::{guests, manifests, states, until};

const USER: &str = "reader";
const PASSWORD: &str = "open sesame";

/// A registry that wants a login, with an image.
async fn private() -> (Registry, String) {
    let registry = Registry::with_login(USER, PASSWORD).await.unwrap();
    registry.push("private", "v1", &Artifact::cncf(guests::wasm("hello").unwrap())).await.unwrap();
    let image = registry.image("private:v1");
    (registry, image)
}

async fn scene(options: NodeOptions) -> Scene<'static> {
    Scene::with(Cluster::shared().await.unwrap(), options).await.unwrap()
}

async fn check_runs(scene: &Scene<'_>, name: &str, image: &str) {
    let pod = scene.run_until(name, manifests::once(image, &[]), states::has_ended).await.unwrap();
    assert_eq!(states::exit(&pod), Some((0, "Completed")), "{name}");
}

fn docker_config(registry: &Registry) -> String {
    json!({"auths": {registry.host(): {"username": USER, "password": PASSWORD}}}).to_string()
}

#[tokio::test]
async fn the_nodes_own_configuration_is_used() {
    let (registry, image) = private().await;
    let root = tempfile::tempdir().unwrap();
    let mut options = options("own-login").await.unwrap();
    options.insecure_registries.push(registry.host());
    options.root_directory = Some(root.path().to_owned());
    let scene = scene(options).await;
    let refused = |pod: &Pod| states::waiting_reason(pod).contains("ImagePull");
    scene.run_until("before", manifests::once(&image, &[]), refused).await.unwrap();
    fs::write(root.path().join("config.json"), docker_config(&registry)).unwrap();
    check_runs(&scene, "after", &image).await;
}

#[tokio::test]
async fn a_credential_provider_is_asked() {
    let (registry, image) = private().await;
    let folder = provider(&registry);
    let mut options = options("provided").await.unwrap();
    options.insecure_registries.push(registry.host());
    let path = |name: &str| folder.path().join(name).display().to_string();
    options.arguments = vec![
        format!("--image-credential-provider-config={}", path("config.yaml")),
        format!("--image-credential-provider-bin-dir={}", path("")),
    ];
    check_runs(&scene(options).await, "provided", &image).await;
}

/// A folder with a credential provider and its configuration.
fn provider(registry: &Registry) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1",
        "kind": "CredentialProviderConfig",
        "providers": [{
            "name": "helper",
            "matchImages": [registry.host()],
            "defaultCacheDuration": "10m",
            "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
        }],
    });
    let answer = json!({
        "kind": "CredentialProviderResponse",
        "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
        "cacheKeyType": "Registry",
        "auth": {registry.host(): {"username": USER, "password": PASSWORD}},
    });
    fs::write(folder.path().join("config.yaml"), config.to_string()).unwrap();
    let program = folder.path().join("helper");
    fs::write(&program, format!("#!/bin/sh\ncat > /dev/null\necho '{answer}'\n")).unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    folder
}

#[tokio::test]
async fn the_secrets_of_a_service_account_come_along() {
    let (registry, image) = private().await;
    let mut options = options("accounted").await.unwrap();
    options.insecure_registries.push(registry.host());
    let scene = scene(options).await;
    let secret = json!({
        "metadata": {"name": "login"},
        "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": docker_config(&registry)},
    });
    scene.create::<Secret>(secret).await.unwrap();
    let with_secret = json!({"imagePullSecrets": [{"name": "login"}]});
    let accounts = scene.api::<ServiceAccount>();
    accounts.patch("default", &PatchParams::default(), &Patch::Merge(&with_secret)).await.unwrap();
    check_runs(&scene, "accounted", &image).await;
}

#[tokio::test]
async fn a_missing_pull_secret_is_told_even_when_nothing_is_pulled() {
    let scene = Scene::new("no-secret").await.unwrap();
    let image = guests::image("hello").await.unwrap();
    check_runs(&scene, "first", &image).await;
    let mut spec = manifests::once(&image, &[]);
    spec["imagePullSecrets"] = json!([{"name": "nosuch"}]);
    scene.run_until("second", spec, states::has_ended).await.unwrap();
    let why = "Unable to retrieve some image pull secrets (nosuch)";
    scene.event("second", "FailedToRetrieveImagePullSecret", why).await.unwrap();
}

#[tokio::test]
async fn a_registry_has_mirrors() {
    guests::image("hello").await.unwrap();
    let mirror = guests::registry().await.unwrap().host();
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "registry.example/hosts.toml", &format!("[host.\"http://{mirror}\"]\n"));
    let mut options = options("mirrored").await.unwrap();
    options.arguments = vec![format!("--registry-config-dir={}", folder.path().display())];
    check_runs(&scene(options).await, "mirrored", "registry.example/hello:v1").await;
}

fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

#[tokio::test]
async fn an_image_that_must_be_signed_and_is_not_is_refused() {
    let image = guests::image("hello").await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let key = "-----BEGIN PUBLIC KEY-----\n\
        MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n\
        -----END PUBLIC KEY-----\n";
    write(folder.path(), "key.pub", key);
    let signed = json!([{"type": "sigstoreSigned", "keyPath": folder.path().join("key.pub")}]);
    write(folder.path(), "policy.json", &json!({ "default": signed }).to_string());
    let mut options = options("signed-only").await.unwrap();
    options.arguments = vec![format!("--image-policy={}", folder.path().join("policy.json").display())];
    let scene = scene(options).await;
    let refused = |pod: &Pod| states::waiting_reason(pod) == "SignatureValidationFailed";
    scene.run_until("unsigned", manifests::once(&image, &[]), refused).await.unwrap();
    scene.event("unsigned", "Failed", "no signature was found").await.unwrap();
}

#[tokio::test]
async fn images_that_nobody_uses_go_when_the_disk_is_full() {
    let mut options = options("collects").await.unwrap();
    // Any disk is as full as that.
    options.arguments = vec![
        "--image-gc-high-threshold=1".to_owned(),
        "--image-gc-low-threshold=0".to_owned(),
        "--minimum-image-ttl-duration=1s".to_owned(),
    ];
    let scene = scene(options).await;
    let (used, unused) = (guests::image("spin").await.unwrap(), guests::image("hello").await.unwrap());
    let running = |pod: &Pod| states::phase(pod) == "Running";
    scene.run_until("uses", manifests::once(&used, &[]), running).await.unwrap();
    // It ends, and is a part of the pod still.
    let debugger = guests::image("exit-code").await.unwrap();
    let debug =
        ["debug", "uses", "--image", &debugger, "--container", "look", "--attach=false", "--", "m", "3"];
    assert!(scene.kubectl(&debug).await.unwrap().status.success());
    let looks =
        |pod: &Pod| pod.status.as_ref()?.ephemeral_container_statuses.as_ref()?.first()?.state.clone();
    let ended = |pod: &Pod| looks(pod).is_some_and(|state| state.terminated.is_some());
    scene.pod("uses", ended).await.unwrap();
    check_runs(&scene, "used", &unused).await;
    let records = scene.node.root_directory().join("images").join("references");
    let left = || {
        let records = fs::read_dir(&records).unwrap();
        records
            .map(|record| fs::read_to_string(record.unwrap().path()).unwrap_or_default())
            .collect::<Vec<_>>()
    };
    let is_gone = || left().iter().all(|record| !record.contains("/hello"));
    until::so("the image that nobody uses is gone", is_gone).await.unwrap();
    let left = left();
    assert_eq!(left.len(), 4, "each by its tag and by its digest: {left:?}");
    assert!(left.iter().any(|record| record.contains("/exit-code")), "{left:?}");
    check_runs(&scene, "again", &unused).await;
}
