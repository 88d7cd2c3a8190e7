use jiff::{SignedDuration, Timestamp};

use crate::backoff::{Backoff, Range};
use crate::reasons::Waiting;

/// How long a failed pull shows its error before it shows that it waits for its back-off.
const ERROR_SHOWN: SignedDuration = SignedDuration::from_secs(1);

/// Something that failed and will be tried again.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// The reason as Kubernetes names it.
    pub reason: Waiting,
    /// What failed, for people.
    pub message: String,
    /// How often it failed in a row, and since when it waits.
    pub backoff: Backoff,
    /// What it shows now.
    pub face: Face,
}

/// What a failure shows: a failed pull shows its error first, then that it waits; any other its error until it is tried
/// again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Face {
    /// The error.
    Error,
    /// Since the latest event, that it waits for its back-off.
    WaitBegins,
    /// That it waits for its back-off.
    Wait,
}

impl Failure {
    /// A failure at `now`. It waits longer when `before` was a failure of the same kind.
    #[must_use]
    pub fn new(
        range: Range,
        before: Option<&Self>,
        reason: Waiting,
        message: String,
        now: Timestamp,
    ) -> Self {
        let is_same = |before: Waiting| before == reason || before.is_pull() && reason.is_pull();
        let before = before.filter(|failure| is_same(failure.reason)).map(|failure| failure.backoff);
        let backoff = Backoff::next(range, before, now, now);
        Self { reason, message, backoff, face: Face::Error }
    }

    /// Whether it now shows as waiting for its back-off.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.face != Face::Error
    }

    /// The next time at which it looks different, or is tried again.
    #[must_use]
    pub fn next_look(&self) -> Timestamp {
        if self.reason.is_pull() && !self.waits() {
            self.backoff.updated_at + ERROR_SHOWN
        } else {
            self.retry_at()
        }
    }

    /// When it is tried again.
    #[must_use]
    pub fn retry_at(&self) -> Timestamp {
        self.backoff.updated_at + self.backoff.delay
    }

    /// The same as it is to be kept to at `now`, whatever was done to the clock: see [`Backoff::over`].
    #[must_use]
    pub fn due(&self, now: Timestamp) -> Timestamp {
        self.backoff.over(now)
    }

    /// A time came: a failed pull goes on to show that it waits.
    pub(crate) fn age(&mut self, now: Timestamp) {
        self.face = match self.face {
            Face::Error if self.reason.is_pull() && self.next_look() <= now => Face::WaitBegins,
            Face::WaitBegins => Face::Wait,
            face => face,
        };
    }
}
