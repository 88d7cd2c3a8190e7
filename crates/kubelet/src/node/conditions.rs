use jiff::Timestamp;
use k8s_openapi::api::core::v1::NodeCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::thresholds::Signal;
use super::{Facts, NetworkReport, Observation, Thresholds};

/// The words for one condition that a kubelet keeps.
struct Words {
    kind: &'static str,
    status: bool,
    reason: &'static str,
    message: String,
}

/// The conditions this node keeps, `Ready` last, with the transition times of `previous` where nothing changed.
pub(super) fn conditions(
    seen: &Observation,
    thresholds: &Thresholds,
    previous: &[NodeCondition],
    now: Timestamp,
) -> Vec<NodeCondition> {
    let ready = ready(seen.unready.as_deref(), &seen.network);
    [memory_pressure(&seen.facts, thresholds), disk_pressure(&seen.facts, thresholds), pid_pressure(), ready]
        .into_iter()
        .map(|words| {
            let before = previous.iter().find(|condition| condition.type_ == words.kind);
            condition(words, before, now)
        })
        .collect()
}

fn condition(words: Words, before: Option<&NodeCondition>, now: Timestamp) -> NodeCondition {
    let status = if words.status { "True" } else { "False" };
    let same = before.filter(|condition| condition.status == status);
    NodeCondition {
        type_: words.kind.to_owned(),
        status: status.to_owned(),
        reason: Some(words.reason.to_owned()),
        message: Some(words.message),
        last_heartbeat_time: Some(Time(now)),
        last_transition_time: same
            .and_then(|condition| condition.last_transition_time.clone())
            .or(Some(Time(now))),
    }
}

fn pressure(kind: &'static str, pressed: bool, good: [&'static str; 2], bad: [&'static str; 2]) -> Words {
    let [reason, message] = if pressed { bad } else { good };
    Words { kind, status: pressed, reason, message: message.to_owned() }
}

fn memory_pressure(facts: &Facts, thresholds: &Thresholds) -> Words {
    pressure(
        "MemoryPressure",
        thresholds.is_short(Signal::Memory, facts.memory),
        ["KubeletHasSufficientMemory", "kubelet has sufficient memory available"],
        ["KubeletHasInsufficientMemory", "kubelet has insufficient memory available"],
    )
}

fn disk_pressure(facts: &Facts, thresholds: &Thresholds) -> Words {
    let full =
        thresholds.is_short(Signal::Disk, facts.disk) || thresholds.is_short(Signal::Inodes, facts.inodes);
    pressure(
        "DiskPressure",
        full,
        ["KubeletHasNoDiskPressure", "kubelet has no disk pressure"],
        ["KubeletHasDiskPressure", "kubelet has disk pressure"],
    )
}

/// The kubelet has no default threshold for processes, and pods here have none.
fn pid_pressure() -> Words {
    pressure(
        "PIDPressure",
        false,
        ["KubeletHasSufficientPID", "kubelet has sufficient PID available"],
        ["KubeletHasInsufficientPID", "kubelet has insufficient PID available"],
    )
}

fn ready(unready: Option<&str>, network: &NetworkReport) -> Words {
    match unready {
        None => Words { kind: "Ready", status: true, reason: "KubeletReady", message: network.remark() },
        Some(why) => {
            Words { kind: "Ready", status: false, reason: "KubeletNotReady", message: why.to_owned() }
        }
    }
}

/// The reasons of the Events that tell how the node's own conditions changed.
pub(super) fn transitions(before: &[NodeCondition], after: &[NodeCondition]) -> Vec<&'static str> {
    let status_in = |conditions: &[NodeCondition], kind: &str| {
        conditions.iter().find(|condition| condition.type_ == kind).map(|condition| condition.status.clone())
    };
    after
        .iter()
        .filter(|condition| status_in(before, &condition.type_).as_ref() != Some(&condition.status))
        .filter_map(event_reason)
        .collect()
}

