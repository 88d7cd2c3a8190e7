//! A Kubernetes control plane of its own: etcd, API server, controller manager, scheduler.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use kube::Client;
use rustix::process::Signal;
use tokio::sync::OnceCell;

use crate::kubeconfig;
use crate::process::{Launch, Process};
use crate::scratch::Scratch;
use crate::tools::{Tool, Tools};

mod addresses;
mod bootstrap;
mod components;
mod credentials;
mod launch;

use addresses::Addresses;
use credentials::Credentials;
pub use credentials::{ClientIdentity, NodeIdentity};
use launch::{Site, Storage};

const KILL_LIMIT: Duration = Duration::from_secs(10);

/// The rates at which the control plane works.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Limits {
    /// As released.
    Default,
    /// So high that a load test measures the node.
    Raised,
}

/// What can be chosen about a cluster.
#[derive(Clone, Copy)]
struct Options {
    node_cidr_mask_size: u8,
    limits: Limits,
    trust_bundles: bool,
    pod_certificates: bool,
    stop_signals: bool,
}

/// Choices for a cluster to be started; see [`Cluster::builder`].
#[must_use]
pub struct ClusterBuilder(Options);

impl ClusterBuilder {
    /// The length of the prefix of each node's pod range, from 17 to 24 of the cluster's /16; 24 unless said otherwise.
    pub fn node_cidr_mask_size(mut self, bits: u8) -> Self {
        self.0.node_cidr_mask_size = bits;
        self
    }

    /// Raises the limits on requests of the API server, the scheduler and the controller manager, whose defaults are
    /// slower than one node.
    pub fn fast_limits(mut self) -> Self {
        self.0.limits = Limits::Raised;
        self
    }

    /// Has the API server serve `clustertrustbundles` of `certificates.k8s.io/v1beta1`, and nodes read them.
    pub fn trust_bundles(mut self) -> Self {
        self.0.trust_bundles = true;
        self
    }

    /// Has the API server serve `podcertificaterequests` of `certificates.k8s.io/v1beta1`, and nodes make them.
    pub fn pod_certificates(mut self) -> Self {
        self.0.pod_certificates = true;
        self
    }

    /// Has the API server keep `lifecycle.stopSignal` of containers, which is alpha in 1.36: others lose it.
    pub fn stop_signals(mut self) -> Self {
        self.0.stop_signals = true;
        self
    }

    /// Starts the cluster; see [`Cluster::start`].
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub async fn start(self) -> anyhow::Result<Cluster> {
        Box::pin(Cluster::start_with(self.0)).await
    }
}

/// A running control plane with Node and RBAC authorization, `NodeRestriction`, node CIDRs and the bindings of
/// kubeadm. It is gone when this value is dropped, or the process is gone.
pub struct Cluster {
    // Processes come before the folder they write to: fields are dropped in this order.
    scheduler: Process,
    controller_manager: Process,
    api_server: Mutex<Option<Process>>,
    etcd: Process,
    api_server_launch: Launch,
    server: String,
    keys: Credentials,
    admin: ClientIdentity,
    tools: Tools,
    addresses: Addresses,
    scratch: Scratch,
}

impl Cluster {
    /// Starts a control plane on free loopback ports, with keys and address ranges of its own, and waits until pods can
    /// be created in the namespace `default`.
    ///
    /// # Errors
    /// A program is missing (the error says how to build it), or a part did not start: the error shows the end of its
    /// log.
    pub async fn start() -> anyhow::Result<Self> {
        Self::builder().start().await
    }

