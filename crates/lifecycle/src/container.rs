use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{ContainerId, ImageConfig, ImageContent, LocalImage, PodUid};

/// Where a command without a slash is looked for when neither pod nor image says: what container runtimes use.
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// All a runtime needs to run one container: plain data, resolved, everything already on this machine.
///
/// So a runtime may live in another process, and a container may outlive the agent that started it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// The id of this run.
    pub id: ContainerId,
    /// The pod it belongs to.
    pub pod: PodIdentity,
    /// The container's name in its pod.
    pub name: String,
    /// The pod's annotations.
    pub annotations: BTreeMap<String, String>,
    /// The pod's addresses and names.
    pub network: Network,
    /// The image, prepared before.
    pub image: LocalImage,
    /// An existing private directory, empty but for the image's files: the container's `/`.
    pub root: PathBuf,
    /// Whether the container may write to its root file system.
    pub read_only_root: bool,
    /// The pod's `command`, expanded; empty when the pod gives none.
    pub command: Vec<String>,
    /// The pod's `args`, expanded.
    pub args: Vec<String>,
    /// The whole environment, in order, each name once.
    pub env: Vec<(String, String)>,
    /// Directories of this machine that the container sees.
    pub mounts: Vec<Mount>,
    /// The ports the container declares.
    pub ports: Vec<Port>,
    /// The container's own limits.
    pub limits: Limits,
    /// Limits on the pod as a whole.
    pub pod_limits: Limits,
    /// Where its output goes.
    pub log: LogFile,
    /// The directory it starts in, when the pod names one.
    pub working_directory: Option<String>,
    /// Whether standard input is kept open for `attach`.
    pub stdin: bool,
    /// Whether the container was promised a terminal.
    pub tty: bool,
    /// The handler of the pod's `RuntimeClass`.
    pub runtime_handler: Option<String>,
}

impl ContainerSpec {
    /// The whole command line, made of the pod's and the image's. A bare artifact is its own entry point: the pod's
    /// command, when given, is the start of it. Empty when neither pod nor image has a command.
    ///
    /// <https://kubernetes.io/docs/tasks/inject-data-application/define-command-argument-container/>
    #[must_use]
    pub fn command_line(&self) -> Vec<String> {
        let (start, usual): (&[String], &[String]) = match &self.image.content {
            ImageContent::Program(module) => (std::slice::from_ref(&module.name), &[]),
            ImageContent::Files(files) => (&files.config.entrypoint, &files.config.command),
        };
        let (start, usual) =
            if self.command.is_empty() { (start, usual) } else { (self.command.as_slice(), &[][..]) };
        let rest = if self.args.is_empty() { usual } else { &self.args };
        start.iter().chain(rest).cloned().collect()
    }

    /// The whole environment: the image's, a search path where there is none for an image with files, and over it the
    /// pod's, in this order, each name once.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        let Some(config) = self.image_config() else { return self.env.clone() };
        let path = ("PATH".to_owned(), SEARCH_PATH.to_owned());
        let mut environment: Vec<(String, String)> = Vec::new();
        for (name, value) in std::iter::once(&path).chain(&config.env).chain(&self.env) {
            match environment.iter_mut().find(|(known, _)| known == name) {
                Some((_, before)) => before.clone_from(value),
                None => environment.push((name.clone(), value.clone())),
            }
        }
        environment
    }

    /// The directory it starts in: the pod's, the image's, or `/`.
    #[must_use]
    pub fn directory(&self) -> &str {
        let of_image = || self.image_config().and_then(|config| config.working_directory.as_deref());
        self.working_directory.as_deref().or_else(of_image).unwrap_or("/")
    }

    fn image_config(&self) -> Option<&ImageConfig> {
        self.image.files().map(|files| &files.config)
    }
}

/// A pod as its container knows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PodIdentity {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// The pod's UID.
    pub uid: PodUid,
}

/// The network a pod lives in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Whether the pod asked for the node's own network.
    pub host: bool,
    /// Whether the addresses are the node's, which the pod shares with others because it has none of its own.
    pub shared: bool,
    /// The pod's addresses, the primary one first.
    pub addresses: Vec<IpAddr>,
    /// The pod's host name.
    pub hostname: String,
    /// How names are looked up.
    pub dns: Dns,
}

/// Settings of the resolver, as in `resolv.conf`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    /// Name servers in order.
    pub servers: Vec<IpAddr>,
    /// Search domains in order.
    pub searches: Vec<String>,
    /// Options, such as `ndots:5`.
    pub options: Vec<String>,
}

/// A directory of this machine that a container sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// The directory on this machine.
    pub source: PathBuf,
    /// The absolute path inside the container.
    pub target: String,
    /// Whether writes are refused.
    pub read_only: bool,
}

/// A port that a container declares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// The port's name, when it has one.
    pub name: Option<String>,
    /// The port's number inside the pod.
    pub number: u16,
    /// The protocol spoken on it.
    pub protocol: Protocol,
    /// The node's port that leads here.
    pub host_port: Option<u16>,
    /// The node's address on which that port is; all of them when `None`.
    pub host_ip: Option<IpAddr>,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// Transmission Control Protocol.
    Tcp,
    /// User Datagram Protocol.
    Udp,
    /// Stream Control Transmission Protocol.
    Sctp,
}

/// Upper bounds and shares of what a container may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// The most memory, in bytes.
    pub memory: Option<u64>,
    /// The most CPU time, in thousandths of a core.
    pub cpu: Option<u64>,
    /// The share of CPU time under contention, in thousandths of a core.
    pub cpu_request: Option<u64>,
}

/// A container's log, in the CRI format: `<RFC 3339 time> stdout|stderr F|P <text>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFile {
    /// The file; its directory exists.
    pub path: PathBuf,
    /// The size in bytes beyond which the runtime rotates it.
    pub max_size: u64,
    /// How many files are kept, the current one among them.
    pub max_files: u32,
}

#[cfg(test)]
#[path = "container_tests.rs"]
mod tests;
