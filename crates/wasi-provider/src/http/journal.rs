//! What a server has done, counted, and what went wrong, told in its container's log.

use std::fmt::Display;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::lines::Channel;
use crate::log::Log;

use super::exchange::Exchange;

/// Longer texts are cut: a trap's with its backtrace.
const LONGEST: usize = 2 << 10;

/// The record of one container's server.
pub(super) struct Journal {
    log: Log,
    served: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    trapped: AtomicU64,
}

impl Journal {
    pub(super) fn new(log: Log) -> Self {
        let [served, refused, failed, trapped] = [0; 4].map(AtomicU64::new);
        Self { log, served, refused, failed, trapped }
    }

    /// A guest has answered.
    pub(super) fn answered(&self) {
        self.served.fetch_add(1, Ordering::Relaxed);
    }

    /// A request was refused unseen by a guest, or for a fault of its client.
    pub(super) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// A guest has failed to answer.
    pub(super) fn failed(&self, exchange: &Exchange, why: &dyn Display) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.say(&format!("{}: {why}", exchange.title()));
    }

    /// A guest's answer broke off.
    pub(super) fn broke_off(&self, exchange: &Exchange, why: &dyn Display) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.say(&format!("{}: the answer broke off: {why}", exchange.title()));
    }

    /// An instance has trapped.
    pub(super) fn trapped(&self, why: &dyn Display) {
        self.trapped.fetch_add(1, Ordering::Relaxed);
        self.say(&format!("an instance failed: {why}"));
    }

    pub(super) fn counts(&self) -> Counts {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counts {
            served: count(&self.served),
            refused: count(&self.refused),
            failed: count(&self.failed),
            trapped: count(&self.trapped),
        }
    }

    fn say(&self, text: &str) {
        let end = text.floor_char_boundary(LONGEST);
        self.log.write(Channel::Stderr, format!("coracle: {}\n", text[..end].trim_end()).as_bytes());
    }
}

/// How many requests a server has had, by what became of them, and how many of its instances trapped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) served: u64,
    pub(super) refused: u64,
    pub(super) failed: u64,
    pub(super) trapped: u64,
}
