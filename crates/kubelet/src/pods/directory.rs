use std::collections::HashMap;
use std::sync::Arc;

use coracle_lifecycle::PodUid;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::sync::watch;

use super::startups::Startups;

/// The pods on this node as their workers know them: what the HTTP API answers from.
#[derive(Clone, Default)]
pub struct PodDirectory {
    pods: Arc<RwLock<HashMap<PodUid, PodView>>>,
    startups: Startups,
}

/// One pod and its status as the node knows it now, which may be ahead of the API server.
#[derive(Clone)]
pub struct PodView {
    /// The pod as last seen.
    pub pod: Arc<Pod>,
    /// Its status; the channel closes when the pod is gone from this node.
    pub status: watch::Receiver<Arc<PodStatus>>,
}

impl PodDirectory {
    /// The pod of this name. Where one was re-created under its name, the newer one.
    #[must_use]
    pub fn find(&self, namespace: &str, name: &str) -> Option<PodView> {
        let pods = self.read();
        let named = pods.values().filter(|view| {
            let metadata = &view.pod.metadata;
            metadata.namespace.as_deref() == Some(namespace) && metadata.name.as_deref() == Some(name)
        });
        named.max_by_key(|view| view.pod.metadata.creation_timestamp.as_ref().map(|time| time.0)).cloned()
    }

    /// All pods on this node.
    #[must_use]
    pub fn list(&self) -> Vec<PodView> {
        self.read().values().cloned().collect()
    }

    pub(crate) fn insert(&self, uid: PodUid, view: PodView) {
        self.write().insert(uid, view);
    }

    /// Takes over what the API server says of a pod now; nothing for a pod that is not here.
    pub(crate) fn update(&self, uid: &PodUid, pod: &Arc<Pod>) {
        if let Some(view) = self.write().get_mut(uid) {
            view.pod = Arc::clone(pod);
        }
    }

    /// The pod of this UID as last seen.
    pub(crate) fn pod(&self, uid: &PodUid) -> Option<Arc<Pod>> {
        self.read().get(uid).map(|view| Arc::clone(&view.pod))
    }

    pub(crate) fn remove(&self, uid: &PodUid) {
        self.write().remove(uid);
    }

    /// How long the pods of this node took to start.
    pub(crate) fn startups(&self) -> &Startups {
        &self.startups
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<PodUid, PodView>> {
        self.pods.read()
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<PodUid, PodView>> {
        self.pods.write()
    }
}
