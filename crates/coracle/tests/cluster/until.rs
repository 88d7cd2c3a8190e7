//! Waiting for what can be seen on the node's machine only, where there is nothing to watch.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::scene::LIMIT;

/// Often enough to be quick, seldom enough to cost nothing.
const POLL: Duration = Duration::from_millis(50);

/// Waits until `look` finds something, and returns it.
pub(crate) async fn found<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
    let deadline = Instant::now() + LIMIT;
    let mut tick = interval(POLL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if let Some(found) = look() {
            return Ok(found);
        }
        if Instant::now() > deadline {
            bail!("after {LIMIT:?} still not: {what}");
        }
    }
}

/// Waits until it is so.
pub(crate) async fn so(what: &str, mut look: impl FnMut() -> bool) -> anyhow::Result<()> {
    found(what, || look().then_some(())).await
}

/// What a process's descriptors lead to.
pub(crate) fn open_files(process: u32) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(format!("/proc/{process}/fd"));
    let entries = entries.into_iter().flatten().flatten();
    entries.filter_map(|entry| std::fs::read_link(entry.path()).ok()).collect()
}

/// The CPU time a process has used, in Linux's hundredths of a second.
pub(crate) fn cpu_ticks(process: u32) -> anyhow::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let after_name = stat.rsplit_once(") ").context("the name of a process")?.1;
    let fields: Vec<_> = after_name.split(' ').collect();
    let (user, system) = (fields.get(11).context("utime")?, fields.get(12).context("stime")?);
    Ok(user.parse::<u64>()? + system.parse::<u64>()?)
}

/// Waits until a process leaves most of a CPU alone over half a second.
pub(crate) async fn idle(process: u32) -> anyhow::Result<()> {
    let mut before = (Instant::now(), cpu_ticks(process)?);
    so("the node is idle", || {
        let Ok(ticks) = cpu_ticks(process) else { return false };
        let passed = before.0.elapsed();
        if passed < Duration::from_millis(500) {
            return false;
        }
        let used = Duration::from_millis(10 * (ticks - before.1));
        before = (Instant::now(), ticks);
        used < passed / 5
    })
    .await
}
