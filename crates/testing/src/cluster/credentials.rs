//! Keys, certificates and kubeconfigs of the control plane's parts.

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::certificates::{Authority, KeyFiles, bare_key};
use crate::kubeconfig;

/// Who the API server is when it calls a node. It may what `system:kubelet-api-admin` may, and no more.
pub(super) const KUBELET_CLIENT: &str = "kube-apiserver-kubelet-client";

/// All of it, as files.
pub(super) struct Credentials {
    pub(super) authority: Authority,
    pub(super) api_server: KeyFiles,
    pub(super) kubelet_client: KeyFiles,
    pub(super) service_accounts: KeyFiles,
}

impl Credentials {
    pub(super) fn new(folder: &Path, kubernetes_service: &str) -> anyhow::Result<Self> {
        let authority = Authority::new(folder)?;
        let hosts = [
            "127.0.0.1",
            kubernetes_service,
            "localhost",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        ];
        Ok(Self {
            api_server: authority.server("kube-apiserver", "kube-apiserver", &[], &hosts)?,
            kubelet_client: authority.client(KUBELET_CLIENT, KUBELET_CLIENT, &[])?,
            service_accounts: bare_key(folder, "service-accounts")?,
            authority,
        })
    }
}

/// A client's certificate, and a kubeconfig that uses it.
#[derive(Clone, Debug)]
pub struct ClientIdentity {
    /// The kubeconfig; it names the files below and the cluster's certificate authority.
    pub kubeconfig: PathBuf,
    /// The client certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The certificate authority that signed it, and the API server's certificate.
    pub authority: PathBuf,
}

/// All that a node is started with, as an administrator would hand it over who does not use TLS bootstrapping.
#[derive(Clone, Debug)]
pub struct NodeIdentity {
    /// Kubeconfig of `system:node:<name>` in the group `system:nodes`.
    pub kubeconfig: PathBuf,
    /// Serving certificate for 127.0.0.1 and the node's name.
    pub serving_certificate: PathBuf,
    /// The serving certificate's private key.
    pub serving_key: PathBuf,
    /// The authority that signs who may call the node.
    pub client_authority: PathBuf,
}

/// Makes a client's certificate and kubeconfig in the folder of the authority.
pub(super) fn client_identity(
    authority: &Authority,
    server: &str,
    file: &str,
    user: &str,
    groups: &[&str],
) -> anyhow::Result<ClientIdentity> {
    let ca = authority.files.certificate.clone();
    let keys = authority.client(file, user, groups).with_context(|| format!("a certificate for {user}"))?;
    let path = keys.certificate.with_extension("kubeconfig");
    let kubeconfig = kubeconfig::write(path, server, &ca, &keys)?;
    Ok(ClientIdentity { kubeconfig, certificate: keys.certificate, key: keys.key, authority: ca })
}

/// Makes a node's identity in the folder of the authority.
pub(super) fn node_identity(authority: &Authority, server: &str, name: &str) -> anyhow::Result<NodeIdentity> {
    let user = format!("system:node:{name}");
    let groups = ["system:nodes"];
    let client = client_identity(authority, server, &format!("node-{name}"), &user, &groups)?;
    let serving = authority.server(
        &format!("node-{name}-serving"),
        &user,
        &groups,
        &["127.0.0.1", "localhost", name],
    )?;
    Ok(NodeIdentity {
        kubeconfig: client.kubeconfig,
        serving_certificate: serving.certificate,
        serving_key: serving.key,
        client_authority: client.authority,
    })
}
