use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;

use super::FetchError;
use super::news::News;
use super::source::{Referable, follow};
use crate::pods::PodApi;

/// How many watches begin at a time: each is a connection of its own.
const BEGINNING: usize = 8;

type Key = (String, String);
type Entries<K> = Arc<Mutex<HashMap<Key, Weak<Entry<K>>>>>;

/// The objects of one kind that somebody holds.
pub(super) struct Cache<K> {
    api: PodApi,
    beginning: Arc<Semaphore>,
    entries: Entries<K>,
}

impl<K> Clone for Cache<K> {
    fn clone(&self) -> Self {
        Self {
            api: self.api.clone(),
            beginning: Arc::clone(&self.beginning),
            entries: Arc::clone(&self.entries),
        }
    }
}

impl<K: Referable> Cache<K> {
    pub(super) fn new(api: PodApi) -> Self {
        Self { api, beginning: Arc::new(Semaphore::new(BEGINNING)), entries: Arc::default() }
    }

    /// The entry of an object, new when nobody holds it; `changed` hears of its changes.
    pub(super) fn entry(&self, namespace: &str, name: &str, changed: &Arc<Notify>) -> Arc<Entry<K>> {
        let key = (namespace.to_owned(), name.to_owned());
        let mut entries = self.entries.lock();
        let entry = entries.get(&key).and_then(Weak::upgrade).unwrap_or_else(|| {
            let entry = self.begin(&key);
            entries.insert(key, Arc::downgrade(&entry));
            entry
        });
        entry.news.add_listener(changed);
        entry
    }

    fn begin(&self, key: &Key) -> Arc<Entry<K>> {
        let news = Arc::new(News::default());
        let mut task = JoinSet::new();
        let (namespace, name) = key.clone();
        task.spawn(follow(self.api.clone(), Arc::clone(&self.beginning), namespace, name, Arc::clone(&news)));
        Arc::new(Entry { key: key.clone(), entries: Arc::clone(&self.entries), news, _task: task })
    }

    /// How many objects are held.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.lock().len()
    }
}

/// One object that somebody holds. It is followed until the last holder drops it.
pub(super) struct Entry<K> {
    key: Key,
    entries: Entries<K>,
    news: Arc<News<Found<K>>>,
    _task: JoinSet<()>,
}

impl<K: Referable> Entry<K> {
    /// The object, or that there is none, once that is known.
    ///
    /// # Errors
    /// When the API server does not tell.
    pub(super) async fn get(&self) -> Result<Option<Arc<K>>, FetchError> {
        let found = self.news.heard().await;
        let found = found.map_err(|why| FetchError { kind: K::KIND, name: self.key.1.clone(), why });
        Ok(found?.0)
    }
}

impl<K> Drop for Entry<K> {
    fn drop(&mut self) {
        let mut entries = self.entries.lock();
        // Somebody else may have begun to hold the object again meanwhile.
        if entries.get(&self.key).is_some_and(|entry| entry.strong_count() == 0) {
            entries.remove(&self.key);
        }
    }
}

/// An object as it is, or that there is none. Equal are those of one version.
pub(super) struct Found<K>(pub(super) Option<Arc<K>>);

impl<K> Clone for Found<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K: Referable> PartialEq for Found<K> {
    fn eq(&self, other: &Self) -> bool {
        let version = |object: &Arc<K>| (object.meta().uid.clone(), object.meta().resource_version.clone());
        self.0.as_ref().map(version) == other.0.as_ref().map(version)
    }
}
