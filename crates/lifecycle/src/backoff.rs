//! How long to wait before something is tried again.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// The first and the longest wait of a back-off that doubles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The wait after the first failure.
    pub initial: SignedDuration,
    /// The longest wait.
    pub longest: SignedDuration,
}

/// For containers that end and images that cannot be pulled: 10 s to 300 s.
///
/// <https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#restart-policy>
pub const CONTAINER: Range =
    Range { initial: SignedDuration::from_secs(10), longest: SignedDuration::from_mins(5) };

/// For volumes that cannot be made and calls to the API server: 500 ms to 2 min 2 s, as the kubelet's mounts.
pub const MOUNT: Range =
    Range { initial: SignedDuration::from_millis(500), longest: SignedDuration::from_secs(122) };

/// A container that ran longer than this since its last restart starts with no back-off again.
const FORGOTTEN_AFTER: SignedDuration = SignedDuration::from_mins(10);

/// How long the next failure has to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backoff {
    /// The wait that applies to the next failure.
    pub delay: SignedDuration,
    /// When the delay was set.
    pub updated_at: Timestamp,
}

impl Backoff {
    /// The back-off after what failed at `failed_at` was tried once more at `now`. It is never shorter than the first.
    #[must_use]
    pub fn next(range: Range, before: Option<Self>, failed_at: Timestamp, now: Timestamp) -> Self {
        let delay =
            before.filter(|backoff| !backoff.is_forgotten(failed_at)).map_or(range.initial, |backoff| {
                (backoff.delay + backoff.delay).clamp(range.initial, range.longest)
            });
        Self { delay, updated_at: now }
    }

    /// When something that failed at `failed_at` may be tried again.
    #[must_use]
    pub fn due(before: Option<Self>, failed_at: Timestamp) -> Timestamp {
        match before {
            Some(backoff) if !backoff.is_forgotten(failed_at) => failed_at + backoff.delay,
            _ => failed_at,
        }
    }

    /// When its own wait is over, as it is to be kept to at `now`: one that began in the future, by a clock that was set
    /// back since, is over.
    #[must_use]
    pub fn over(&self, now: Timestamp) -> Timestamp {
        if self.updated_at > now { now } else { self.updated_at + self.delay }
    }

    fn is_forgotten(&self, at: Timestamp) -> bool {
        at.duration_since(self.updated_at) > FORGOTTEN_AFTER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_loop_waits_as_the_kubelet_does() {
        let mut now = Timestamp::UNIX_EPOCH;
        let mut backoff = None;
        let mut waits = Vec::new();
        for _ in 0..8 {
            let due = Backoff::due(backoff, now);
            waits.push(due.duration_since(now).as_secs());
            backoff = Some(Backoff::next(CONTAINER, backoff, now, due));
            now = due;
        }
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn what_fails_again_after_no_wait_at_all_waits() {
        let now = Timestamp::UNIX_EPOCH;
        let at_once = Backoff { delay: SignedDuration::ZERO, updated_at: now };
        assert_eq!(Backoff::next(MOUNT, Some(at_once), now, now).delay, MOUNT.initial);
    }

    #[test]
    fn a_wait_from_the_future_is_over() {
        let start = Timestamp::UNIX_EPOCH;
        let backoff = Backoff { delay: CONTAINER.initial, updated_at: start };
        let second = SignedDuration::from_secs(1);
        assert_eq!(backoff.over(start), start + CONTAINER.initial);
        assert_eq!(backoff.over(start - second), start - second);
    }

    #[test]
    fn ten_quiet_minutes_forget_it() {
        let start = Timestamp::UNIX_EPOCH;
        let backoff = Some(Backoff { delay: CONTAINER.longest, updated_at: start });
        let almost = start + FORGOTTEN_AFTER;
        assert_eq!(Backoff::due(backoff, almost), almost + CONTAINER.longest);
        let later = almost + SignedDuration::from_secs(1);
        assert_eq!(Backoff::due(backoff, later), later);
        assert_eq!(Backoff::next(CONTAINER, backoff, later, later).delay, CONTAINER.initial);
    }
}
