use std::fs::{File, TryLockError};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use coracle_kubelet::node::{NodeSettings, default_taints};
use coracle_kubelet::server::{
    ClientAuthorities, Gate, Logs, Server, ServingCertificate, Stats, server_config,
};
use coracle_kubelet::{Kubelet, Layout, PodDirectory, Stop};
use coracle_lifecycle::{Provider, RuntimeInfo};
use coracle_wasi_provider::WasiProvider;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::cluster::Cluster;
use crate::images::directory;
use crate::settings::Settings;

/// The Kubernetes release whose kubelet this node behaves like, and what it really is.
const KUBELET_VERSION: &str = concat!("v1.36.0+coracle.", env!("CARGO_PKG_VERSION"));

/// Runs the node until it is asked to stop. Whatever keeps it from running is found before anything is started, and all
/// that can be found without a root directory before that is made.
pub(crate) async fn run(settings: Settings, stop: Stop) -> anyhow::Result<()> {
    let cluster = Cluster::open(&settings.kubeconfig).await?;
    let addresses = match settings.addresses.as_slice() {
        [] => vec![cluster.own_address().await?],
        given => given.to_vec(),
    };
    let server = Server::bind((any(&addresses), settings.port).into()).await.context("--port")?;
    cluster.check_identity(&settings.name).await?;
    let tls = server_config(certificate(&settings, &addresses)?, authorities(&settings, &cluster)?)?;
    let _lock = take_root(&settings.root_dir)?;
    let images = settings.images.open(&settings.root_dir, &settings.insecure_registries)?;
    let pulling = settings.images.pulling(&settings.root_dir)?;
    let provider = open_provider(&settings)?;

    let node = node_settings(&settings, addresses, provider.describe());
    let (pods, server_ends) = (PodDirectory::default(), CancellationToken::new());
    let gate = Gate::new(cluster.client.clone(), &node.name);
    let logs = Logs::new(pods.clone(), Layout::new(&settings.root_dir));
    let stats = Stats::new(&node.name, &settings.root_dir, directory(&settings.root_dir), pods.clone());
    info!(node = node.name, address = %server.address(), "the node starts");
    let mut servers = JoinSet::new();
    servers.spawn(server.serve(tls, gate, (logs, stats), server_ends.clone()));
    let outcome = Box::pin(
        Kubelet::new(node, cluster.client, provider, images)
            .pulling(pulling)
            .collecting(settings.images.collection)
            .run(pods, stop),
    )
    .await;
    server_ends.cancel();
    servers.join_all().await;
    outcome.context("--root-dir")
}

fn any(addresses: &[IpAddr]) -> IpAddr {
    if addresses.iter().any(IpAddr::is_ipv6) {
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    }
}

/// Makes the root directory and takes it, until the file is closed, for this process alone.
fn take_root(directory: &Path) -> anyhow::Result<File> {
    let named = || format!("--root-dir: {} cannot be written to", directory.display());
    std::fs::create_dir_all(directory).with_context(named)?;
    let lock = File::create(directory.join("lock")).with_context(named)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => {
            anyhow::bail!("--root-dir: {} is in use by another node", directory.display())
        }
        Err(TryLockError::Error(error)) => Err(error).with_context(named),
    }
}

fn certificate(settings: &Settings, addresses: &[IpAddr]) -> anyhow::Result<ServingCertificate> {
    match &settings.serving {
        Some((certificate, key)) => ServingCertificate::from_files(certificate, key)
            .context("--tls-cert-file, --tls-private-key-file"),
        None => Ok(ServingCertificate::self_signed(&settings.name, addresses)?),
    }
}

fn authorities(settings: &Settings, cluster: &Cluster) -> anyhow::Result<ClientAuthorities> {
    if let Some(path) = &settings.client_ca {
        return ClientAuthorities::from_file(path).context("--client-ca-file");
    }
    let known = cluster
        .authorities()
        .context("--client-ca-file: is required when the kubeconfig names no authority")?;
    ClientAuthorities::from_der(known).context("--kubeconfig")
}

fn open_provider(settings: &Settings) -> anyhow::Result<Arc<dyn Provider>> {
    let program = std::env::current_exe().context("this program's own file cannot be found")?;
    let mut runtime = coracle_wasi_provider::Settings::new(settings.root_dir.join("compiled"), program);
    runtime.network = settings.own_addresses.then(|| settings.root_dir.clone());
    Ok(Arc::new(WasiProvider::new(runtime)?))
}

fn node_settings(settings: &Settings, addresses: Vec<IpAddr>, runtime: RuntimeInfo) -> NodeSettings {
    NodeSettings {
        name: settings.name.clone(),
        addresses,
        port: settings.port,
        labels: settings.labels.clone(),
        taints: settings.taints.clone().unwrap_or_else(|| default_taints(&runtime.architecture)),
        max_pods: settings.max_pods,
        thresholds: settings.thresholds.clone(),
        root_dir: settings.root_dir.clone(),
        allowed_host_paths: settings.allowed_host_paths.clone(),
        cluster_dns: settings.cluster_dns.clone(),
        cluster_domain: settings.cluster_domain.clone(),
        shutdown_grace: settings.shutdown_grace.clone(),
        runtime,
        kubelet_version: KUBELET_VERSION.to_owned(),
    }
}
