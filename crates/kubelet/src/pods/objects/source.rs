use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::runtime::watcher::{Config, Event};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;
use tracing::debug;

use super::cache::Found;
use super::news::News;
use crate::pods::PodApi;
use crate::waits::Waits;
use crate::watching;

/// The waits between tries to hear of an object for the first time: 100 ms doubling to 15 s.
pub(super) fn waits() -> Waits {
    Waits::new(Duration::from_millis(100), Duration::from_secs(15))
}

/// For so many tries a refusal may only mean that the API server's authorizer is behind a binding that this node knows of
/// already.
const AUTHORIZER_LAG: u32 = 4;

/// A kind of object that pods refer to by name.
pub(super) trait Referable:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    /// The kind as messages name it.
    const KIND: &'static str;

    /// Whether the object never changes.
    fn is_immutable(&self) -> bool;
}

impl Referable for ConfigMap {
    const KIND: &'static str = "configmap";

    fn is_immutable(&self) -> bool {
        self.immutable == Some(true)
    }
}

impl Referable for Secret {
    const KIND: &'static str = "secret";

    fn is_immutable(&self) -> bool {
        self.immutable == Some(true)
    }
}

/// Gets an object, then watches it for as long as this is polled. An immutable one is not watched.
pub(super) async fn follow<K: Referable>(
    api: PodApi,
    beginning: Arc<Semaphore>,
    namespace: String,
    name: String,
    news: Arc<News<Found<K>>>,
) {
    let first = first(&api, &namespace, &name, &news).await;
    let is_immutable = first.as_ref().is_some_and(Referable::is_immutable);
    news.tell(Ok(Found(first.map(Arc::new))));
    if !is_immutable {
        let objects = Api::<K>::namespaced(api.client(), &namespace);
        let events = watching::follow(objects, Config::default().fields(&format!("metadata.name={name}")));
        // A closed semaphore would only mean that there is no bound.
        let turn = beginning.acquire_owned().await.ok();
        watch(events, turn, &news).await;
    }
}

/// The object as it is when the API server is heard for the first time.
async fn first<K: Referable>(api: &PodApi, namespace: &str, name: &str, news: &News<Found<K>>) -> Option<K> {
    let mut waits = waits();
    for tries in 1_u32.. {
        match api.get(namespace, name).await {
            Ok(object) => return object,
            Err(error) if error.is_forbidden() && tries < AUTHORIZER_LAG => {}
            Err(error) => news.tell(Err(error.to_string())),
        }
        sleep(waits.next()).await;
    }
    None
}

async fn watch<K: Referable>(
    events: impl Stream<Item = Result<Event<K>, kube::runtime::watcher::Error>>,
    turn: Option<OwnedSemaphorePermit>,
    news: &News<Found<K>>,
) {
    let (mut events, mut turn, mut listed) = (Box::pin(events), turn, None);
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => {}
            Ok(Event::InitApply(object)) => listed = Some(object),
            Ok(Event::InitDone) => {
                news.tell(Ok(Found(listed.take().map(Arc::new))));
                drop(turn.take());
            }
            Ok(Event::Apply(object)) => news.tell(Ok(Found(Some(Arc::new(object))))),
            Ok(Event::Delete(_)) => news.tell(Ok(Found(None))),
            Err(_) => {
                // The error itself may quote what the object holds.
                debug!(kind = K::KIND, "the watch of an object was interrupted");
                drop(turn.take());
                listed = None;
            }
        }
    }
}
