use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;

use super::FetchError;
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
    news: Arc<News<K>>,
    _task: JoinSet<()>,
}

impl<K: Referable> Entry<K> {
    /// The object, or that there is none, once that is known.
    ///
    /// # Errors
    /// When the API server does not tell.
    pub(super) async fn get(&self) -> Result<Option<Arc<K>>, FetchError> {
        let mut state = self.news.state.subscribe();
        let known = state.wait_for(|state| !matches!(state, State::Pending)).await;
        match known.as_deref() {
            Ok(State::Known(object)) => Ok(object.clone()),
            Ok(State::Failed(why)) => Err(self.error(why)),
            Ok(State::Pending) | Err(_) => Err(self.error("the node is stopping")),
        }
    }

    fn error(&self, why: &str) -> FetchError {
        FetchError { kind: K::KIND, name: self.key.1.clone(), why: why.to_owned() }
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

/// What is known of an object.
pub(super) enum State<K> {
    /// The API server was not heard yet.
    Pending,
    /// The object as it is now; `None` when there is none.
    Known(Option<Arc<K>>),
    /// The API server does not tell, and was never heard.
    Failed(String),
}

/// What is known of an object, and who wants to hear when that changes.
pub(super) struct News<K> {
    state: watch::Sender<State<K>>,
    listeners: Mutex<Vec<Weak<Notify>>>,
}

impl<K> Default for News<K> {
    fn default() -> Self {
        Self { state: watch::Sender::new(State::Pending), listeners: Mutex::default() }
    }
}

impl<K: Referable> News<K> {
    /// Makes known what was heard. Who waits for the first news hears it there; listeners hear of changes.
    pub(super) fn tell(&self, new: State<K>) {
        let mut is_change = false;
        self.state.send_if_modified(|state| {
            let is_new = !is_same(state, &new);
            is_change = is_new && !matches!(state, State::Pending);
            if is_new {
                *state = new;
            }
            is_new
        });
        if is_change {
            self.listeners
                .lock()
                .retain(|listener| listener.upgrade().inspect(|listener| listener.notify_one()).is_some());
        }
    }

    fn add_listener(&self, listener: &Arc<Notify>) {
        let mut listeners = self.listeners.lock();
        listeners.retain(|listener| listener.strong_count() > 0);
        listeners.push(Arc::downgrade(listener));
    }
}

fn is_same<K: Referable>(old: &State<K>, new: &State<K>) -> bool {
    match (old, new) {
        (State::Known(Some(old)), State::Known(Some(new))) => {
            let version = |object: &K| (object.meta().uid.clone(), object.meta().resource_version.clone());
            version(old) == version(new)
        }
        (State::Known(None), State::Known(None)) => true,
        (State::Failed(old), State::Failed(new)) => old == new,
        _ => false,
    }
}
