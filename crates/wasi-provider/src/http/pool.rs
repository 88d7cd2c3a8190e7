//! Instances that are waiting for a request.

use std::mem::take;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

use super::job::Job;
use super::work::Work;

/// What a waiting instance is sent: a request, or that it is not needed any more.
pub(super) type Inbox = UnboundedSender<Option<Box<Job>>>;

/// The instances that could take a request, the one that was busy last on top: the others get old.
#[derive(Default)]
pub(super) struct Pool(Mutex<Places>);

#[derive(Default)]
struct Places {
    waiting: Vec<Waiting>,
    is_closed: bool,
}

struct Waiting {
    inbox: Inbox,
    since: Instant,
    /// That of an instance which rests.
    work: Option<Work>,
}

impl Pool {
    /// Adds an instance that can take one more request while its work goes on.
    pub(super) fn add(&self, inbox: Inbox) {
        self.push(Waiting { inbox, since: Instant::now(), work: None });
    }

    /// Adds an instance that rests: its work goes on when it is taken out for a request.
    pub(super) fn rest(&self, work: Work) {
        let inbox = work.inbox().clone();
        self.push(Waiting { inbox, since: Instant::now(), work: Some(work) });
    }

    fn push(&self, waiting: Waiting) {
        let mut places = self.0.lock();
        if places.is_closed {
            drop(places);
            waiting.send_away();
        } else {
            places.waiting.push(waiting);
        }
    }

    /// Gives the job to an instance that waits, and tells the work of one that has rested; or gives the job back.
    pub(super) fn offer(&self, mut job: Box<Job>) -> Result<Option<Work>, Box<Job>> {
        loop {
            let Some(waiting) = self.0.lock().waiting.pop() else { return Err(job) };
            match waiting.inbox.send(Some(job)) {
                Ok(()) => return Ok(waiting.work),
                // It has ended meanwhile.
                Err(refused) => match refused.0 {
                    Some(back) => job = back,
                    None => return Ok(None),
                },
            }
        }
    }

    /// Sends those away that have waited for longer than this.
    pub(super) fn retire(&self, limit: Duration) {
        let mut places = self.0.lock();
        let kept = places.waiting.iter().position(|one| one.since.elapsed() < limit);
        let kept = kept.unwrap_or(places.waiting.len());
        let old: Vec<_> = places.waiting.drain(..kept).collect();
        // Whatever ends with them looks for its places in here.
        drop(places);
        old.into_iter().for_each(Waiting::send_away);
    }

    /// Sends all away, and whoever comes later.
    pub(super) fn close(&self) {
        let mut places = self.0.lock();
        places.is_closed = true;
        let all = take(&mut places.waiting);
        drop(places);
        all.into_iter().for_each(Waiting::send_away);
    }

    /// Takes out all inboxes of an instance that has ended.
    pub(super) fn remove(&self, inbox: &Inbox) {
        self.0.lock().waiting.retain(|waiting| !waiting.inbox.same_channel(inbox));
    }
}

impl Waiting {
    fn send_away(self) {
        // Who has ended meanwhile needs not be told.
        let _ = self.inbox.send(None);
    }
}
