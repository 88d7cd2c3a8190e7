use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

/// What is known of something of the API server's, and who wants to hear when that changes.
pub(super) struct News<T> {
    /// `None` until the API server was heard; why it does not tell, if it was never heard since.
    state: watch::Sender<Option<Result<T, String>>>,
    listeners: Mutex<Vec<Weak<Notify>>>,
}

impl<T> Default for News<T> {
    fn default() -> Self {
        Self { state: watch::Sender::new(None), listeners: Mutex::default() }
    }
}

impl<T: Clone + PartialEq> News<T> {
    /// Makes known what was heard. Who waits for the first news hears it there; listeners hear of changes.
    pub(super) fn tell(&self, new: Result<T, String>) {
        let mut is_change = false;
        self.state.send_if_modified(|state| {
            let is_new = state.as_ref() != Some(&new);
            is_change = is_new && state.is_some();
            if is_new {
                *state = Some(new);
            }
            is_new
        });
        if is_change {
            self.listeners
                .lock()
                .retain(|listener| listener.upgrade().inspect(|listener| listener.notify_one()).is_some());
        }
    }

    /// What was heard last, once something was.
    ///
    /// # Errors
    /// When the API server does not tell: why.
    pub(super) async fn heard(&self) -> Result<T, String> {
        let mut state = self.state.subscribe();
        let known = state.wait_for(Option::is_some).await;
        known.ok().and_then(|known| known.clone()).unwrap_or_else(|| Err("the node is stopping".to_owned()))
    }

    /// Whether nothing was heard yet.
    pub(super) fn is_awaited(&self) -> bool {
        self.state.borrow().is_none()
    }

    pub(super) fn add_listener(&self, listener: &Arc<Notify>) {
        let mut listeners = self.listeners.lock();
        listeners.retain(|listener| listener.strong_count() > 0);
        listeners.push(Arc::downgrade(listener));
    }
}
