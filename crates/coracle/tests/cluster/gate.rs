//! The node's HTTPS API answers only those whom the cluster knows.

use std::path::{Path, PathBuf};

use kube::Client;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::identity::Stranger;
use crate::scene::Scene;
use crate::{guests, manifests, states};

/// A client of the node itself, with the given user of a kubeconfig.
async fn client(scene: &Scene<'_>, directory: &TempDir, authority: &Path, user: Value) -> Client {
    let server = format!("https://127.0.0.1:{}", scene.node.port());
    let kubeconfig = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server, "certificate-authority": authority}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    });
    let path: PathBuf = directory.path().join("kubeconfig");
    std::fs::write(&path, kubeconfig.to_string()).unwrap();
    scene.cluster.client(&path).await.unwrap()
}

/// A client of the node itself that may ask everything.
pub(crate) async fn administrator(scene: &Scene<'_>, directory: &TempDir) -> Client {
    let admin = scene.cluster.client_certificate("gate-admin", &["system:masters"]).unwrap();
    let user = json!({"client-certificate": admin.certificate, "client-key": admin.key});
    client(scene, directory, &admin.authority, user).await
}

/// The body of the answer, or its status code; 0 when there is none.
pub(crate) async fn get(client: &Client, path: &str) -> Result<String, u16> {
    let request = http::Request::get(path).body(Vec::new()).unwrap();
    match client.request_text(request).await {
        Ok(body) => Ok(body),
        Err(kube::Error::Api(status)) => Err(status.code),
        Err(_) => Err(0),
    }
}

#[tokio::test]
async fn nobody_is_answered_without_a_certificate_of_the_cluster() {
    let scene = Scene::new("guarded").await.unwrap();
    let image = guests::image("hello").await.unwrap();
    scene.run_until("hello", manifests::once(&image, &[]), states::has_ended).await.unwrap();
    let log = format!("/containerLogs/{}/hello/app", scene.namespace);
    let directory = tempfile::tempdir().unwrap();
    let admin = scene.cluster.client_certificate("gate-admin", &["system:masters"]).unwrap();

    let files =
        |certificate: &Path, key: &Path| json!({"client-certificate": certificate, "client-key": key});
    let known = client(&scene, &directory, &admin.authority, files(&admin.certificate, &admin.key)).await;
    assert_eq!(get(&known, "/healthz").await.as_deref(), Ok("ok"));
    assert_eq!(get(&known, &log).await.as_deref(), Ok("hello from a guest\n"));
    assert_eq!(get(&known, &format!("/containerLogs/{}/nobody/app", scene.namespace)).await, Err(404));

    let user = scene.cluster.client_certificate("gate-user", &["developers"]).unwrap();
    let user = client(&scene, &directory, &admin.authority, files(&user.certificate, &user.key)).await;
    let anonymous = client(&scene, &directory, &admin.authority, json!({})).await;
    let stranger = Stranger::new().unwrap();
    let stranger = files(&stranger.certificate, &stranger.key);
    let stranger = client(&scene, &directory, &admin.authority, stranger).await;
    for path in ["/healthz", &log] {
        assert_eq!(get(&user, path).await, Err(403), "{path}");
        assert_eq!(get(&anonymous, path).await, Err(401), "{path}");
        let refusal = get(&stranger, path).await;
        assert!(matches!(refusal, Err(0 | 401)), "{path}: {refusal:?}");
    }
    assert_eq!(get(&known, "/healthz").await.as_deref(), Ok("ok"), "it goes on");
}
