//! One run of one container, from its start to its end.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use coracle_lifecycle::{BoxFuture, Cause, Container, ContainerSpec, Exit, Known, Usage};
use futures::FutureExt as _;
use jiff::Timestamp;
use tokio::sync::{Notify, watch};
use wasmtime_wasi::WasiCtxBuilder;

use crate::clock::now;
use crate::end::{self, Verdict};
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
    /// Held while the guest runs: who else holds it knows that the guest stands still.
    turn: Mutex<()>,
    stopping: Mutex<Option<Stopping>>,
    stop_asked: Notify,
    ticker: Arc<Ticker>,
    cpu: Arc<CpuTime>,
    memory: Arc<Count>,
    /// Until the end.
    log: Mutex<Option<Log>>,
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
    pub(crate) place: Place,
}

impl Run {
    pub(crate) fn new(spec: ContainerSpec, log: Log, ticker: Arc<Ticker>, memory: Arc<Count>) -> Self {
        Self {
            spec,
            started_at: now(),
            exit: watch::Sender::new(None),
            turn: Mutex::default(),
            stopping: Mutex::default(),
            stop_asked: Notify::new(),
            ticker,
            cpu: Arc::default(),
            memory,
            log: Mutex::new(Some(log)),
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

    /// Runs the guest to its end, or until it is asked to stop, and makes the end known; also when this is dropped
    /// before it is polled.
    pub(crate) fn live(self: Arc<Self>, guest: Guest) -> impl Future<Output = ()> + Send {
        let ending = EndKnown(self);
        async move {
            let run = &ending.0;
            let Guest { program, world, limiter, place: _place } = guest;
            let running = AssertUnwindSafe(program.run(world, limiter)).catch_unwind();
            let turns = Turns { run, running: Timed::new(Box::pin(running), Arc::clone(&run.cpu)) };
            tokio::select! {
                biased;
                () = turns => {}
                () = run.stop_asked.notified() => run.end_stopped(),
            }
        }
    }

    fn is_ended(&self) -> bool {
        self.exit.borrow().is_some()
    }

    /// Makes the end of a guest that stands still known, once.
    fn end(&self, cause_and_message: impl FnOnce(Option<&Stopping>) -> (Cause, Option<String>)) {
        let mut stopping = lock(&self.stopping);
        if self.is_ended() {
            return;
        }
        if let Some(log) = lock(&self.log).take() {
            log.finish();
        }
        let (cause, message) = cause_and_message(stopping.take().as_ref());
        let exit = Exit { cause, message, started_at: self.started_at, finished_at: now() };
        self.exit.send_replace(Some(exit));
    }

    fn end_stopped(&self) {
        self.end(|stopping| (stopping.map_or(Cause::Killed, |stopping| stopping.cause), None));
    }
}

/// Tells a run's end whatever becomes of its task: when that goes away with its runtime, the run is lost.
struct EndKnown(Arc<Run>);

impl Drop for EndKnown {
    fn drop(&mut self) {
        self.0.end(|_| (Cause::Lost, None));
    }
}

/// Gives a guest its turns until it ends or is asked to stop.
struct Turns<'a, F> {
    run: &'a Run,
    running: F,
}

impl<F: Future<Output = thread::Result<Verdict>> + Unpin> Future for Turns<'_, F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let run = self.run;
        let _turn = lock(&run.turn);
        if run.is_ended() {
            return Poll::Ready(());
        }
        match Pin::new(&mut self.running).poll(context) {
            // A guest that ended while it was asked to stop keeps its own end.
            Poll::Ready(Ok(verdict)) => run.end(|_| end::of(verdict)),
            Poll::Ready(Err(panic)) => run.end(|_| end::of_panic(&*panic)),
            Poll::Pending if lock(&run.stopping).is_none() => return Poll::Pending,
            Poll::Pending => run.end_stopped(),
        }
        Poll::Ready(())
    }
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

    /// No guest can hear yet that it is to stop, so none is waited for. One that stands still, perhaps in a queue
    /// behind others, has ended when this returns; its task only cleans up. One that runs ends with its turn.
    fn stop(&self, grace: Duration) {
        {
            let mut stopping = lock(&self.stopping);
            if self.is_ended() {
                return;
            }
            let cause = if grace.is_zero() { Cause::Killed } else { Cause::Stopped };
            stopping.get_or_insert_with(|| Stopping { cause, _hurry: self.ticker.hurry() });
        }
        if let Ok(_turn) = self.turn.try_lock() {
            self.end_stopped();
        }
        self.stop_asked.notify_one();
    }

    fn usage(&self) -> BoxFuture<'_, Usage> {
        Box::pin(async { Usage { cpu: self.cpu.get(), memory: self.memory.get() } })
    }
}
