//! One run of one container, from its start to its end.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use coracle_lifecycle::{
    BoxFuture, Cause, Container, ContainerSpec, ExecError, ExecRequest, Exit, Known, Streams, Usage,
};
use futures::FutureExt as _;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::beside::Beside;
use crate::clock::now;
use crate::end::{self, Verdict};
use crate::log::Log;
use crate::network::Entrance;
use crate::ticker::{Hurry, Ticker};
use crate::turns::Turns;
use crate::usage::{CpuTime, Timed};

/// A container that was started: what is known of it and the way to stop it.
pub(crate) struct Run {
    own: Weak<Self>,
    spec: ContainerSpec,
    started_at: Timestamp,
    exit: watch::Sender<Option<Exit>>,
    ear: Ear,
    turns: Turns,
    stopping: Mutex<Option<Stopping>>,
    stop_asked: Notify,
    /// When its grace is over, if it was asked to stop and could hear it.
    killed_at: watch::Sender<Option<Instant>>,
    ticker: Arc<Ticker>,
    cpu: Arc<CpuTime>,
    beside: Beside,
    /// Until the end.
    log: Mutex<Option<Log>>,
}

/// How a guest can be asked to end.
pub(crate) enum Ear {
    /// It cannot hear it itself: its entrance is closed, and it ends when nobody is inside any more.
    Entrance(Arc<Entrance>),
    /// It serves connections: cancelling this asks it to finish what it has begun, and to take no more.
    Server(CancellationToken),
    /// It reads its standard input, which ends when this is cancelled; then its entrance is closed too.
    Reader(Arc<Entrance>, CancellationToken),
}

impl Ear {
    /// Asks the guest to end; tells whether there may be something that it has to finish.
    fn ask(&self) -> bool {
        match self {
            Self::Entrance(entrance) => entrance.close(),
            Self::Server(asked) => {
                asked.cancel();
                true
            }
            Self::Reader(entrance, asked) => {
                entrance.close();
                asked.cancel();
                true
            }
        }
    }

    /// The guest has ended.
    fn abandon(&self) {
        if let Self::Entrance(entrance) | Self::Reader(entrance, _) = self {
            entrance.abandon();
        }
    }

    /// Whether the guest may have sockets of its own that listen.
    fn holds_sockets(&self) -> bool {
        match self {
            Self::Entrance(entrance) | Self::Reader(entrance, _) => entrance.holds_sockets(),
            Self::Server(_) => false,
        }
    }

    /// When nobody is let in any more.
    fn closing(&self) -> CancellationToken {
        match self {
            Self::Entrance(entrance) | Self::Reader(entrance, _) => entrance.closing(),
            Self::Server(drain) => drain.clone(),
        }
    }

    /// Waits until a guest that was asked to end has nothing left to do but cannot know it.
    async fn is_idle(&self) {
        match self {
            Self::Entrance(entrance) => entrance.deserted().await,
            Self::Server(_) | Self::Reader(..) => std::future::pending().await,
        }
    }
}

struct Stopping {
    cause: Cause,
    _hurry: Hurry,
}

impl Run {
    pub(crate) fn new(
        spec: ContainerSpec,
        log: Log,
        ear: Ear,
        ticker: Arc<Ticker>,
        beside: Beside,
    ) -> Arc<Self> {
        Arc::new_cyclic(|own| Self {
            own: Weak::clone(own),
            spec,
            started_at: now(),
            exit: watch::Sender::new(None),
            ear,
            turns: Turns::default(),
            stopping: Mutex::default(),
            stop_asked: Notify::new(),
            killed_at: watch::Sender::new(None),
            ticker,
            cpu: Arc::default(),
            beside,
            log: Mutex::new(Some(log)),
        })
    }

    pub(crate) fn spec(&self) -> &ContainerSpec {
        &self.spec
    }

    /// Cancelled when nobody is let in any more.
    pub(crate) fn closing(&self) -> CancellationToken {
        self.ear.closing()
    }

    pub(crate) fn known(self: &Arc<Self>) -> Known {
        Known {
            spec: self.spec.clone(),
            started_at: self.started_at,
            exit: self.exit.borrow().clone(),
            container: Arc::clone(self) as Arc<dyn Container>,
        }
    }

    /// Does the run's work to its end, or until the run is stopped, and makes the end known; also when this is dropped
    /// before it is polled.
    pub(crate) fn live(
        self: Arc<Self>,
        work: impl Future<Output = Verdict> + Send + 'static,
    ) -> impl Future<Output = ()> + Send {
        let ending = EndKnown(self);
        async move {
            let run = &ending.0;
            // Inside its turn, so that a guest that ended while it was asked to stop keeps its own end.
            let finished = async {
                let verdict = AssertUnwindSafe(work).catch_unwind().await;
                run.end(|_| verdict.map_or_else(|panic| end::of_panic(&*panic), end::of));
            };
            tokio::select! {
                biased;
                _ = run.turn(Box::pin(finished)) => {}
                () = run.stop_asked.notified() => {}
                () = run.ear.is_idle() => run.kill(Cause::Stopped),
                () = run.grace_over() => run.kill(Cause::Killed),
            }
            // The guest's sockets went with its work: others may have their addresses.
            if run.ear.holds_sockets() {
                run.end_stopped(Cause::Killed);
            }
            // An instance that is having its turn ends with that.
            run.exited().await;
        }
    }

