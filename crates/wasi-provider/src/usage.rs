//! What containers use: memory, bounded by limits, and CPU time.

use std::cell::Cell;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use thiserror::Error;
use wasmtime::ResourceLimiter;

/// Elements of all tables of a container together; a large language runtime has some tens of thousands.
const MAX_TABLE_ELEMENTS: usize = 1 << 20;
const MAX_TABLES: usize = 1_000;
const MAX_INSTANCES: usize = 1_000;
/// Each takes several memory mappings, of which a process has few.
pub(crate) const MAX_MEMORIES: usize = 32;

/// Bytes of memory, or whatever else is counted by several.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Adds unless that would exceed the limit.
    pub(crate) fn add(&self, bytes: u64, limit: Option<u64>) -> bool {
        let sum = |now: u64| now.checked_add(bytes).filter(|sum| limit.is_none_or(|limit| *sum <= limit));
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum).is_ok()
    }

    pub(crate) fn subtract(&self, bytes: u64) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// A container, or its pod as a whole, may have no more memory.
#[derive(Debug, Error)]
#[error("the {of}'s memory limit of {limit} bytes is exceeded: {wanted} bytes more were wanted")]
pub(crate) struct MemoryExceeded {
    of: &'static str,
    limit: u64,
    wanted: u64,
}

/// The memory that a container and its pod use, each with its limit.
#[derive(Clone)]
pub(crate) struct Allowance {
    pub(crate) container: (Arc<Count>, Option<u64>),
    pub(crate) pod: (Arc<Count>, Option<u64>),
}

/// Holds one instance of a container's guest to the container's limits, for as long as it lives.
pub(crate) struct Limiter {
    container: Share,
    pod: Share,
    table_elements: usize,
}

/// What one guest has of a count that it may share with others.
struct Share {
    of: &'static str,
    count: Arc<Count>,
    limit: Option<u64>,
    taken: u64,
}

impl Share {
    fn take(&mut self, bytes: u64) -> Result<(), MemoryExceeded> {
        if !self.count.add(bytes, self.limit) {
            let limit = self.limit.unwrap_or(u64::MAX);
            return Err(MemoryExceeded { of: self.of, limit, wanted: bytes });
        }
        self.taken += bytes;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.count.subtract(self.taken);
    }
}

impl Limiter {
    pub(crate) fn within(allowance: &Allowance) -> Self {
        let share = |of, (count, limit): &(Arc<Count>, Option<u64>)| Share {
            of,
            count: Arc::clone(count),
            limit: *limit,
            taken: 0,
        };
        Self {
            container: share("container", &allowance.container),
            pod: share("pod", &allowance.pod),
            table_elements: 0,
        }
    }
}

impl ResourceLimiter for Limiter {
    /// A growth that fails after this is not taken back: to count too much is the safe side.
    fn memory_growing(
        &mut self,
        now: usize,
        wanted: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| wanted > maximum) {
            return Ok(false);
        }
        let more = (wanted - now) as u64;
        self.container.take(more)?;
        self.pod.take(more)?;
        Ok(true)
    }

    fn table_growing(&mut self, now: usize, wanted: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let sum = self.table_elements.saturating_add(wanted - now);
        if sum > MAX_TABLE_ELEMENTS || maximum.is_some_and(|maximum| wanted > maximum) {
            return Ok(false);
        }
        self.table_elements = sum;
        Ok(true)
    }

    fn instances(&self) -> usize {
        MAX_INSTANCES
    }

    fn tables(&self) -> usize {
        MAX_TABLES
    }

    fn memories(&self) -> usize {
        MAX_MEMORIES
    }
}

/// CPU time, counted.
#[derive(Debug, Default)]
pub(crate) struct CpuTime(AtomicU64);

impl CpuTime {
    pub(crate) fn get(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }

    fn add(&self, time: Duration) {
        self.0.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// Counts the CPU time of each poll of a future. A guest runs nowhere else.
pub(crate) struct Timed<F> {
    future: F,
    cpu: Arc<CpuTime>,
}

impl<F> Timed<F> {
    pub(crate) fn new(future: F, cpu: Arc<CpuTime>) -> Self {
        Self { future, cpu }
    }
}

impl<F: Future + Unpin> Future for Timed<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let began = Instant::now();
        let polled = Pin::new(&mut self.future).poll(context);
        self.cpu.add(used(began.elapsed()));
        polled
    }
}

/// Of a shorter time on a thread none is thought to have been another thread's.
const SHORT: Duration = Duration::from_micros(100);

/// The CPU time that this thread had of the time that has just passed. To ask the kernel costs more than most turns take,
/// so it is asked after long ones only; what it tells is then since it was asked last, which may be more.
fn used(passed: Duration) -> Duration {
    thread_local!(static TOLD: Cell<Duration> = const { Cell::new(Duration::ZERO) });
    if passed < SHORT {
        return passed;
    }
    let now = thread_cpu_time();
    passed.min(now.saturating_sub(TOLD.replace(now)))
}

fn thread_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(
        container: &Arc<Count>,
        limit: Option<u64>,
        pod: &Arc<Count>,
        pod_limit: Option<u64>,
    ) -> Limiter {
        let allowance =
            Allowance { container: (Arc::clone(container), limit), pod: (Arc::clone(pod), pod_limit) };
        Limiter::within(&allowance)
    }

    #[test]
    fn growth_is_counted_to_the_limit_and_given_back_at_the_end() {
        let (container, pod) = (Arc::default(), Arc::default());
        let mut limiter = limiter(&container, Some(100), &pod, None);
        assert!(limiter.memory_growing(0, 60, None).unwrap());
        assert!(limiter.memory_growing(60, 100, None).unwrap());
        let refused = limiter.memory_growing(100, 101, None).unwrap_err();
        assert!(refused.downcast_ref::<MemoryExceeded>().is_some());
        assert_eq!((container.get(), pod.get()), (100, 100));
        drop(limiter);
        assert_eq!((container.get(), pod.get()), (0, 0));
    }

    #[test]
    fn containers_of_a_pod_share_its_limit() {
        let pod = Arc::default();
        let mut one = limiter(&Arc::default(), None, &pod, Some(100));
        let mut other = limiter(&Arc::default(), Some(90), &pod, Some(100));
        assert!(one.memory_growing(0, 60, None).unwrap());
        assert!(
            other
                .memory_growing(0, 60, None)
                .unwrap_err()
                .to_string()
                .starts_with("the pod's memory limit of 100")
        );
        drop(one);
        assert!(other.memory_growing(0, 30, None).unwrap());
    }

    #[test]
    fn the_programs_own_maximum_is_a_refusal_that_it_can_handle() {
        let mut limiter = limiter(&Arc::default(), Some(10), &Arc::default(), None);
        assert!(!limiter.memory_growing(0, 20, Some(15)).unwrap());
        assert!(!limiter.table_growing(0, MAX_TABLE_ELEMENTS + 1, None).unwrap());
    }

    #[test]
    fn only_time_that_the_thread_computed_is_counted() {
        let short = used(SHORT / 2);
        assert_eq!(short, SHORT / 2);
        // From here on the thread's time is known.
        used(SHORT);
        std::thread::sleep(Duration::from_millis(20));
        assert!(used(Duration::from_millis(20)) < Duration::from_millis(10));
        let (began, cpu) = (Instant::now(), thread_cpu_time());
        while thread_cpu_time().saturating_sub(cpu) < Duration::from_millis(20) {}
        let computed = used(began.elapsed());
        assert!(
            computed >= Duration::from_millis(20) && computed < Duration::from_millis(30),
            "{computed:?}"
        );
    }
}
