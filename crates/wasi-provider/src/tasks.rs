//! The tasks of one container.

use std::future::poll_fn;
use std::task::ready;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

/// Tasks that end when they are done, or all at once. Those that are done are forgotten as others begin.
#[derive(Debug)]
pub(crate) struct Tasks {
    set: Mutex<JoinSet<()>>,
    runtime: Handle,
}

impl Tasks {
    /// No tasks yet; they will run on this runtime.
    pub(crate) fn on(runtime: Handle) -> Self {
        Self { set: Mutex::default(), runtime }
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut set = self.set.lock();
        while set.try_join_next().is_some() {}
        set.spawn_on(task, &self.runtime);
    }

    /// Waits until there are none, those that begin meanwhile among them.
    pub(crate) async fn finished(&self) {
        poll_fn(|context| {
            let mut set = self.set.lock();
            while ready!(set.poll_join_next(context)).is_some() {}
            std::task::Poll::Ready(())
        })
        .await;
    }

    /// Ends all of them, each before its next turn.
    pub(crate) fn abort(&self) {
        self.set.lock().abort_all();
    }
}
