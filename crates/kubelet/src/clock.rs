use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// Less than this is no more than the clock's being adjusted, or the time between two questions.
const LEAP: SignedDuration = SignedDuration::from_secs(1);

/// Sees that the machine's clock was set: it shows another time then than what has passed.
pub(crate) struct Watch {
    instant: Instant,
    time: Timestamp,
}

impl Watch {
    pub(crate) fn new() -> Self {
        Self { instant: Instant::now(), time: now() }
    }

    /// By how much the clock was set since this was asked the last time, if it was.
    pub(crate) fn leap(&mut self) -> Option<SignedDuration> {
        let seen = Self::new();
        let before = std::mem::replace(self, seen);
        leap(self.instant.duration_since(before.instant), before.time, self.time)
    }
}

fn leap(passed: std::time::Duration, before: Timestamp, after: Timestamp) -> Option<SignedDuration> {
    let passed = SignedDuration::try_from(passed).ok()?;
    let by = after.duration_since(before).checked_sub(passed)?;
    (by.abs() >= LEAP).then_some(by)
}

/// The time now. Everything that decides takes it as a value; only what begins or reports something asks here.
#[cfg(not(test))]
#[expect(clippy::disallowed_methods, reason = "this is the clock module")]
pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}

/// In tests time stands still where tokio's does: it is counted from the first call of the test's thread.
#[cfg(test)]
pub(crate) fn now() -> Timestamp {
    use std::cell::OnceCell;

    thread_local! {
        static START: OnceCell<Instant> = const { OnceCell::new() };
    }
    let elapsed = START.with(|start| start.get_or_init(Instant::now).elapsed());
    Timestamp::from_second(1_700_000_000).unwrap() + elapsed
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_clock_that_was_set_is_told_from_time_that_passes() {
        let before = Timestamp::constant(1_700_000_000, 0);
        let check = |shown: i64, expected: Option<i64>| {
            let after = before + SignedDuration::from_millis(shown);
            let by = leap(Duration::from_secs(10), before, after);
            assert_eq!(by, expected.map(SignedDuration::from_millis), "{shown}");
        };
        check(10_000, None);
        check(10_999, None);
        check(9_001, None);
        check(3_610_000, Some(3_600_000));
        check(-3_590_000, Some(-3_600_000));
    }
}
