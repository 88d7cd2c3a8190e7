use std::error::Error;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tracing::{debug, info, warn};

use crate::answers::chain;

/// The waits between attempts to reach the API server: 100 ms, doubled up to 7 s, each with up to as much again.
pub(super) struct Patience {
    waits: ExponentialBackoff,
}

fn waits() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(7))
        .with_factor(2.0)
        .with_jitter()
        .without_max_times()
        .build()
}

impl Patience {
    pub(super) fn new() -> Self {
        Self { waits: waits() }
    }

    /// How long to wait before the next attempt.
    pub(super) fn next(&mut self) -> Duration {
        self.waits.next().unwrap_or(Duration::from_secs(7))
    }

    /// The attempt succeeded: the next series begins anew.
    pub(super) fn reset(&mut self) {
        self.waits = waits();
    }
}

/// Logs what fails again and again once at `warn` for each cause, and once when it works again.
pub(super) struct Complaint {
    what: &'static str,
    last: Option<String>,
}

impl Complaint {
    /// Complaints about `what`, a noun phrase.
    pub(super) fn about(what: &'static str) -> Self {
        Self { what, last: None }
    }

    /// It failed.
    pub(super) fn failed(&mut self, error: &dyn Error) {
        let cause = chain(error);
        if self.last.as_ref() == Some(&cause) {
            debug!(cause, "{} failed again", self.what);
        } else {
            warn!(cause, "{} failed, will be tried again", self.what);
            self.last = Some(cause);
        }
    }

    /// It worked.
    pub(super) fn worked(&mut self) {
        if self.last.take().is_some() {
            info!("{} works again", self.what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_with_jitter_up_to_seven_seconds() {
        let mut patience = Patience::new();
        for base in [100, 200, 400, 800, 1600, 3200, 6400, 7000, 7000] {
            let wait = patience.next();
            let least = Duration::from_millis(base);
            assert!(wait >= least && wait <= least * 2, "{wait:?} after a base of {base} ms");
        }
        patience.reset();
        assert!(patience.next() <= Duration::from_millis(200));
    }
}