    /// A cluster with other choices than those of [`Cluster::start`].
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder(Options {
            node_cidr_mask_size: 24,
            limits: Limits::Default,
            trust_bundles: false,
            pod_certificates: false,
            stop_signals: false,
        })
    }

    /// The cluster that the tests of one test binary share: the first one starts it, and it ends with the process.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub async fn shared() -> anyhow::Result<&'static Self> {
        static SHARED: OnceCell<Cluster> = OnceCell::const_new();
        SHARED.get_or_try_init(Self::start).await
    }

    async fn start_with(options: Options) -> anyhow::Result<Self> {
        let tools = Tools::locate()?;
        let scratch = Scratch::new("cluster")?;
        let addresses = Addresses::claim()?;
        let keys = Credentials::new(&scratch.join("keys"), &addresses.kubernetes_service())?;
        let site = Site { folder: scratch.path(), tools: &tools };
        let (storage, admin) = launch::storage(&site, &keys, options, &addresses.services()).await?;
        let Storage { api_server, api_server_launch, etcd, server } = storage;
        let (manager, scheduler) = launch::controllers(&site, &keys, options, &server, &addresses.pods())?;
        let client = kubeconfig::client(&admin.kubeconfig).await?;
        bootstrap::bind_roles(&client).await?;
        launch::complete(&client, &[&manager, &scheduler]).await?;
        Ok(Self {
            scheduler,
            controller_manager: manager,
            api_server: Mutex::new(Some(api_server)),
            etcd,
            api_server_launch,
            server,
            keys,
            admin,
            tools,
            addresses,
            scratch,
        })
    }

    /// The administrator's kubeconfig.
    #[must_use]
    pub fn kubeconfig_path(&self) -> &Path {
        &self.admin.kubeconfig
    }

    /// The folder in which the logs of the control plane's parts lie (`kube-apiserver.log` and so on).
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.scratch.path()
    }

    /// The numbers of the processes it is made of.
    #[must_use]
    pub fn process_ids(&self) -> Vec<u32> {
        let api_server = self.api_server.lock().unwrap_or_else(PoisonError::into_inner);
        let others = [&self.etcd, &self.controller_manager, &self.scheduler];
        others.into_iter().chain(api_server.as_ref()).map(Process::id).collect()
    }

    /// The range from which nodes get their pod ranges.
    #[must_use]
    pub fn pod_addresses(&self) -> String {
        self.addresses.pods()
    }

    /// A new client with all rights. It belongs to the tokio runtime it is made in: make one in each test.
    ///
    /// # Errors
    /// The kubeconfig could not be read.
    pub async fn admin(&self) -> anyhow::Result<Client> {
        kubeconfig::client(&self.admin.kubeconfig).await
    }

    /// A new client with the identity of a kubeconfig, such as [`NodeIdentity::kubeconfig`].
    ///
    /// # Errors
    /// The kubeconfig could not be read.
    pub async fn client(&self, kubeconfig: &Path) -> anyhow::Result<Client> {
        kubeconfig::client(kubeconfig).await
    }

    /// The identity of a user; at most two groups.
    ///
    /// # Errors
    /// The certificate could not be made or written.
    pub fn client_certificate(&self, user: &str, groups: &[&str]) -> anyhow::Result<ClientIdentity> {
        let file = format!("user-{}", user.replace([':', '/'], "-"));
        credentials::client_identity(&self.keys.authority, &self.server, &file, user, groups)
    }

    /// The identity of a node, with a serving certificate that the API server trusts.
    ///
    /// # Errors
    /// The certificates could not be made or written.
    pub fn node_identity(&self, name: &str) -> anyhow::Result<NodeIdentity> {
        credentials::node_identity(&self.keys.authority, &self.server, name)
    }

    /// Makes a namespace of its own in which pods can be created.
    ///
    /// # Errors
    /// The API server refused, or the controllers did not fill it in time.
    pub async fn namespace(&self) -> anyhow::Result<String> {
        bootstrap::namespace(&self.admin().await?).await
    }

    /// Kills the API server; what it has stored stays.
    ///
    /// # Errors
    /// The process could not be killed.
    pub async fn stop_api_server(&self) -> anyhow::Result<()> {
        let process = self.api_server.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(process) = process {
            process.end(Signal::KILL, KILL_LIMIT).await?;
        }
        Ok(())
    }

    /// Starts the API server again on its port, and waits until it is ready. Does nothing to one that runs.
    ///
    /// # Errors
    /// It did not become ready: the error shows the end of its log.
    pub async fn start_api_server(&self) -> anyhow::Result<()> {
        if self.api_server.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            return Ok(());
        }
        let process = Process::spawn(&self.api_server_launch)?;
        launch::ready(&self.admin.kubeconfig, &[&process]).await?;
        *self.api_server.lock().unwrap_or_else(PoisonError::into_inner) = Some(process);
        Ok(())
    }

    /// Where `kubectl` lies.
    #[must_use]
    pub fn kubectl_path(&self) -> PathBuf {
        self.tools.path(Tool::Kubectl).to_owned()
    }

    /// `kubectl` as administrator, to be given arguments and run by the caller. It keeps its caches in the cluster's own
    /// folder.
    #[must_use]
    pub fn kubectl_command(&self) -> Command {
        let mut command = Command::new(self.tools.path(Tool::Kubectl));
        command
            .env("KUBECONFIG", &self.admin.kubeconfig)
            .env("KUBECACHEDIR", self.scratch.join("kubectl-cache"));
        command
    }

    /// Runs `kubectl` as administrator and returns its output, also when it ended with an error.
    ///
    /// # Errors
    /// It could not be run.
    pub async fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        let mut command = tokio::process::Command::from(self.kubectl_command());
        command.args(arguments).kill_on_drop(true);
        command.output().await.with_context(|| format!("running kubectl {}", arguments.join(" ")))
    }

    /// Takes everything down: all processes have ended and the folder is gone when it returns.
    pub fn shutdown(self) {
        drop(self);
    }
}
