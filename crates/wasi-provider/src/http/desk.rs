//! What is known of the requests of one instance.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::exchange::Exchange;
use super::job::Job;
use super::pool::{Inbox, Pool};
use super::settings::Settings;

/// An instance is ended this much later than the client is told that it took too long.
const AFTERWARDS: Duration = Duration::from_millis(250);

/// The requests of one instance.
#[derive(Default)]
pub(super) struct Desk {
    at_work: Vec<Arc<Exchange>>,
    /// The last one that was answered: what the guest does afterwards is its.
    last: Option<Arc<Exchange>>,
    began: usize,
    /// How many places in the pool it has.
    waits: usize,
    is_leaving: bool,
    rests: bool,
}

impl Desk {
    pub(super) fn begin(&mut self, job: &Job) {
        self.began += 1;
        self.rests = false;
        self.at_work.push(Arc::clone(&job.exchange));
    }

    pub(super) fn finish(&mut self, done: &Arc<Exchange>) {
        self.at_work.retain(|exchange| !Arc::ptr_eq(exchange, done));
        self.last = Some(Arc::clone(done));
    }

    /// Notes that what waited was taken out of the pool.
    pub(super) fn leave_pool(&mut self) {
        self.waits -= 1;
    }

    /// Notes that nobody needs it any more.
    pub(super) fn leave(&mut self) {
        self.is_leaving = true;
    }

    /// Nothing is left to do; tells whether it is done, or may wait for one more request.
    pub(super) fn tidy(&mut self, settings: &Settings) -> bool {
        self.last = None;
        let is_done = self.is_done(settings);
        if !is_done && !settings.shares_instances() {
            (self.rests, self.waits) = (true, 1);
        }
        is_done
    }

    /// Whether it needs no turns until it is sent something.
    pub(super) fn rests(&self) -> bool {
        self.rests
    }

    /// Whether it takes no more requests.
    fn is_done(&self, settings: &Settings) -> bool {
        let is_late = |exchange: &Arc<Exchange>| exchange.deadline() <= Instant::now();
        self.is_leaving || self.began >= settings.instance_requests || self.at_work.iter().any(is_late)
    }

    /// Takes a place in the pool when one more request could be taken beside those at work.
    pub(super) fn wait_in_pool(&mut self, settings: &Settings, pool: &Pool, inbox: &Inbox) {
        let room = self.at_work.len() + self.waits < settings.instance_concurrency
            && self.began + self.waits < settings.instance_requests;
        // One place at a time: the next one after the next request waits for something too.
        if settings.shares_instances() && room && self.waits == 0 && !self.is_done(settings) {
            self.waits = 1;
            pool.add(inbox.clone());
        }
    }

    /// When to look again whether the requests go on; `None` when none of them does.
    pub(super) fn deadline(&self, patience: Duration) -> Option<Instant> {
        let now = Instant::now();
        let mut exchanges = self.at_work.iter().chain(&self.last).peekable();
        if exchanges.peek().is_none() {
            return Some(now + patience);
        }
        exchanges.map(|exchange| exchange.deadline() + AFTERWARDS).filter(|deadline| *deadline > now).min()
    }
}
