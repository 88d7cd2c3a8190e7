//! The tasks of one server.

use std::future::poll_fn;
use std::task::ready;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

/// Tasks that end when they are done, or all at once. Those that are done are forgotten as others begin.
#[derive(Debug)]
pub(super) struct Tasks {
    set: Mutex<JoinSet<()>>,
    runtime: Handle,
}

impl Tasks {
    /// No tasks yet; they will run on this runtime.
    pub(super) fn on(runtime: Handle) -> Self {
        Self { set: Mutex::default(), runtime }
    }

    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut set = self.set.lock();
        while set.try_join_next().is_some() {}
        set.spawn_on(task, &self.runtime);
    }

    /// Waits until there are none, those that begin meanwhile among them.
    pub(super) async fn finished(&self) {
        poll_fn(|context| {
            let mut set = self.set.lock();
            while ready!(set.poll_join_next(context)).is_some() {}
            std::task::Poll::Ready(())
        })
        .await;
    }

    /// Ends all of them, each before its next turn.
    pub(super) fn abort(&self) {
        self.set.lock().abort_all();
    }
}
