//! A node acts as itself, and as nobody else.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use coracle_testing::Cluster;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A client certificate that no cluster's authority has signed, and its key.
pub(crate) struct Stranger {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    _directory: TempDir,
}

impl Stranger {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let mut params = CertificateParams::default();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        let (certificate_path, key_path) = (directory.path().join("c.pem"), directory.path().join("k.pem"));
        std::fs::write(&certificate_path, params.self_signed(&key)?.pem())?;
        std::fs::write(&key_path, key.serialize_pem())?;
        Ok(Self { certificate: certificate_path, key: key_path, _directory: directory })
    }
}

/// Runs `coracle node` as the node `misplaced`, which has to end with exit code 1 and one line that has all the parts.
async fn refused(kubeconfig: &Path, parts: &[&str]) {
    let root = tempfile::tempdir().unwrap();
    let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_coracle"));
    command.args(["node", "--hostname-override=misplaced", "--node-ip=127.0.0.1"]).kill_on_drop(true);
    command.arg("--kubeconfig").arg(kubeconfig).arg("--root-dir").arg(root.path().join("root"));
    let output = command.args(["--port", &port.to_string()]).output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let last = said.lines().last().unwrap_or_default();
    for part in parts {
        assert!(last.contains(part), "{part} in {said}");
    }
}

#[tokio::test]
async fn an_identity_that_is_not_the_nodes_own_is_refused() {
    let cluster = Cluster::shared().await.unwrap();
    let neighbour = cluster.node_identity("neighbour").unwrap();
    refused(&neighbour.kubeconfig, &["--kubeconfig", "system:node:neighbour", "system:node:misplaced"]).await;
    let user = cluster.client_certificate("misplaced-user", &["developers"]).unwrap();
    refused(&user.kubeconfig, &["--kubeconfig", "misplaced-user", "system:node:misplaced"]).await;
    let outside = cluster.client_certificate("system:node:misplaced", &["developers"]).unwrap();
    refused(&outside.kubeconfig, &["--kubeconfig", "system:node:misplaced", "system:nodes"]).await;
    refused(cluster.kubeconfig_path(), &["--kubeconfig", "admin", "system:node:misplaced"]).await;
}

#[tokio::test]
async fn an_identity_the_cluster_does_not_know_is_refused() {
    let cluster = Cluster::shared().await.unwrap();
    let stranger = Stranger::new().unwrap();
    let admin = std::fs::read(cluster.kubeconfig_path()).unwrap();
    let mut kubeconfig: Value = serde_json::from_slice(&admin).unwrap();
    kubeconfig["users"][0]["user"] =
        json!({"client-certificate": stranger.certificate, "client-key": stranger.key});
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("kubeconfig");
    std::fs::write(&path, kubeconfig.to_string()).unwrap();
    refused(&path, &["--kubeconfig", "https://127.0.0.1:"]).await;
}
