use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::Facts;

/// What of the machine's memory is kept for the agent itself.
pub(super) const AGENT_MEMORY: u64 = 100 << 20;

/// The free memory below which the node is under memory pressure: the kubelet's default.
pub(super) const MEMORY_THRESHOLD: u64 = 100 << 20;

/// The free part of the disk below which the node is under disk pressure, in hundredths: the kubelet's default.
pub(super) const DISK_THRESHOLD: u64 = 10;

/// The least memory that a pod takes, whatever runs in it: a bound on their number, not a promise.
const POD_MEMORY: u64 = 256 << 10;

/// Quantities by resource name, as `node.status.capacity` has them.
pub(super) type Resources = BTreeMap<String, Quantity>;

/// Everything the machine has. The number of pods is the least of what the runtime can run, what memory allows, and
/// `max_pods`.
pub(super) fn capacity(facts: &Facts, max_containers: u32, max_pods: Option<u32>) -> Resources {
    resources(facts, facts.memory.total, facts.disk.total, pods(facts, max_containers, max_pods))
}

/// What pods may have of it: without the agent's memory, and without what must stay free.
pub(super) fn allocatable(facts: &Facts, max_containers: u32, max_pods: Option<u32>) -> Resources {
    let memory = facts.memory.total.saturating_sub(AGENT_MEMORY + MEMORY_THRESHOLD);
    let disk = facts.disk.total / 100 * (100 - DISK_THRESHOLD);
    resources(facts, memory, disk, pods(facts, max_containers, max_pods))
}

fn pods(facts: &Facts, max_containers: u32, max_pods: Option<u32>) -> u64 {
    let usable = facts.memory.total.saturating_sub(AGENT_MEMORY + MEMORY_THRESHOLD);
    (usable / POD_MEMORY).min(max_containers.into()).min(max_pods.unwrap_or(u32::MAX).into())
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
    use super::super::Room;
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

    #[test]
    fn what_must_stay_free_is_not_given_to_pods() {
        let machine = facts(8 << 30);
        check(&capacity(&machine, 1000, None), ["4", "8Gi", "100Gi", "1k"]);
        check(&allocatable(&machine, 1000, None), ["4", "7992Mi", "90Gi", "1k"]);
    }

    #[test]
    fn a_small_machine_never_has_less_than_nothing() {
        check(&allocatable(&facts(64 << 20), 1000, None), ["4", "0", "90Gi", "0"]);
    }

    #[test]
    fn the_number_of_pods_is_the_least_bound() {
        let pods = |memory, containers, max| capacity(&facts(memory), containers, max)["pods"].0.clone();
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
