use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::thresholds::Signal;
use super::{Facts, Thresholds};

/// What of the machine's memory is kept for the agent itself.
pub(super) const AGENT_MEMORY: u64 = 100 << 20;

/// The least memory that a pod takes, whatever runs in it: a bound on their number, not a promise.
const POD_MEMORY: u64 = 256 << 10;

/// Quantities by resource name, as `node.status.capacity` has them.
pub(super) type Resources = BTreeMap<String, Quantity>;

/// What there is to be shared out.
pub(super) struct Share<'a> {
    pub(super) facts: &'a Facts,
    pub(super) thresholds: &'a Thresholds,
    /// As many containers as the runtime can run.
    pub(super) max_containers: u32,
    /// As many pods as the operator allows.
    pub(super) max_pods: Option<u32>,
}

impl Share<'_> {
    /// Everything the machine has. The number of pods is the least of what the runtime can run, what memory allows, and
    /// what is allowed.
    pub(super) fn capacity(&self) -> Resources {
        resources(self.facts, self.facts.memory.total, self.facts.disk.total, self.pods())
    }

    /// What pods may have of it: without the agent's memory, and without what must stay free.
    pub(super) fn allocatable(&self) -> Resources {
        let disk = self.facts.disk.total;
        let disk = disk.saturating_sub(self.thresholds.kept(Signal::Disk, disk));
        resources(self.facts, self.usable_memory(), disk, self.pods())
    }

    fn usable_memory(&self) -> u64 {
        let total = self.facts.memory.total;
        total.saturating_sub(AGENT_MEMORY).saturating_sub(self.thresholds.kept(Signal::Memory, total))
    }

    fn pods(&self) -> u64 {
        let bounds = [self.max_containers, self.max_pods.unwrap_or(u32::MAX)].map(u64::from);
        bounds.into_iter().fold(self.usable_memory() / POD_MEMORY, u64::min)
    }
}

fn resources(facts: &Facts, memory: u64, disk: u64, pods: u64) -> Resources {
    [
        ("cpu", decimal(facts.cores.into())),
        ("memory", binary(memory)),
        ("ephemeral-storage", binary(disk)),
        ("pods", decimal(pods)),
    ]
    .into_iter()
    .map(|(name, quantity)| (name.to_owned(), quantity))
    .collect()
}

/// Written as the API server writes it back, so that what was written can be compared with what is read.
fn decimal(count: u64) -> Quantity {
    canonical(count, 1000, &["", "k", "M", "G", "T", "P", "E"])
}

/// Whole kibibytes, rounded down, for the same reason.
fn binary(bytes: u64) -> Quantity {
    canonical(bytes >> 10, 1024, &["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"])
}

fn canonical(mut number: u64, base: u64, suffixes: &[&str]) -> Quantity {
    if number == 0 {
        return Quantity("0".to_owned());
    }
    let mut step = 0;
    while number.is_multiple_of(base) && step + 1 < suffixes.len() {
        number /= base;
        step += 1;
    }
    Quantity(format!("{number}{}", suffixes[step]))
}

#[cfg(test)]
mod tests {
    use super::super::{Room, parse_thresholds};
    use super::*;

    fn facts(memory: u64) -> Facts {
        Facts {
            cores: 4,
            memory: Room { total: memory, available: memory },
            disk: Room { total: 100 << 30, available: 50 << 30 },
            ..Facts::default()
        }
    }

    #[track_caller]
    fn check(resources: &Resources, expected: [&str; 4]) {
        let names = ["cpu", "memory", "ephemeral-storage", "pods"];
        assert_eq!(names.map(|name| resources[name].0.as_str()), expected);
    }

    fn share<'a>(facts: &'a Facts, thresholds: &'a Thresholds) -> Share<'a> {
        Share { facts, thresholds, max_containers: 1000, max_pods: None }
    }

    #[test]
    fn what_must_stay_free_is_not_given_to_pods() {
        let (machine, usual) = (facts(8 << 30), Thresholds::default());
        check(&share(&machine, &usual).capacity(), ["4", "8Gi", "100Gi", "1k"]);
        check(&share(&machine, &usual).allocatable(), ["4", "7992Mi", "90Gi", "1k"]);
        let own = parse_thresholds("memory.available<1Gi,nodefs.available<1Gi").unwrap();
        check(&share(&machine, &own).capacity(), ["4", "8Gi", "100Gi", "1k"]);
        check(&share(&machine, &own).allocatable(), ["4", "7068Mi", "99Gi", "1k"]);
    }

    #[test]
    fn a_small_machine_never_has_less_than_nothing() {
        check(&share(&facts(64 << 20), &Thresholds::default()).allocatable(), ["4", "0", "90Gi", "0"]);
    }

    #[test]
    fn the_number_of_pods_is_the_least_bound() {
        let pods = |memory, max_containers, max_pods| {
            let (facts, thresholds) = (facts(memory), Thresholds::default());
            Share { max_containers, max_pods, ..share(&facts, &thresholds) }.capacity()["pods"].0.clone()
        };
        assert_eq!(pods(8 << 30, 1010, None), "1010");
        assert_eq!(pods(8 << 30, 1010, Some(20)), "20");
        assert_eq!(pods(8 << 30, 1010, Some(5000)), "1010");
        assert_eq!(pods(201 << 20, 1010, None), "4");
    }

    #[test]
    fn quantities_are_written_as_the_api_server_writes_them() {
        for (bytes, text) in [(0, "0"), (1023, "0"), (1500, "1Ki"), (1 << 20, "1Mi"), (1025 << 10, "1025Ki")]
        {
            assert_eq!(binary(bytes).0, text);
        }
        for (count, text) in [(0, "0"), (999, "999"), (2000, "2k"), (3_000_000, "3M"), (2500, "2500")] {
            assert_eq!(decimal(count).0, text);
        }
    }
}
