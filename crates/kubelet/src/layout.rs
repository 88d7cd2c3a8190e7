use std::path::{Path, PathBuf};

use coracle_lifecycle::{PodIdentity, PodUid};

/// Where things lie under the node's root directory.
///
/// Names and UIDs come from the API server, which allows no separator in them.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The layout under `root`.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The root directory itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory that holds one directory per pod.
    #[must_use]
    pub fn pods(&self) -> PathBuf {
        self.root.join("pods")
    }

    /// All that is kept of one pod but its logs.
    #[must_use]
    pub fn pod(&self, uid: &PodUid) -> PathBuf {
        self.pods().join(uid.as_str())
    }

    /// What of a pod must survive the agent.
    #[must_use]
    pub fn checkpoint(&self, uid: &PodUid) -> PathBuf {
        self.pod(uid).join("checkpoint.json")
    }

    /// One volume of a pod; `plugin` is Kubernetes' name for its kind, such as `projected`.
    #[must_use]
    pub fn volume(&self, uid: &PodUid, plugin: &str, name: &str) -> PathBuf {
        self.pod(uid).join("volumes").join(format!("kubernetes.io~{plugin}")).join(name)
    }

    /// The root file system of one run of a container.
    #[must_use]
    pub fn container_root(&self, uid: &PodUid, container: &str, attempt: u32) -> PathBuf {
        self.pod(uid).join("containers").join(container).join(attempt.to_string())
    }

    /// The logs of one pod: `logs/<namespace>_<name>_<uid>`, the form log shippers know.
    #[must_use]
    pub fn pod_logs(&self, pod: &PodIdentity) -> PathBuf {
        self.root.join("logs").join(format!("{}_{}_{}", pod.namespace, pod.name, pod.uid))
    }

    /// The log of one run of a container.
    #[must_use]
    pub fn log(&self, pod: &PodIdentity, container: &str, attempt: u32) -> PathBuf {
        self.pod_logs(pod).join(container).join(format!("{attempt}.log"))
    }
}
