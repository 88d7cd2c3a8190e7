//! Where servers are asked for probes.

use std::convert::Infallible;
use std::{io, thread};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// The threads at most that look up the names of servers.
const LOOKUPS: usize = 4;

/// A thread for all probes that are made by network: thousands of tries a second wake no other thread of the agent, and none of
/// them waits for what the agent is busy with. It ends when this is dropped.
pub(crate) struct Prober {
    runtime: Handle,
    _end: Option<oneshot::Sender<Infallible>>,
}

impl Prober {
    /// Begins the thread.
    ///
    /// # Errors
    /// When the machine has no thread left.
    pub(crate) fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(LOOKUPS).build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel::<Infallible>();
        thread::Builder::new().name("prober".to_owned()).spawn(move || {
            let _ = runtime.block_on(ended);
            runtime.shutdown_background();
        })?;
        Ok(Self { runtime: handle, _end: Some(end) })
    }

    /// No thread of its own: probes follow the time of the test.
    #[cfg(test)]
    pub(crate) fn here() -> Self {
        Self { runtime: Handle::current(), _end: None }
    }

    /// Where its tasks run.
    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;

    use super::*;

    #[tokio::test]
    async fn its_tasks_have_a_thread_that_ends_with_it() {
        let prober = Prober::start().unwrap();
        let mut tasks = JoinSet::new();
        let name = async { thread::current().name().map(ToOwned::to_owned) };
        tasks.spawn_on(name, prober.runtime());
        assert_eq!(tasks.join_next().await.unwrap().unwrap().as_deref(), Some("prober"));
        tasks.spawn_on(std::future::pending(), prober.runtime());
        drop(prober);
        assert!(tasks.join_next().await.unwrap().unwrap_err().is_cancelled());
    }
}
