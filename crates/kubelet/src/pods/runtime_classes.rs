use std::time::Duration;

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::runtime::reflector::{ObjectRef, Store, reflector, store};
use kube::runtime::watcher::{Config, Error, Event};
use kube::{Api, Client};
use thiserror::Error as ThisError;
use tokio::time::timeout;
use tracing::warn;

use crate::answers::chain;
use crate::watching;

/// How long a pod waits for the first list of runtime classes.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a pod can have no containers here, in the words of kubelets and container runtimes.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
pub(super) enum HandlerError {
    #[error("failed to get RuntimeClass {0}: runtime classes have not yet been read at least once")]
    Unread(String),
    #[error("failed to get RuntimeClass {0}: runtimeclass.node.k8s.io {0:?} not found")]
    NotFound(String),
    #[error("failed to get sandbox runtime: RuntimeHandler {0:?} not supported")]
    Unsupported(String),
}

/// The cluster's runtime classes as they are now, and which of their handlers are served here.
#[derive(Clone)]
pub(crate) struct RuntimeClasses {
    store: Store<RuntimeClass>,
    served: Vec<String>,
}

impl RuntimeClasses {
    /// The runtime classes that `client` can see, and what has to run so that they are known.
    pub(crate) fn watch(
        client: Client,
        served: Vec<String>,
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (store, writer) = store();
        let events = watching::follow(Api::all(client), Config::default());
        (Self { store, served }, run(reflector(writer, events)))
    }

    /// The handler that a pod asks for; `None` for the default one.
    ///
    /// # Errors
    /// When its class is not known, or its handler not served here.
    pub(super) async fn handler(&self, pod: &Pod) -> Result<Option<String>, HandlerError> {
        let class = pod.spec.as_ref().and_then(|spec| spec.runtime_class_name.as_deref());
        let Some(class) = class.filter(|class| !class.is_empty()) else { return Ok(None) };
        let listed = timeout(PATIENCE, self.store.wait_until_ready()).await;
        if !matches!(listed, Ok(Ok(()))) {
            return Err(HandlerError::Unread(class.to_owned()));
        }
        let known = self.store.get(&ObjectRef::new(class));
        let handler = known.ok_or_else(|| HandlerError::NotFound(class.to_owned()))?.handler.clone();
        if !self.served.contains(&handler) {
            return Err(HandlerError::Unsupported(handler));
        }
        Ok(Some(handler))
    }
}

async fn run(events: impl Stream<Item = Result<Event<RuntimeClass>, Error>> + Send) {
    let mut events = Box::pin(events);
    while let Some(event) = events.next().await {
        if let Err(error) = event {
            warn!(cause = chain(&error), "the watch of runtime classes was interrupted");
        }
    }
}
