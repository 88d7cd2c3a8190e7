//! The command lines of the control plane's parts.

use std::path::Path;

use super::credentials::Credentials;
use super::{Limits, Options};

/// The ports of one attempt to start.
#[derive(Clone, Copy)]
pub(super) struct Ports {
    pub(super) etcd: u16,
    pub(super) etcd_peers: u16,
    pub(super) api_server: u16,
}

pub(super) fn etcd(ports: Ports, data: &Path) -> Vec<String> {
    let (clients, peers) = (loopback(ports.etcd), loopback(ports.etcd_peers));
    vec![
        "--name=test".into(),
        format!("--data-dir={}", data.display()),
        format!("--listen-client-urls={clients}"),
        format!("--advertise-client-urls={clients}"),
        format!("--listen-peer-urls={peers}"),
        format!("--initial-advertise-peer-urls={peers}"),
        format!("--initial-cluster=test={peers}"),
        // What the machine's disk promises is not what these tests are about.
        "--unsafe-no-fsync".into(),
        "--log-level=warn".into(),
    ]
}

pub(super) fn api_server(ports: Ports, keys: &Credentials, options: Options, services: &str) -> Vec<String> {
    let ca = keys.authority.files.certificate.display();
    let mut arguments = vec![
        "--bind-address=127.0.0.1".into(),
        "--advertise-address=127.0.0.1".into(),
        format!("--secure-port={}", ports.api_server),
        format!("--etcd-servers={}", loopback(ports.etcd)),
        format!("--client-ca-file={ca}"),
        format!("--tls-cert-file={}", keys.api_server.certificate.display()),
        format!("--tls-private-key-file={}", keys.api_server.key.display()),
        format!("--service-account-key-file={}", keys.service_accounts.certificate.display()),
        format!("--service-account-signing-key-file={}", keys.service_accounts.key.display()),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".into(),
        "--authorization-mode=Node,RBAC".into(),
        "--enable-admission-plugins=NodeRestriction".into(),
        "--enable-bootstrap-token-auth".into(),
        "--allow-privileged=true".into(),
        format!("--kubelet-client-certificate={}", keys.kubelet_client.certificate.display()),
        format!("--kubelet-client-key={}", keys.kubelet_client.key.display()),
        format!("--kubelet-certificate-authority={ca}"),
        "--kubelet-preferred-address-types=InternalIP,Hostname".into(),
        format!("--service-cluster-ip-range={services}"),
        "--endpoint-reconciler-type=none".into(),
    ];
    if options.stop_signals {
        arguments.push("--feature-gates=ContainerStopSignals=true".into());
    }
    if options.trust_bundles {
        arguments.push("--feature-gates=ClusterTrustBundle=true,ClusterTrustBundleProjection=true".into());
        arguments.push("--runtime-config=certificates.k8s.io/v1beta1/clustertrustbundles=true".into());
    }
    if options.pod_certificates {
        arguments.push("--feature-gates=PodCertificateRequest=true".into());
        arguments.push("--runtime-config=certificates.k8s.io/v1beta1/podcertificaterequests=true".into());
    }
    if options.limits == Limits::Raised {
        arguments.push("--max-requests-inflight=3000".into());
        arguments.push("--max-mutating-requests-inflight=1000".into());
    }
    arguments
}

pub(super) fn controller_manager(
    kubeconfig: &Path,
    keys: &Credentials,
    options: Options,
    pods: &str,
) -> Vec<String> {
    let authority = &keys.authority.files;
    let mut arguments = client_of_api(kubeconfig, options);
    arguments.extend([
        format!("--service-account-private-key-file={}", keys.service_accounts.key.display()),
        format!("--root-ca-file={}", authority.certificate.display()),
        format!("--cluster-signing-cert-file={}", authority.certificate.display()),
        format!("--cluster-signing-key-file={}", authority.key.display()),
        "--use-service-account-credentials=true".into(),
        "--allocate-node-cidrs=true".into(),
        format!("--cluster-cidr={pods}"),
        format!("--node-cidr-mask-size={}", options.node_cidr_mask_size),
        "--controllers=*,bootstrapsigner,tokencleaner".into(),
    ]);
    arguments
}

pub(super) fn scheduler(kubeconfig: &Path, options: Options) -> Vec<String> {
    client_of_api(kubeconfig, options)
}

/// What the controller manager and the scheduler have in common. Neither serves anything, so neither needs a port.
fn client_of_api(kubeconfig: &Path, options: Options) -> Vec<String> {
    let mut arguments = vec![
        format!("--kubeconfig={}", kubeconfig.display()),
        "--leader-elect=false".into(),
        "--bind-address=127.0.0.1".into(),
        "--secure-port=0".into(),
    ];
    if options.limits == Limits::Raised {
        arguments.push("--kube-api-qps=2000".into());
        arguments.push("--kube-api-burst=4000".into());
    }
    arguments
}

fn loopback(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}
