use std::path::{Path, PathBuf};

use coracle_lifecycle::{PodIdentity, PodUid};

/// Where things lie under the node's root directory.
///
/// Names and UIDs come from the API server, which allows no separator in them.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
    memory: Option<PathBuf>,
    scratch: Option<PathBuf>,
}

impl Layout {
    /// The layout under `root`.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), memory: None, scratch: None }
    }

    /// The same, with a directory in memory for what must not lie on a disk.
    #[must_use]
    pub fn in_memory(self, directory: Option<PathBuf>) -> Self {
        Self { memory: directory, ..self }
    }

    /// The same, with a directory in other memory for what programs may fill.
    #[must_use]
    pub fn scratch_in_memory(self, directory: Option<PathBuf>) -> Self {
        Self { scratch: directory, ..self }
    }

    /// The directories in memory, each of which holds one directory per pod.
    pub fn in_memory_directories(&self) -> impl Iterator<Item = &Path> {
        self.memory.iter().chain(&self.scratch).map(PathBuf::as_path)
    }

    /// All of a pod that lies in memory.
    pub fn all_in_memory(&self, uid: &PodUid) -> impl Iterator<Item = PathBuf> {
        self.in_memory_directories().map(|directory| directory.join(uid.as_str()))
    }

    /// The volumes of a pod that lie in memory and may be filled.
    #[must_use]
    pub fn scratch_volumes(&self, uid: &PodUid) -> Option<PathBuf> {
        Some(self.scratch.as_ref()?.join(uid.as_str()))
    }

    /// The directory in memory that holds one directory per pod, where there is one.
    #[must_use]
    pub fn memory(&self) -> Option<&Path> {
        self.memory.as_deref()
    }

    /// The volumes of a pod that lie in memory.
    #[must_use]
    pub fn memory_volumes(&self, uid: &PodUid) -> Option<PathBuf> {
        Some(self.memory()?.join(uid.as_str()))
    }

    /// The root directory itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Who has pulled the images that are here.
    #[must_use]
    pub fn image_access(&self) -> PathBuf {
        self.root.join("image-access")
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

    /// All volumes of a pod.
    #[must_use]
    pub fn volumes(&self, uid: &PodUid) -> PathBuf {
        self.pod(uid).join("volumes")
    }

    /// The root file systems of a pod's containers.
    #[must_use]
    pub fn containers(&self, uid: &PodUid) -> PathBuf {
        self.pod(uid).join("containers")
    }

    /// One volume of a pod; `plugin` is Kubernetes' name for its kind, such as `projected`.
    #[must_use]
    pub fn volume(&self, uid: &PodUid, plugin: &str, name: &str) -> PathBuf {
        self.volumes(uid).join(format!("kubernetes.io~{plugin}")).join(name)
    }

    /// The root file system of one run of a container.
    #[must_use]
    pub fn container_root(&self, uid: &PodUid, container: &str, attempt: u32) -> PathBuf {
        self.containers(uid).join(container).join(attempt.to_string())
    }

    /// The directory that holds one directory of logs per pod.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// The logs of one pod: `logs/<namespace>_<name>_<uid>`, the form log shippers know.
    #[must_use]
    pub fn pod_logs(&self, pod: &PodIdentity) -> PathBuf {
        self.logs().join(format!("{}_{}_{}", pod.namespace, pod.name, pod.uid))
    }

    /// The log of one run of a container.
    #[must_use]
    pub fn log(&self, pod: &PodIdentity, container: &str, attempt: u32) -> PathBuf {
        self.pod_logs(pod).join(container).join(format!("{attempt}.log"))
    }
}
