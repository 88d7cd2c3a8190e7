//! Saying what is being done, and how long it took.

use std::future::Future;
use std::time::Instant;

/// Writes one line to standard error, as all progress is: standard output carries what was asked for.
pub(crate) fn say(line: &str) {
    eprintln!("{line}");
}

/// Says what begins, does it, and says how long it took, or that it failed.
pub(crate) fn step<T>(what: &str, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let started = begin(what);
    let outcome = work();
    end(what, started, outcome.is_ok());
    outcome
}

/// [`step`] for what has to be awaited.
pub(crate) async fn wait<T>(what: &str, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let started = begin(what);
    let outcome = work.await;
    end(what, started, outcome.is_ok());
    outcome
}

fn begin(what: &str) -> Instant {
    say(&format!("==> {what} …"));
    Instant::now()
}

fn end(what: &str, started: Instant, fine: bool) {
    let took = started.elapsed().as_secs_f64();
    say(&format!("    {what}: {} after {took:.1} s", if fine { "done" } else { "FAILED" }));
}
