//! Time, read in this one place.

use jiff::Timestamp;

/// The time now, by the wall clock.
#[expect(clippy::disallowed_methods, reason = "this is the clock module")]
pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}