fn event_reason(condition: &NodeCondition) -> Option<&'static str> {
    Some(match (condition.type_.as_str(), condition.status.as_str()) {
        ("MemoryPressure", "True") => "NodeHasInsufficientMemory",
        ("MemoryPressure", "False") => "NodeHasSufficientMemory",
        ("DiskPressure", "True") => "NodeHasDiskPressure",
        ("DiskPressure", "False") => "NodeHasNoDiskPressure",
        ("PIDPressure", "True") => "NodeHasInsufficientPID",
        ("PIDPressure", "False") => "NodeHasSufficientPID",
        ("Ready", "True") => "NodeReady",
        ("Ready", "False") => "NodeNotReady",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::Room;
    use super::super::samples::{facts, time};
    use super::*;

    fn seen(facts: Facts, unready: Option<&str>) -> Observation {
        Observation { facts, unready: unready.map(str::to_owned), ..Observation::default() }
    }

    /// The conditions of a machine with enough of everything.
    fn after(previous: &[NodeCondition], unready: Option<&str>, seconds: i64) -> Vec<NodeCondition> {
        conditions(&seen(facts(), unready), &Thresholds::default(), previous, time(seconds))
    }

    #[track_caller]
    fn check(facts: Facts, unready: Option<&str>, expected: [(&str, &str, &str); 4]) {
        let found = conditions(&seen(facts, unready), &Thresholds::default(), &[], time(0));
        let found: Vec<_> = found
            .iter()
            .map(|condition| (&*condition.type_, &*condition.status, condition.reason.as_deref().unwrap()))
            .collect();
        assert_eq!(found, expected);
    }

    const MEMORY: (&str, &str, &str) = ("MemoryPressure", "False", "KubeletHasSufficientMemory");
    const DISK: (&str, &str, &str) = ("DiskPressure", "False", "KubeletHasNoDiskPressure");
    const PID: (&str, &str, &str) = ("PIDPressure", "False", "KubeletHasSufficientPID");
    const READY: (&str, &str, &str) = ("Ready", "True", "KubeletReady");

    #[test]
    fn ready_comes_last_and_names_what_is_awaited() {
        check(facts(), None, [MEMORY, DISK, PID, READY]);
        check(facts(), Some("pods"), [MEMORY, DISK, PID, ("Ready", "False", "KubeletNotReady")]);
        let awaited = after(&[], Some("the watch on pods"), 0);
        assert_eq!(awaited[3].message.as_deref(), Some("the watch on pods"));
    }

    #[test]
    fn pressure_begins_at_the_kubelets_thresholds() {
        let memory = Facts { memory: Room { total: 8 << 30, available: (100 << 20) - 1 }, ..facts() };
        check(memory, None, [("MemoryPressure", "True", "KubeletHasInsufficientMemory"), DISK, PID, READY]);
        let full = ("DiskPressure", "True", "KubeletHasDiskPressure");
        let disk = Facts { disk: Room { total: 1000, available: 99 }, ..facts() };
        check(disk, None, [MEMORY, full, PID, READY]);
        let inodes = Facts { inodes: Room { total: 1000, available: 49 }, ..facts() };
        check(inodes, None, [MEMORY, full, PID, READY]);
        let uncounted = Facts { inodes: Room::default(), ..facts() };
        check(uncounted, None, [MEMORY, DISK, PID, READY]);
    }

    #[test]
    fn a_transition_time_stays_while_the_status_stays() {
        let first = after(&[], Some("starting"), 0);
        let second = after(&first, Some("still starting"), 10);
        let third = after(&second, None, 20);
        let times = |conditions: &[NodeCondition]| {
            let ready = &conditions[3];
            (ready.last_heartbeat_time.clone().unwrap().0, ready.last_transition_time.clone().unwrap().0)
        };
        assert_eq!(times(&second), (time(10), time(0)));
        assert_eq!(times(&third), (time(20), time(20)));
    }

    #[test]
    fn each_change_has_an_event() {
        let starting = after(&[], Some("starting"), 0);
        assert_eq!(
            transitions(&[], &starting),
            ["NodeHasSufficientMemory", "NodeHasNoDiskPressure", "NodeHasSufficientPID", "NodeNotReady"]
        );
        let ready = after(&starting, None, 1);
        assert_eq!(transitions(&starting, &ready), ["NodeReady"]);
        assert!(transitions(&ready, &ready).is_empty());
    }
}
