use std::fmt::Debug;

use futures::future::ready;
use futures::{Stream, StreamExt};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, Error, Event, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use crate::answers::is_expired;

/// Objects as they change, for as long as this is polled: with waits between tries while the API server cannot be heard,
/// and without what says who set which field.
pub(crate) fn follow<K>(api: Api<K>, config: Config) -> impl Stream<Item = Result<Event<K>, Error>> + use<K>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    // That a list is asked for is no sign of life: it would take back the waits before the next try.
    let is_news = |event: &Result<_, _>| match event {
        Ok(event) => ready(!matches!(event, Event::Init)),
        Err(error) => ready(!is_expired(error)),
    };
    let events = watcher(api, config).filter(is_news).default_backoff();
    events.modify(|object: &mut K| object.meta_mut().managed_fields = None)
}
