use std::io;
use std::sync::Arc;
use std::time::Duration;

use coracle_lifecycle::{CollectionRules, Host, Images, Provider};
use kube::Client;
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::Layout;
use crate::access::Access;
use crate::collector::Collector;
use crate::events::{Recorder, record};
use crate::memory::Memory;
use crate::node::{NodeAgent, NodeSettings};
use crate::pods::{
    Context, Dispatcher, Handlers, HostPaths, Naming, PodApi, PodDirectory, Prober, PullSettings, Pulls,
    RuntimeClasses, Services, Stop, Supplies,
};

/// How long the agent's end waits for the last Events to be written.
const LAST_EVENTS: Duration = Duration::from_secs(2);

/// A node agent: everything it takes to be a node but the runtime and the image store.
pub struct Kubelet {
    settings: NodeSettings,
    client: Client,
    provider: Arc<dyn Provider>,
    images: Arc<dyn Images>,
    pulling: PullSettings,
    collecting: CollectionRules,
}

/// Why a node could not begin.
#[derive(Debug, Error)]
pub enum KubeletError {
    /// The root directory cannot be used.
    #[error("cannot use the root directory: {0}")]
    RootDirectory(#[source] io::Error),
    /// There is no thread for its probes.
    #[error("cannot start the thread for probes: {0}")]
    Prober(#[source] io::Error),
}

impl Kubelet {
    /// A node that runs containers with `provider` from `images`. `client` acts as `system:node:<name>`.
    #[must_use]
    pub fn new(
        settings: NodeSettings,
        client: Client,
        provider: Arc<dyn Provider>,
        images: Arc<dyn Images>,
    ) -> Self {
        Self {
            settings,
            client,
            provider,
            images,
            pulling: PullSettings::default(),
            collecting: CollectionRules::default(),
        }
    }

    /// The same node, which pulls images so.
    #[must_use]
    pub fn pulling(self, pulling: PullSettings) -> Self {
        Self { pulling, ..self }
    }

    /// The same node, which lets images go by these rules.
    #[must_use]
    pub fn collecting(self, collecting: CollectionRules) -> Self {
        Self { collecting, ..self }
    }

    /// Joins the cluster and runs the node until it is asked to stop; then ends its containers, each with its grace, and writes
    /// their last statuses. `directory` tells others about the node's pods meanwhile.
    ///
    /// # Errors
    /// When the root directory cannot be used, or no thread be started. No pod was touched then.
    pub async fn run(self, directory: PodDirectory, stop: Stop) -> Result<(), KubeletError> {
        let (recorder, events) = Recorder::new(&self.settings.name);
        let api = PodApi::new(self.client.clone());
        let (node, known_node) = watch::channel(None);
        let (services, services_known) = Services::watch(self.client.clone());
        let handlers = self.settings.runtime.handlers.clone();
        let (runtime_classes, classes_known) = RuntimeClasses::watch(self.client.clone(), handlers);
        // Held until all pods are at rest.
        let memory = self.memory();
        let layout = self.layout(memory.as_ref());
        let own: Vec<_> =
            [layout.root()].into_iter().chain(layout.in_memory_directories()).map(Into::into).collect();
        let access = Access::new(layout.image_access());
        let collector = Collector {
            access: access.clone(),
            images: Arc::clone(&self.images),
            provider: Arc::clone(&self.provider),
            directory: directory.clone(),
            recorder: recorder.clone(),
            root_dir: self.settings.root_dir.clone(),
            rules: self.collecting,
        };
        let context = Arc::new(Context {
            api: api.clone(),
            host: Arc::new(self.host()),
            host_paths: Arc::new(HostPaths::new(&self.settings.allowed_host_paths, &own)),
            naming: self.naming(),
            layout,
            provider: self.provider,
            images: Arc::clone(&self.images),
            recorder: recorder.clone(),
            directory,
            pulls: Pulls::new(self.pulling),
            access,
            shutdown_grace: self.settings.shutdown_grace.clone(),
            node: known_node.clone(),
            services,
            runtime_classes,
            supplies: Supplies::new(api.clone()),
            handlers: Handlers::new(),
            prober: Prober::start().map_err(KubeletError::Prober)?,
        });
        let dispatcher = Dispatcher::new(context).await.map_err(KubeletError::RootDirectory)?;
        let (ready, readiness) = watch::channel(Some("the node's pods are not known yet".to_owned()));
        let agent = NodeAgent::new(Arc::new(self.settings), self.client, self.images, recorder);
        let agent_ends = CancellationToken::new();
        let mut agents = JoinSet::new();
        let readiness = (readiness, dispatcher.network());
        agents.spawn(agent.run(readiness, node, agent_ends.clone()));
        let mut watches = JoinSet::new();
        watches.spawn(services_known);
        watches.spawn(classes_known);
        watches.spawn(collector.run());
        let mut recorders = JoinSet::new();
        recorders.spawn(record(api, events));
        dispatcher.run(known_node, ready, stop).await;
        agent_ends.cancel();
        agents.join_all().await;
        let _ = timeout(LAST_EVENTS, recorders.join_all()).await;
        Ok(())
    }

    fn naming(&self) -> Naming {
        Naming {
            node: self.settings.name.clone(),
            cluster_dns: self.settings.cluster_dns.clone(),
            cluster_domain: self.settings.cluster_domain.clone(),
        }
    }

    fn memory(&self) -> Option<Memory> {
        let memory = Memory::claim(&self.settings.root_dir);
        memory.inspect_err(|error| warn!(%error, "secrets and tokens lie on the disk")).ok()
    }

    fn layout(&self, memory: Option<&Memory>) -> Layout {
        // A runtime opens what is mounted by paths without links.
        let root = self.settings.root_dir.canonicalize().unwrap_or_else(|_| self.settings.root_dir.clone());
        Layout::new(root)
            .in_memory(memory.map(|memory| memory.directory.clone()))
            .scratch_in_memory(memory.and_then(|memory| memory.scratch.clone()))
    }

    fn host(&self) -> Host {
        Host { runtime: self.settings.runtime.name.clone(), addresses: self.settings.addresses.clone() }
    }
}
