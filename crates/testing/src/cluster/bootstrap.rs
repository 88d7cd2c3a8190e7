//! What kubeadm makes in a new cluster and a bare control plane lacks.

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};

use super::credentials::KUBELET_CLIENT;
use super::launch::READY_LIMIT;
use crate::wait;

/// Name, role, and who is bound to it: nodes that join by token ask for a certificate, are granted it, and renew it; the
/// API server may call nodes.
const BINDINGS: [(&str, &str, &str, &str); 4] = [
    ("coracle:node-bootstrapper", "system:node-bootstrapper", "Group", "system:bootstrappers"),
    (
        "coracle:node-autoapprove-bootstrap",
        "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
        "Group",
        "system:bootstrappers",
    ),
    (
        "coracle:node-autoapprove-rotation",
        "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
        "Group",
        "system:nodes",
    ),
    ("coracle:kubelet-api-admin", "system:kubelet-api-admin", "User", KUBELET_CLIENT),
];

pub(super) async fn bind_roles(client: &Client) -> anyhow::Result<()> {
    let api = Api::<ClusterRoleBinding>::all(client.clone());
    for (name, role, kind, subject) in BINDINGS {
        api.create(&PostParams::default(), &binding(name, role, kind, subject)).await?;
    }
    Ok(())
}

fn binding(name: &str, role: &str, kind: &str, subject: &str) -> ClusterRoleBinding {
    let group = "rbac.authorization.k8s.io".to_owned();
    ClusterRoleBinding {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        role_ref: RoleRef {
            api_group: Some(group.clone()),
            kind: "ClusterRole".to_owned(),
            name: role.to_owned(),
        },
        subjects: Some(vec![Subject {
            api_group: Some(group),
            kind: kind.to_owned(),
            name: subject.to_owned(),
            namespace: None,
        }]),
    }
}

/// Waits until pods can be created in the namespace: earlier they are refused.
pub(super) async fn usable(client: &Client, namespace: &str) -> anyhow::Result<()> {
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), namespace);
    let config_maps = Api::<ConfigMap>::namespaced(client.clone(), namespace);
    let account = wait::object(accounts, "default", READY_LIMIT, |_| true);
    let authority = wait::object(config_maps, "kube-root-ca.crt", READY_LIMIT, |_| true);
    tokio::try_join!(account, authority)?;
    Ok(())
}

/// A namespace of a name nobody else uses.
pub(super) async fn namespace(client: &Client) -> anyhow::Result<String> {
    let metadata = ObjectMeta { generate_name: Some("test-".to_owned()), ..ObjectMeta::default() };
    let namespace = Namespace { metadata, ..Namespace::default() };
    let made = Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &namespace).await?;
    let name = made.metadata.name.unwrap_or_default();
    usable(client, &name).await?;
    Ok(name)
}
