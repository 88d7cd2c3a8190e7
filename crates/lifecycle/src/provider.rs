use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{ContainerId, ContainerSpec, Digest, ExecError, ExecRequest, LocalImage, PodUid, Streams};

/// A future on the heap that may move between threads.
pub type BoxFuture<'a, T> = futures_core::future::BoxFuture<'a, T>;

/// A container runtime: the first port. Its unit is a container; pods, restarts, back-off and status live once, in
/// the node.
pub trait Provider: Send + Sync + 'static {
    /// What the node advertises for this runtime.
    fn describe(&self) -> RuntimeInfo;

    /// Refuses, before anything is pulled, a pod that this runtime can never run.
    ///
    /// # Errors
    /// [`Unsupported`] names the field that asks for what cannot be given.
    fn accepts(&self, pod: &Pod) -> Result<(), Unsupported>;

    /// Makes the runtime ready to give pods addresses of their own, of the ranges of `network`, at which everybody on this
    /// machine reaches them. Asked before any pod is started, with no ranges as long as none are known, and again when
    /// they are others.
    ///
    /// # Errors
    /// Why it cannot: pods have the node's address then. That is the answer of a runtime that does not say otherwise.
    fn open_network<'a>(&'a self, network: &'a NodeNetwork) -> BoxFuture<'a, Result<(), NoNetwork>> {
        let _ = network;
        Box::pin(async { Err(NoNetwork("the runtime gives pods no addresses of their own".to_owned())) })
    }

    /// Makes an image ready to start, and says what it is. Kept by the digest of the image's module until
    /// [`Provider::forget`]; asking again is cheap. Which program of an image with files is to run, its container
    /// says: it may be made ready when that starts.
    fn prepare<'a>(&'a self, image: &'a LocalImage) -> BoxFuture<'a, Result<ImageKind, PrepareError>>;

    /// Drops what was kept for a module that no image holds any more.
    fn forget(&self, module: &Digest);

    /// Starts one container of a prepared image. Everything it needs is already on this machine.
    fn start(&self, spec: ContainerSpec) -> BoxFuture<'_, Result<Arc<dyn Container>, StartError>>;

    /// Everything this runtime still knows, running or ended and not yet removed. Empty when the agent starts, for
    /// a runtime that lives in the agent's process.
    fn containers(&self) -> BoxFuture<'_, Vec<Known>>;

    /// Forgets an ended container whose end the node has recorded.
    fn remove(&self, id: &ContainerId);

    /// Frees what belongs to the pod as a whole; none of its containers runs any more.
    fn remove_pod(&self, uid: &PodUid);
}

/// A container that was started. Its run ends by itself or by [`Container::stop`], never because a handle is dropped.
pub trait Container: Send + Sync + 'static {
    /// How it ended, once it has. May be awaited many times and dropped at any time.
    fn exited(&self) -> BoxFuture<'_, Exit>;

    /// Asks the container to end, in the ways it can hear, and kills it after `grace`. Asking again can only shorten
    /// the wait.
    fn stop(&self, grace: Duration);

    /// Runs a command beside the container's program, over the same files and environment and within the same limits, to
    /// its end, and gives its exit code: 127 when there is no such command, which is then told on its standard error.
    /// Dropping the future ends the command; so does the end of the container.
    ///
    /// # Errors
    /// When the container does not run, or this runtime cannot run the command or not to its end.
    fn exec(&self, request: ExecRequest, streams: Streams) -> BoxFuture<'_, Result<i32, ExecError>>;

    /// What it has used, and uses now.
    fn usage(&self) -> BoxFuture<'_, Usage>;
}

/// A runtime, in the words of `node.status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeInfo {
    /// The scheme of container ids and of `containerRuntimeVersion`, such as `wasmtime`.
    pub name: String,
    /// The runtime's version.
    pub version: String,
    /// `nodeInfo.architecture` and the label `kubernetes.io/arch`.
    pub architecture: String,
    /// `nodeInfo.operatingSystem` and the label `kubernetes.io/os`.
    pub operating_system: String,
    /// `RuntimeClass` handlers it answers to, beside the default one.
    pub handlers: Vec<String>,
    /// How many containers can run at a time on this machine, by the runtime's own reckoning of descriptors and memory
    /// mappings.
    pub max_containers: u32,
}

