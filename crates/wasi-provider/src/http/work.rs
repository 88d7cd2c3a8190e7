//! An instance's work, and in whose turns it is done.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;

use super::desk::Desk;
use super::pool::Inbox;
use super::service::Service;
use crate::container::Turn;

type Turns = Turn<Pin<Box<dyn Future<Output = ()> + Send>>>;

/// What one instance does from its making to its end. It goes on while it is polled.
pub(super) struct Work {
    turns: Turns,
    inbox: Inbox,
    desk: Arc<Mutex<Desk>>,
}

impl Work {
    pub(super) fn new(turns: Turns, inbox: Inbox, desk: Arc<Mutex<Desk>>) -> Self {
        Self { turns, inbox, desk }
    }

    pub(super) fn inbox(&self) -> &Inbox {
        &self.inbox
    }
}

/// Work until its end, or until the instance rests in the pool.
pub(super) struct Shift {
    service: Arc<Service>,
    work: Option<Work>,
}

impl Shift {
    pub(super) fn new(service: Arc<Service>, work: Work) -> Self {
        Self { service, work: Some(work) }
    }
}

impl Future for Shift {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Some(work) = &mut self.work else { return Poll::Ready(()) };
        let is_done = Pin::new(&mut work.turns).poll(context).is_ready();
        if !is_done && !work.desk.lock().rests() {
            return Poll::Pending;
        }
        if let Some(work) = self.work.take().filter(|_| !is_done) {
            self.service.pool.rest(work);
        }
        Poll::Ready(())
    }
}

/// A shift in the turns of the connection whose request it is for: most requests need no task beside it. What is left of
/// it when this is dropped goes on as a task of its own.
#[derive(Default)]
pub(super) struct Helper(Option<Shift>);

impl Helper {
    pub(super) fn with(shift: Shift) -> Self {
        Self(Some(shift))
    }

    /// Whether there is anything left to do.
    pub(super) fn is_at_work(&self) -> bool {
        self.0.is_some()
    }

    /// Has a turn, if there is anything left to do.
    pub(super) fn go_on(&mut self, context: &mut Context<'_>) {
        if let Some(shift) = &mut self.0
            && Pin::new(shift).poll(context).is_ready()
        {
            self.0 = None;
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        if let Some(shift) = self.0.take() {
            let service = Arc::clone(&shift.service);
            service.tasks.spawn(shift);
        }
    }
}
