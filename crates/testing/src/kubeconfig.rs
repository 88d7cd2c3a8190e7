//! Kubeconfig files, and clients made from them.

use std::path::{Path, PathBuf};

use anyhow::Context;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::json;

use crate::certificates::KeyFiles;

/// Writes a kubeconfig with one context. It is JSON, which is YAML, and names the files of `identity` and `authority`.
pub(crate) fn write(
    path: PathBuf,
    server: &str,
    authority: &Path,
    identity: &KeyFiles,
) -> anyhow::Result<PathBuf> {
    let kubeconfig = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {"server": server, "certificate-authority": authority}}],
        "users": [{"name": "user", "user": {
            "client-certificate": identity.certificate,
            "client-key": identity.key,
        }}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "user"}}],
        "current-context": "test",
    });
    std::fs::write(&path, serde_json::to_vec_pretty(&kubeconfig)?)
        .with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}

/// A client with the identity of a kubeconfig. It belongs to the tokio runtime it is made in.
pub(crate) async fn client(path: &Path) -> anyhow::Result<kube::Client> {
    let kubeconfig = Kubeconfig::read_from(path)?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(kube::Client::try_from(config)?)
}
