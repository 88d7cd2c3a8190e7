use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use coracle_lifecycle::{Event, PodIdentity, PodUid};
use tokio::sync::mpsc::UnboundedSender;

use super::objects::{Held, ObjectSource};
use super::worker::Message;

/// What the pods of this node are supplied with, while they run.
pub(crate) struct Supplies {
    objects: ObjectSource,
    pods: Mutex<HashMap<PodUid, Arc<Supply>>>,
}

/// What one pod is supplied with from outside.
pub(super) struct Supply {
    /// The config maps and secrets it refers to.
    pub(super) objects: Held,
}

impl Supply {
    /// Tells the pod's worker of changes to what the pod refers to, for as long as this is polled.
    pub(super) async fn keep(&self, outbox: &UnboundedSender<Message>) {
        loop {
            self.objects.changed().await;
            let _ = outbox.send(Message::Event(Event::SourcesChanged));
        }
    }
}

impl Supplies {
    pub(crate) fn new(objects: ObjectSource) -> Self {
        Self { objects, pods: Mutex::default() }
    }

    /// What a pod is supplied with, from the first time that is asked for until [`Self::end`].
    pub(super) fn of(&self, pod: &PodIdentity) -> Arc<Supply> {
        let new = || Arc::new(Supply { objects: self.objects.hold(&pod.namespace) });
        Arc::clone(self.lock().entry(pod.uid.clone()).or_insert_with(new))
    }

    /// Lets go of what a pod was supplied with.
    pub(super) fn end(&self, uid: &PodUid) {
        self.lock().remove(uid);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PodUid, Arc<Supply>>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
