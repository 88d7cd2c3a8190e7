//! The clock that makes guests yield.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use wasmtime::{Engine, EngineWeak};

/// How long a computing guest keeps its thread before others have their turn.
const TICK: Duration = Duration::from_millis(10);
/// The same while a stop waits: behind forty computing guests the one to be stopped still has its turn within 100 ms.
const HURRIED_TICK: Duration = Duration::from_millis(1);

/// Advances the epoch of its engines from a thread of its own, until all of them are gone.
pub(crate) struct Ticker {
    thread: Thread,
    hurries: Arc<AtomicUsize>,
}

impl Ticker {
    pub(crate) fn start<'a>(engines: impl IntoIterator<Item = &'a Engine>) -> io::Result<Self> {
        let engines: Vec<_> = engines.into_iter().map(Engine::weak).collect();
        let hurries = Arc::new(AtomicUsize::new(0));
        let ticking = thread::Builder::new().name("guest-epochs".to_owned()).spawn({
            let hurries = Arc::clone(&hurries);
            move || tick(&engines, &hurries)
        })?;
        Ok(Self { thread: ticking.thread().clone(), hurries })
    }

    /// Ticks faster until what is returned is dropped.
    pub(crate) fn hurry(&self) -> Hurry {
        self.hurries.fetch_add(1, Ordering::Relaxed);
        self.thread.unpark();
        Hurry(Arc::clone(&self.hurries))
    }
}

fn tick(engines: &[EngineWeak], hurries: &AtomicUsize) {
    let mut alive = true;
    while alive {
        let is_calm = hurries.load(Ordering::Relaxed) == 0;
        thread::park_timeout(if is_calm { TICK } else { HURRIED_TICK });
        alive = false;
        for engine in engines.iter().filter_map(EngineWeak::upgrade) {
            engine.increment_epoch();
            alive = true;
        }
    }
}

/// Somebody waits for a guest to yield.
pub(crate) struct Hurry(Arc<AtomicUsize>);

impl Drop for Hurry {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
