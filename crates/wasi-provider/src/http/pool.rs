//! Instances that are waiting for a request.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

use super::job::Job;

/// What a waiting instance is sent: a request, or that it is not needed any more.
pub(super) type Inbox = UnboundedSender<Option<Box<Job>>>;

/// The inboxes of instances that could take a request, the one that was busy last on top: the others get old.
#[derive(Default)]
pub(super) struct Pool(Mutex<Vec<Waiting>>);

struct Waiting {
    inbox: Inbox,
    since: Instant,
}

impl Pool {
    /// Adds an instance that can take one more request.
    pub(super) fn add(&self, inbox: Inbox) {
        self.0.lock().push(Waiting { inbox, since: Instant::now() });
    }

    /// Gives the job to an instance that waits, or back.
    pub(super) fn offer(&self, mut job: Box<Job>) -> Result<(), Box<Job>> {
        loop {
            let Some(waiting) = self.0.lock().pop() else { return Err(job) };
            match waiting.inbox.send(Some(job)) {
                Ok(()) => return Ok(()),
                // It has ended meanwhile.
                Err(refused) => match refused.0 {
                    Some(back) => job = back,
                    None => return Ok(()),
                },
            }
        }
    }

    /// Sends those away that have waited for longer than this.
    pub(super) fn retire(&self, limit: Duration) {
        let mut waiting = self.0.lock();
        let kept = waiting.iter().position(|one| one.since.elapsed() < limit).unwrap_or(waiting.len());
        for old in waiting.drain(..kept) {
            // Who has ended meanwhile needs not be told.
            let _ = old.inbox.send(None);
        }
    }

    /// Takes out all inboxes of an instance that has ended.
    pub(super) fn remove(&self, inbox: &Inbox) {
        self.0.lock().retain(|waiting| !waiting.inbox.same_channel(inbox));
    }
}
