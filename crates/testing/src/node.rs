//! A Coracle node that joins a cluster, as a process of its own.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::Node as NodeObject;
use kube::Api;
use kube::api::{Patch, PatchParams};
use rustix::process::Signal;
use serde_json::json;

use crate::cluster::{Cluster, NodeIdentity};
use crate::ports;
use crate::process::{Launch, Process};
use crate::scratch::Scratch;
use crate::wait;

const READY_LIMIT: Duration = Duration::from_mins(1);
const END_LIMIT: Duration = Duration::from_mins(1);
const TRIES: usize = 5;

/// How a node is started.
#[derive(Clone, Debug, Default)]
pub struct NodeOptions {
    /// The node's name, unique in its cluster.
    pub name: String,
    /// The `coracle` program: `env!("CARGO_BIN_EXE_coracle")` in the tests of its crate.
    pub binary: PathBuf,
    /// The kubeconfig it acts by; one of its own identity unless given.
    pub kubeconfig: Option<PathBuf>,
    /// Registries, as `HOST:PORT`, that the node may ask over plain HTTP.
    pub insecure_registries: Vec<String>,
    /// The node's root directory; a folder that vanishes with the [`Node`] unless given.
    pub root_directory: Option<PathBuf>,
    /// More flags of `coracle node`.
    pub arguments: Vec<String>,
    /// More environment variables.
    pub environment: Vec<(String, String)>,
}

/// A node that was started. Dropping it kills it.
pub struct Node {
    process: Process,
    launch: Launch,
    api: Api<NodeObject>,
    name: String,
    port: u16,
    root_directory: PathBuf,
    _scratch: Scratch,
}

impl Node {
    /// Starts `coracle node` with an identity of the cluster, on a free port of 127.0.0.1, and waits until its Node object
    /// is Ready. The value belongs to the tokio runtime it is made in.
    ///
    /// # Errors
    /// It ended, or was not Ready in time: the error shows the end of its log.
    pub async fn start(cluster: &Cluster, options: NodeOptions) -> anyhow::Result<Self> {
        for _ in 0..TRIES {
            match Self::try_start(cluster, &options).await {
                Err(error) if error.to_string().to_lowercase().contains("address already in use") => {}
                started => return started,
            }
        }
        bail!("no free port for node {} in {TRIES} tries", options.name)
    }

    async fn try_start(cluster: &Cluster, options: &NodeOptions) -> anyhow::Result<Self> {
        let scratch = Scratch::new("node")?;
        let identity = cluster.node_identity(&options.name)?;
        let root_directory = options.root_directory.clone().unwrap_or_else(|| scratch.join("root"));
        let port = ports::free()?;
        let launch = Launch {
            name: options.name.clone(),
            program: options.binary.clone(),
            arguments: arguments(options, &identity, port, &root_directory),
            environment: environment(options),
            log: scratch.join("node.log"),
        };
        let api = Api::all(cluster.admin().await?);
        let process = joined(&api, &launch).await?;
        let name = options.name.clone();
        Ok(Self { process, launch, api, name, port, root_directory, _scratch: scratch })
    }

    /// The name of its Node object.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The port of its HTTP API.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The number of the agent's process.
    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// Its root directory.
    #[must_use]
    pub fn root_directory(&self) -> &Path {
        &self.root_directory
    }

    /// All that the agent has logged, over all its restarts.
    ///
    /// # Errors
    /// The log could not be read.
    pub fn log(&self) -> anyhow::Result<String> {
        Ok(String::from_utf8_lossy(&std::fs::read(&self.launch.log)?).into_owned())
    }

    /// Waits until the agent ends by itself.
    ///
    /// # Errors
    /// The process could not be watched.
    pub async fn exited(&self) -> anyhow::Result<ExitStatus> {
        self.process.exited().await
    }

