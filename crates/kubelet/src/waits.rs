use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// The waits between tries of something that is tried until it succeeds: each twice as long as the one before, up to a
/// longest one.
pub(crate) struct Waits {
    kind: ExponentialBuilder,
    series: ExponentialBackoff,
    longest: Duration,
}

impl Waits {
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        let kind = ExponentialBuilder::new().with_factor(2.0).with_min_delay(first).with_max_delay(longest);
        Self::of(kind.without_max_times(), longest)
    }

    /// The same, each with up to as much again, so that many that wait do not come back at once.
    pub(crate) fn with_jitter(self) -> Self {
        Self::of(self.kind.with_jitter(), self.longest)
    }

    fn of(kind: ExponentialBuilder, longest: Duration) -> Self {
        Self { kind, series: kind.build(), longest }
    }

    /// How long to wait before the next try.
    pub(crate) fn next(&mut self) -> Duration {
        self.series.next().unwrap_or(self.longest)
    }

    /// It succeeded: the next series begins anew.
    pub(crate) fn reset(&mut self) {
        self.series = self.kind.build();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECONDS: [u64; 5] = [100, 200, 400, 500, 500];

    fn waits() -> Waits {
        Waits::new(Duration::from_millis(100), Duration::from_millis(500))
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        let mut waits = waits();
        for expected in MILLISECONDS {
            assert_eq!(u128::from(expected), waits.next().as_millis());
        }
        waits.reset();
        assert_eq!(waits.next().as_millis(), 100);
    }

    #[test]
    fn jitter_adds_up_to_as_much_again() {
        let mut waits = waits().with_jitter();
        for base in MILLISECONDS {
            let (wait, least) = (waits.next(), Duration::from_millis(base));
            assert!(wait >= least && wait <= least * 2, "{wait:?} after a base of {base} ms");
        }
    }
}