    /// Runs guest code as a part of this run: in turns, of which there are no more once the run is stopped, and counted
    /// as its CPU time. `None` when it was stopped before its end.
    pub(crate) fn turn<F: Future + Unpin>(self: &Arc<Self>, future: F) -> Turn<F> {
        Turn { run: Arc::clone(self), future: Timed::new(future, Arc::clone(&self.cpu)) }
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.exit.borrow().is_some()
    }

    /// Waits for its end.
    pub(crate) async fn ended(&self) {
        let mut exit = self.exit.subscribe();
        // `self` holds the sender, so this ends with a change only.
        let _ = exit.wait_for(Option::is_some).await;
    }

    /// Makes the end of a guest that stands still known, once.
    fn end(&self, cause_and_message: impl FnOnce(Option<&Stopping>) -> (Cause, Option<String>)) {
        let mut stopping = self.stopping.lock();
        if self.is_ended() {
            return;
        }
        if let Some(log) = self.log.lock().take() {
            log.finish();
        }
        self.ear.abandon();
        let (cause, message) = cause_and_message(stopping.take().as_ref());
        let exit = Exit { cause, message, started_at: self.started_at, finished_at: now() };
        self.exit.send_replace(Some(exit));
    }

    fn end_stopped(&self, otherwise: Cause) {
        self.end(|stopping| (stopping.map_or(otherwise, |stopping| stopping.cause), None));
    }

    /// The end of a guest that has no turns any more. One that listens has ended when its task has closed its sockets: a
    /// container that is started again needs their addresses.
    fn end_still(&self, otherwise: Cause) {
        if !self.ear.holds_sockets() {
            self.end_stopped(otherwise);
        }
    }

    /// Ends the run by force. One that stands still, perhaps in a queue behind others, has ended when this returns, but for
    /// one that listens; its tasks only clean up. One that runs ends with its turn.
    fn kill(&self, cause: Cause) {
        {
            let mut stopping = self.stopping.lock();
            if self.is_ended() {
                return;
            }
            stopping.get_or_insert_with(|| Stopping { cause, _hurry: self.ticker.hurry() });
        }
        if self.turns.close() {
            self.end_still(cause);
        }
        self.stop_asked.notify_one();
    }

    async fn grace_over(&self) {
        let mut killed_at = self.killed_at.subscribe();
        loop {
            let at = *killed_at.borrow_and_update();
            let over = async {
                match at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = over => return,
                // `self` holds the sender, so this is a change.
                _ = killed_at.changed() => {}
            }
        }
    }
}

/// Tells a run's end whatever becomes of its task: when that goes away with its runtime, the run is lost.
struct EndKnown(Arc<Run>);

impl Drop for EndKnown {
    fn drop(&mut self) {
        self.0.end_stopped(Cause::Lost);
    }
}

/// A part of a run's work: see [`Run::turn`].
pub(crate) struct Turn<F> {
    run: Arc<Run>,
    future: Timed<F>,
}

impl<F: Future + Unpin> Future for Turn<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<F::Output>> {
        let Self { run, future } = &mut *self;
        if !run.turns.begin() {
            return Poll::Ready(None);
        }
        let _begun = Begun(run);
        Pin::new(future).poll(context).map(Some)
    }
}

/// Gives a turn back, also when the guest's host functions panicked in it.
struct Begun<'a>(&'a Run);

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        if self.0.turns.give_back() {
            self.0.end_still(Cause::Killed);
        }
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

    /// A guest with something to finish has its grace for that; any other is not waited for.
    fn stop(&self, grace: Duration) {
        if !grace.is_zero() && self.ear.ask() {
            let at = Instant::now().checked_add(grace);
            self.killed_at.send_modify(|killed_at| *killed_at = [*killed_at, at].into_iter().flatten().min());
            return;
        }
        self.kill(if grace.is_zero() { Cause::Killed } else { Cause::Stopped });
    }

    fn exec(&self, request: ExecRequest, streams: Streams) -> BoxFuture<'_, Result<i32, ExecError>> {
        Box::pin(async {
            let run = self.own.upgrade().ok_or(ExecError::NotRunning)?;
            self.beside.exec(run, request.command, streams).await
        })
    }

    fn usage(&self) -> BoxFuture<'_, Usage> {
        Box::pin(async { Usage { cpu: self.cpu.get(), memory: self.beside.allowance.container.0.get() } })
    }
}