/// The network of a node's pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeNetwork {
    /// The ranges that the pods' addresses are of: `spec.podCIDRs`, one of each family at most.
    pub ranges: Vec<IpNet>,
    /// The node's own addresses, the primary one first.
    pub addresses: Vec<IpAddr>,
}

/// Why pods have no addresses of their own.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct NoNetwork(pub String);

/// A field of a pod that the runtime cannot honour.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{field}: {why}")]
pub struct Unsupported {
    /// The field's path, such as `spec.containers[0].securityContext.privileged`.
    pub field: String,
    /// Why not.
    pub why: String,
}

/// What an image holds, in words: `wasip1 module`, `wasi:cli/command component`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageKind(pub String);

/// Why an image cannot be made ready. Each message names the cause.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PrepareError {
    /// Not a program this runtime knows, or a damaged one.
    #[error("{0}")]
    Invalid(String),
    /// A sound program that wants what this runtime does not offer, such as an unknown import.
    #[error("{0}")]
    Unsupported(String),
    /// Preparing took more memory or time than it may.
    #[error("{0}")]
    TooExpensive(String),
    /// The runtime failed; it may go better later.
    #[error("{0}")]
    Failed(String),
}

impl PrepareError {
    /// Whether the program is to blame, so that it can hardly be better the next time.
    #[must_use]
    pub fn is_of_program(&self) -> bool {
        matches!(self, Self::Invalid(_) | Self::Unsupported(_) | Self::TooExpensive(_))
    }
}

/// Why a container could not be started. Each message names the cause.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StartError {
    /// The specification cannot be met, such as a mount that does not exist.
    #[error("{0}")]
    Invalid(String),
    /// Its command is not there, or is no program that this runtime can run.
    #[error("{0}")]
    Command(String),
    /// The runtime has no room for one more container now.
    #[error("{0}")]
    Exhausted(String),
    /// The runtime failed.
    #[error("{0}")]
    Failed(String),
}

/// The end of a container's run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// What ended it.
    pub cause: Cause,
    /// What there is to say beyond the code: a trap's text and backtrace.
    pub message: Option<String>,
    /// When the run began.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
}

impl Exit {
    /// The end of a run that never began, at `now`. It began, as container runtimes tell it, at no time at all.
    #[must_use]
    pub fn unstarted(why: String, now: Timestamp) -> Self {
        let (cause, started_at) = (Cause::Unstarted, Timestamp::UNIX_EPOCH);
        Self { cause, message: Some(why), started_at, finished_at: now }
    }
}

/// What ended a container's run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// The program returned or exited with this code.
    Exited(i32),
    /// The program failed in a way that has no code of its own; the code is what a shell would report.
    Trapped(i32),
    /// It could not be started at all: its program is not there, or is none that can run.
    Unstarted,
    /// It wanted more memory than its limit.
    OutOfMemory,
    /// It was asked to stop and ended for that reason, within its grace.
    Stopped,
    /// It was ended by force when its grace was over.
    Killed,
    /// The runtime or the agent went away under it.
    Lost,
}

impl Cause {
    /// The exit code Kubernetes shows: 137 for what was killed, 143 for what stopped when asked, 128 for what never started.
    #[must_use]
    pub fn exit_code(self) -> i32 {
        match self {
            Self::Exited(code) | Self::Trapped(code) => code,
            Self::Unstarted => 128,
            Self::OutOfMemory | Self::Killed | Self::Lost => 137,
            Self::Stopped => 143,
        }
    }

    /// Whether the program ended of its own accord, not by a hand from outside.
    #[must_use]
    pub fn is_own(self) -> bool {
        matches!(self, Self::Exited(_) | Self::Trapped(_) | Self::Unstarted | Self::OutOfMemory)
    }
}

/// A container that the runtime knows.
#[derive(Clone)]
pub struct Known {
    /// What it was started with.
    pub spec: ContainerSpec,
    /// When it was started.
    pub started_at: Timestamp,
    /// How it ended, if it has.
    pub exit: Option<Exit>,
    /// The handle to it.
    pub container: Arc<dyn Container>,
}

/// What a container has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time since its start.
    pub cpu: Duration,
    /// Memory in use, in bytes.
    pub memory: u64,
}
