use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use coracle_lifecycle::{Event, PodIdentity, PodUid};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::mpsc::UnboundedSender;

use super::PodApi;
use super::certificates::{Certificates, Keys};
use super::objects::{Held, ObjectSource};
use super::tokens::Tokens;
use super::volumes::Laid;
use super::worker::Message;

/// What the pods of this node are supplied with, while they run.
pub(crate) struct Supplies {
    api: PodApi,
    objects: ObjectSource,
    keys: Arc<Keys>,
    pods: Mutex<HashMap<PodUid, Arc<Supply>>>,
}

/// What one pod is supplied with from outside.
pub(super) struct Supply {
    /// The config maps and secrets it refers to.
    pub(super) objects: Held,
    /// Its service account tokens.
    pub(super) tokens: Tokens,
    /// Its certificates.
    pub(super) certificates: Certificates,
    /// The images that it mounts.
    pub(super) images: Laid,
    /// Whether its volumes were taken down.
    is_closed: Mutex<bool>,
}

impl Supply {
    /// Tells the pod's worker of changes to what the pod refers to, for as long as this is polled.
    pub(super) async fn keep(&self, outbox: &UnboundedSender<Message>) {
        loop {
            tokio::select! {
                () = self.objects.changed() => {}
                () = self.tokens.due() => {}
                () = self.certificates.changed() => {}
            }
            let _ = outbox.send(Message::Event(Event::SourcesChanged));
        }
    }

    /// Does file work in the pod's volumes, one piece at a time.
    ///
    /// # Errors
    /// Those of the work, and when the volumes were taken down: then nothing is done.
    pub(super) fn write<T, E: From<io::Error>>(&self, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let is_closed = self.lock();
        if *is_closed {
            return Err(io::Error::other("the pod's volumes were taken down").into());
        }
        work()
    }

    /// From now on nothing is written. Waits for work that has begun.
    pub(super) fn close(&self) {
        *self.lock() = true;
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.is_closed.lock()
    }
}

impl Supplies {
    pub(crate) fn new(api: PodApi) -> Self {
        Self { objects: ObjectSource::new(&api), keys: Arc::default(), api, pods: Mutex::default() }
    }

    /// What a pod is supplied with, from the first time that is asked for until [`Self::end`].
    pub(super) fn of(&self, pod: &PodIdentity) -> Arc<Supply> {
        let new = || {
            Arc::new(Supply {
                objects: self.objects.hold(&pod.namespace),
                tokens: Tokens::new(self.api.clone(), pod.clone()),
                certificates: Certificates::new(Arc::clone(&self.keys)),
                images: Laid::default(),
                is_closed: Mutex::default(),
            })
        };
        Arc::clone(self.lock().entry(pod.uid.clone()).or_insert_with(new))
    }

    /// Lets go of what a pod was supplied with, and gives it back as far as there was anything.
    pub(super) fn end(&self, uid: &PodUid) -> Option<Arc<Supply>> {
        self.lock().remove(uid)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PodUid, Arc<Supply>>> {
        self.pods.lock()
    }
}
