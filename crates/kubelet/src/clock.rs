use jiff::Timestamp;

/// The time now. Everything that decides takes it as a value; only what begins or reports something asks here.
#[expect(clippy::disallowed_methods, reason = "this is the clock module")]
pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}
