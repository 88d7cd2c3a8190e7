//! What the agent's process has used, as the kernel counts it.

use std::fs;
use std::time::Duration;

use anyhow::Context;

/// CPU time so far and resident memory now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Usage {
    pub(super) cpu: Duration,
    pub(super) resident_kib: f64,
}

impl Usage {
    pub(super) fn of(process: u32) -> anyhow::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
        let status = fs::read_to_string(format!("/proc/{process}/status"))?;
        let cpu = cpu(cpu_ticks(&stat))?;
        let resident_kib = kibibytes(&status, "VmRSS:").context("no VmRSS in /proc/PID/status")?;
        Ok(Self { cpu, resident_kib })
    }

    /// The growth since `earlier`, for each of `pods`.
    pub(super) fn since(self, earlier: Self, pods: usize) -> Self {
        let pods = u32::try_from(pods).unwrap_or(u32::MAX).max(1);
        Self {
            cpu: self.cpu.saturating_sub(earlier.cpu) / pods,
            resident_kib: (self.resident_kib - earlier.resident_kib) / f64::from(pods),
        }
    }
}

/// Counts the most resident memory of a process from now on.
pub(super) fn forget_peak(process: u32) -> anyhow::Result<()> {
    fs::write(format!("/proc/{process}/clear_refs"), "5").context("/proc/PID/clear_refs")
}

/// The most memory, in KiB, that was resident at any time since it was forgotten.
pub(super) fn peak_kib(process: u32) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    kibibytes(&status, "VmHWM:").context("no VmHWM in /proc/PID/status")
}

/// What the children of this process, those that have ended, have used.
pub(super) fn children_cpu() -> anyhow::Result<Duration> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    cpu(ticks(&stat, 13))
}

fn cpu(ticks: Option<u64>) -> anyhow::Result<Duration> {
    let ticks = ticks.context("no CPU time in /proc/PID/stat")?;
    #[expect(clippy::cast_precision_loss, reason = "ticks and their rate are far below 2^52")]
    let seconds = ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
    Ok(Duration::from_secs_f64(seconds))
}

/// User and system time of the process: fields 14 and 15, counted after the name, which may contain anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    ticks(stat, 11)
}

/// The sum of two fields, of which the first is so many after the name.
fn ticks(stat: &str, first: usize) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(first);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn kibibytes(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_read() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194304 100 0 0 0 30 12 5 4 20 0 1 0 5 1 1";
        assert_eq!(cpu_ticks(stat), Some(42));
        assert_eq!(ticks(stat, 13), Some(9));
        assert_eq!(kibibytes("Name:\tx\nVmRSS:\t  2048 kB\n", "VmRSS:"), Some(2048.0));
    }

    #[test]
    fn this_process_has_used_something() {
        assert!(Usage::of(std::process::id()).unwrap().resident_kib > 0.0);
    }
}
