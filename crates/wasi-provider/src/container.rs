//! One run of one container, from its start to its end.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use coracle_lifecycle::{BoxFuture, Cause, Container, ContainerSpec, Exit, Known, Usage};
use futures::FutureExt as _;
use jiff::Timestamp;
use tokio::sync::{Notify, watch};
use wasmtime_wasi::WasiCtxBuilder;

use crate::clock::now;
use crate::end;
use crate::locks::lock;
use crate::log::Log;
use crate::program::Program;
use crate::room::Place;
use crate::ticker::{Hurry, Ticker};
use crate::usage::{Count, CpuTime, Limiter, Timed};

/// A container that was started: what is known of it and the way to stop it.
pub(crate) struct Run {
    spec: ContainerSpec,
    started_at: Timestamp,
    exit: watch::Sender<Option<Exit>>,
    stopping: Mutex<Option<Stopping>>,
    stop_asked: Notify,
    ticker: Arc<Ticker>,
    cpu: Arc<CpuTime>,
    memory: Arc<Count>,
}

struct Stopping {
    cause: Cause,
    _hurry: Hurry,
}

/// All that one run takes with it.
pub(crate) struct Guest {
    pub(crate) program: Arc<Program>,
    pub(crate) world: WasiCtxBuilder,
    pub(crate) limiter: Limiter,
    pub(crate) log: Log,
    pub(crate) place: Place,
}

impl Run {
    pub(crate) fn new(spec: ContainerSpec, ticker: Arc<Ticker>, memory: Arc<Count>) -> Self {
        Self {
            spec,
            started_at: now(),
            exit: watch::Sender::new(None),
            stopping: Mutex::default(),
            stop_asked: Notify::new(),
            ticker,
            cpu: Arc::default(),
            memory,
        }
    }

    pub(crate) fn spec(&self) -> &ContainerSpec {
        &self.spec
    }

    pub(crate) fn known(self: &Arc<Self>) -> Known {
        Known {
            spec: self.spec.clone(),
            started_at: self.started_at,
            exit: self.exit.borrow().clone(),
            container: Arc::clone(self) as Arc<dyn Container>,
        }
    }

    /// Runs the guest to its end, or to the moment when it is asked to stop, and makes the end known.
    pub(crate) async fn live(self: Arc<Self>, guest: Guest) {
        let end = EndKnown(&self);
        let Guest { program, world, limiter, log, place } = guest;
        let own_end = {
            let running = AssertUnwindSafe(program.run(world, limiter)).catch_unwind();
            let mut running = Timed::new(Box::pin(running), Arc::clone(&self.cpu));
            tokio::select! {
                // A guest that ended in the same moment keeps its own end.
                biased;
                verdict = &mut running => Some(match verdict {
                    Ok(verdict) => end::of(verdict),
                    Err(panic) => end::of_panic(&*panic),
                }),
                () = self.stop_asked.notified() => None,
            }
        };
        log.finish();
        drop((log, place));
        end.tell(own_end);
    }

    /// Makes the end known, once.
    fn end(&self, cause_and_message: impl FnOnce(Option<&Stopping>) -> (Cause, Option<String>)) {
        let mut stopping = lock(&self.stopping);
        if self.exit.borrow().is_none() {
            let (cause, message) = cause_and_message(stopping.take().as_ref());
            let exit = Exit { cause, message, started_at: self.started_at, finished_at: now() };
            self.exit.send_replace(Some(exit));
        }
    }
}

/// Tells a run's end whatever becomes of its task: when that goes away with its runtime, the run is lost.
struct EndKnown<'a>(&'a Run);

impl EndKnown<'_> {
    fn tell(self, own_end: Option<(Cause, Option<String>)>) {
        self.0.end(|stopping| own_end.unwrap_or_else(|| (stopped_by(stopping), None)));
    }
}

impl Drop for EndKnown<'_> {
    fn drop(&mut self) {
        self.0.end(|_| (Cause::Lost, None));
    }
}

fn stopped_by(stopping: Option<&Stopping>) -> Cause {
    stopping.map_or(Cause::Killed, |stopping| stopping.cause)
}

impl Container for Run {
    fn exited(&self) -> BoxFuture<'_, Exit> {
        let mut exit = self.exit.subscribe();
        Box::pin(async move {
            loop {
                if let Some(exit) = exit.borrow_and_update().clone() {
                    return exit;
                }
                // `self` holds the sender, so this ends with a change only.
                let _ = exit.changed().await;
            }
        })
    }

    /// No guest can hear yet that it is to stop, so none is waited for.
    fn stop(&self, grace: Duration) {
        let mut stopping = lock(&self.stopping);
        if self.exit.borrow().is_none() {
            let cause = if grace.is_zero() { Cause::Killed } else { Cause::Stopped };
            stopping.get_or_insert_with(|| Stopping { cause, _hurry: self.ticker.hurry() });
            self.stop_asked.notify_one();
        }
    }

    fn usage(&self) -> BoxFuture<'_, Usage> {
        Box::pin(async { Usage { cpu: self.cpu.get(), memory: self.memory.get() } })
    }
}
