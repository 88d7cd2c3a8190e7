//! How slowly a client may send and receive.

use std::time::Duration;

use tokio::time::Instant;

/// Bytes a second that a client must come to on the whole.
const LEAST: u64 = 500;

/// A client's progress with a message: no pause longer than allowed, and after the first such time no less than 500
/// bytes for each second.
#[derive(Debug)]
pub(super) struct Pace {
    pause: Duration,
    began: Instant,
    last: Instant,
    bytes: u64,
}

impl Pace {
    pub(super) fn new(pause: Duration, now: Instant) -> Self {
        Self { pause, began: now, last: now, bytes: 0 }
    }

    pub(super) fn add(&mut self, bytes: usize, now: Instant) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
        self.last = now;
    }

    /// When the client is too slow, should it go on with nothing.
    pub(super) fn deadline(&self) -> Instant {
        // Far in the future where it cannot be told; the pause is nearer then anyway.
        let earned = Duration::from_secs(self.bytes / LEAST);
        let by_rate = self.began.checked_add(self.pause + earned).unwrap_or(self.last + self.pause);
        by_rate.min(self.last + self.pause)
    }

    /// Leaves out a time that is not the client's.
    pub(super) fn pass(&mut self, time: Duration) {
        self.began += time;
        self.last += time;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(20);

    #[test]
    fn a_byte_a_second_is_too_slow_and_an_ordinary_client_is_not() {
        let start = Instant::now();
        let seconds = |seconds| start + Duration::from_secs(seconds);
        let after = |bytes_a_second: usize| {
            let mut pace = Pace::new(PAUSE, start);
            let slow = |pace: &Pace, now| pace.deadline() <= now;
            (1..100).find(|second| {
                let is_slow = slow(&pace, seconds(*second));
                pace.add(bytes_a_second, seconds(*second));
                is_slow
            })
        };
        assert_eq!(after(1), Some(20));
        assert!(after(400).is_some_and(|second| second > 20));
        assert_eq!(after(500), None);
        assert_eq!(after(1 << 20), None);
    }

    #[test]
    fn a_client_that_was_quick_may_not_pause_for_long() {
        let start = Instant::now();
        let mut pace = Pace::new(PAUSE, start);
        pace.add(1 << 30, start);
        assert_eq!(pace.deadline(), start + PAUSE);
        pace.add(usize::MAX, start + PAUSE);
        assert_eq!(pace.deadline(), start + 2 * PAUSE);
        pace.pass(PAUSE);
        assert_eq!(pace.deadline(), start + 3 * PAUSE);
    }
}