    /// Sends SIGTERM and waits for the end.
    ///
    /// # Errors
    /// It did not end within a minute.
    pub async fn terminate(&self) -> anyhow::Result<ExitStatus> {
        self.process.end(Signal::TERM, END_LIMIT).await
    }

    /// Sends SIGPWR, which says that the machine goes down, and waits for the end.
    ///
    /// # Errors
    /// It did not end within a minute.
    pub async fn lose_power(&self) -> anyhow::Result<ExitStatus> {
        self.process.end(Signal::POWER, END_LIMIT).await
    }

    /// Sends SIGKILL to the agent and waits for the end.
    ///
    /// # Errors
    /// It did not end.
    pub async fn kill(&self) -> anyhow::Result<ExitStatus> {
        self.process.end(Signal::KILL, END_LIMIT).await
    }

    /// Starts the agent again with the same flags, port and root directory, after killing it where it still runs, and
    /// waits until it has said that the node is Ready.
    ///
    /// # Errors
    /// As [`Node::start`].
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.kill().await?;
        self.process = joined(&self.api, &self.launch).await?;
        Ok(())
    }
}

fn arguments(options: &NodeOptions, identity: &NodeIdentity, port: u16, root: &Path) -> Vec<String> {
    let kubeconfig = options.kubeconfig.as_ref().unwrap_or(&identity.kubeconfig);
    let mut arguments = vec![
        "node".to_owned(),
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--hostname-override={}", options.name),
        "--node-ip=127.0.0.1".to_owned(),
        format!("--port={port}"),
        format!("--root-dir={}", root.display()),
        format!("--tls-cert-file={}", identity.serving_certificate.display()),
        format!("--tls-private-key-file={}", identity.serving_key.display()),
        format!("--client-ca-file={}", identity.client_authority.display()),
    ];
    arguments.extend(options.insecure_registries.iter().map(|host| format!("--insecure-registry={host}")));
    arguments.extend(options.arguments.iter().cloned());
    arguments
}

/// What a node does must not depend on how full the disk is that it happens to be on: it is never short of room unless its
/// flags say so.
fn environment(options: &NodeOptions) -> Vec<(String, String)> {
    let usual =
        [("CORACLE_EVICTION_HARD", "memory.available<100Mi"), ("CORACLE_IMAGE_GC_HIGH_THRESHOLD", "100")];
    let usual = usual.map(|(name, value)| (name.to_owned(), value.to_owned()));
    usual.into_iter().chain(options.environment.iter().cloned()).collect()
}

/// Starts the process and waits until it has made its Node object Ready.
async fn joined(api: &Api<NodeObject>, launch: &Launch) -> anyhow::Result<Process> {
    forget_heartbeat(api, &launch.name).await?;
    let process = Process::spawn(launch)?;
    tokio::select! {
        joined = wait::object(api.clone(), &launch.name, READY_LIMIT, is_ready) => {
            joined.with_context(|| process.tail())?;
            Ok(process)
        }
        status = process.exited() => bail!("node {} ended, {}; {}", launch.name, status?, process.tail()),
    }
}

/// Takes the time from the last heartbeat. An agent that has ended leaves a Node that still says Ready, and the control
/// plane goes on changing it: only the next agent gives a heartbeat its time.
async fn forget_heartbeat(api: &Api<NodeObject>, name: &str) -> anyhow::Result<()> {
    let Some(node) = api.get_opt(name).await? else { return Ok(()) };
    let conditions = node.status.and_then(|status| status.conditions).into_iter().flatten();
    let forgotten: Vec<_> = conditions
        .filter(|condition| condition.type_ == "Ready")
        .map(|ready| json!({ "type": "Ready", "status": ready.status, "lastHeartbeatTime": null }))
        .collect();
    let patch = json!({ "status": { "conditions": forgotten } });
    api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await?;
    Ok(())
}

fn is_ready(node: &NodeObject) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| {
        condition.type_ == "Ready" && condition.status == "True" && condition.last_heartbeat_time.is_some()
    })
}
