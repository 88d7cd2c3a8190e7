use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep_until};

use crate::credentials::NodeCredentials;

/// How a node pulls images, and as whom.
#[derive(Clone)]
pub struct PullSettings {
    /// How many are pulled at a time, at least one.
    pub at_a_time: u16,
    /// How many pulls may begin in a second; 0 for any number.
    pub per_second: u16,
    /// How many may begin at once after a quiet time.
    pub burst: u16,
    /// Whom the node is to registries beside what pods bring along.
    pub credentials: NodeCredentials,
}

impl Default for PullSettings {
    /// Eight at a time, as many as there are in a second, as nobody.
    fn default() -> Self {
        Self { at_a_time: 8, per_second: 0, burst: 10, credentials: NodeCredentials::default() }
    }
}

/// Lets pulls begin one after the other.
pub(crate) struct Pulls {
    permits: Semaphore,
    rate: Option<Rate>,
    pub(crate) credentials: NodeCredentials,
}

impl Pulls {
    pub(crate) fn new(settings: PullSettings) -> Self {
        let PullSettings { at_a_time, per_second, burst, credentials } = settings;
        let rate = (per_second > 0).then(|| Rate::new(per_second, burst.max(1)));
        Self { permits: Semaphore::new(at_a_time.max(1).into()), rate, credentials }
    }

    /// Waits until one more pull may go on, which it may as long as it holds what is returned.
    pub(crate) async fn admit(&self) -> Option<SemaphorePermit<'_>> {
        let permit = self.permits.acquire().await.ok();
        if let Some(rate) = &self.rate {
            sleep_until(rate.next(Instant::now())).await;
        }
        permit
    }
}

/// So many in a second, and a burst of them after a quiet time.
struct Rate {
    interval: Duration,
    burst: Duration,
    /// When the last one was due that was let go.
    due: Mutex<Option<Instant>>,
}

impl Rate {
    fn new(per_second: u16, burst: u16) -> Self {
        let interval = Duration::from_secs(1) / u32::from(per_second);
        Self { interval, burst: interval * u32::from(burst), due: Mutex::default() }
    }

    /// When the next one may begin that asks now.
    fn next(&self, now: Instant) -> Instant {
        let mut due = self.due.lock();
        let quiet = now.checked_sub(self.burst).unwrap_or(now);
        let next = due.map_or(quiet, |due| due.max(quiet)) + self.interval;
        *due = Some(next);
        next.max(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_goes_at_once_and_the_rest_in_its_time() {
        let rate = Rate::new(5, 3);
        let now = Instant::now();
        let waits: Vec<u128> = (0..5).map(|_| (rate.next(now) - now).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 200, 400]);
        let later = now + Duration::from_mins(1);
        let waits: Vec<u128> = (0..4).map(|_| (rate.next(later) - later).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 200]);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_than_so_many_go_on_at_a_time() {
        let pulls = Pulls::new(PullSettings { at_a_time: 1, ..PullSettings::default() });
        let first = pulls.admit().await;
        assert!(futures::poll!(Box::pin(pulls.admit())).is_pending());
        drop(first);
        assert!(pulls.admit().await.is_some());
    }
}
