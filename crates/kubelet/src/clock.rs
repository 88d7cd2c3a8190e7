use jiff::Timestamp;

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

    use tokio::time::Instant;

    thread_local! {
        static START: OnceCell<Instant> = const { OnceCell::new() };
    }
    let elapsed = START.with(|start| start.get_or_init(Instant::now).elapsed());
    Timestamp::from_second(1_700_000_000).unwrap() + elapsed
}
