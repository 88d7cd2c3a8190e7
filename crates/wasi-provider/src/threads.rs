//! The threads that run guests and nothing else.

use std::io;
use std::sync::Arc;

use coracle_lifecycle::Network;
use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle, Runtime};
use tracing::error;

use crate::network::Namespace;

/// The threads that run guests: a socket is made in the network namespace of the thread that makes it, so those of pods
/// that live in the machine's own network are others.
pub(crate) struct GuestThreads {
    number: usize,
    pods: GuestRuntime,
    /// Whether the threads of pods live in a namespace of the pods.
    are_apart: bool,
    /// Made when the first container needs them.
    host: Mutex<Option<GuestRuntime>>,
}

impl GuestThreads {
    /// Starts as many threads, in the pods' namespace where there is one.
    pub(crate) fn start(number: usize, namespace: Option<Arc<Namespace>>) -> io::Result<Self> {
        let are_apart = namespace.is_some();
        let pods = GuestRuntime::start(number, namespace)?;
        Ok(Self { number, pods, are_apart, host: Mutex::default() })
    }

    /// The threads for what needs no network.
    pub(crate) fn any(&self) -> Handle {
        self.pods.handle()
    }

    /// The threads on which a container with this network runs.
    ///
    /// # Errors
    /// Threads cannot be started.
    pub(crate) fn of(&self, network: &Network) -> io::Result<Handle> {
        if network.host || network.shared { self.outside() } else { Ok(self.any()) }
    }

    /// The threads for what the node does for pods in the machine's own network.
    ///
    /// # Errors
    /// Threads cannot be started.
    pub(crate) fn outside(&self) -> io::Result<Handle> {
        if self.are_apart { self.host() } else { Ok(self.any()) }
    }

    /// Threads in the machine's own network.
    fn host(&self) -> io::Result<Handle> {
        let mut host = self.host.lock();
        match &*host {
            Some(runtime) => Ok(runtime.handle()),
            None => Ok(host.insert(GuestRuntime::start(self.number, None)?).handle()),
        }
    }
}

struct GuestRuntime(Option<Runtime>);

impl GuestRuntime {
    fn start(threads: usize, namespace: Option<Arc<Namespace>>) -> io::Result<Self> {
        let mut builder = Builder::new_multi_thread();
        // Guests compute for a whole tick: timers and sockets of the others are looked at after every one of them.
        builder.event_interval(1).global_queue_interval(1);
        if let Some(namespace) = namespace {
            // A thread that stays outside can bind no address of a pod, so that its guests have no network.
            builder.on_thread_start(move || {
                if let Err(error) = namespace.enter() {
                    error!(%error, "a thread cannot enter the pods' network");
                }
            });
        }
        builder.worker_threads(threads).thread_name("guest").enable_all().build().map(Some).map(Self)
    }

    fn handle(&self) -> Handle {
        let runtime = self.0.as_ref();
        runtime.map_or_else(|| unreachable!("taken by `drop` only"), |runtime| runtime.handle().clone())
    }
}

impl Drop for GuestRuntime {
    fn drop(&mut self) {
        // A plain drop would wait for guests blocked in a system call.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
