use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Probe};

/// What a probe is for.
///
/// <https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#types-of-probe>
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProbeKind {
    /// Whether the container is up; the others wait for it.
    Startup,
    /// Whether it has to be started again.
    Liveness,
    /// Whether it may be sent requests.
    Readiness,
}

impl ProbeKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Startup, Self::Liveness, Self::Readiness];

    /// The probe of this kind that a container declares.
    #[must_use]
    pub fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Self::Startup => container.startup_probe.as_ref(),
            Self::Liveness => container.liveness_probe.as_ref(),
            Self::Readiness => container.readiness_probe.as_ref(),
        }
    }

    /// The word as Events begin with it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

/// When a probe runs and how often it has to say the same, with the API's defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// From the start of the container to the first try.
    pub initial_delay: Duration,
    /// From one try to the next; at least a second.
    pub period: Duration,
    /// How long a try may take; at least a second.
    pub timeout: Duration,
    /// How many good tries in a row count.
    pub successes: u32,
    /// How many bad tries in a row count.
    pub failures: u32,
}

impl Schedule {
    /// The schedule of a probe.
    #[must_use]
    pub fn of(probe: &Probe) -> Self {
        let seconds = |given: Option<i32>, default: u32, least: u32| {
            let given = given.map_or(default, |given| u32::try_from(given).unwrap_or(0));
            Duration::from_secs(given.max(least).into())
        };
        let count = |given: Option<i32>, default: u32| {
            given.and_then(|given| u32::try_from(given).ok()).filter(|given| *given > 0).unwrap_or(default)
        };
        Self {
            initial_delay: seconds(probe.initial_delay_seconds, 0, 0),
            period: seconds(probe.period_seconds, 10, 1),
            timeout: seconds(probe.timeout_seconds, 1, 1),
            successes: count(probe.success_threshold, 1),
            failures: count(probe.failure_threshold, 3),
        }
    }
}

/// Counts what a probe's tries come to in one run of a container.
#[derive(Clone, Debug)]
pub struct Tally {
    kind: ProbeKind,
    successes: u32,
    failures: u32,
    latest: Option<bool>,
    in_a_row: u32,
    stands: Option<bool>,
}

impl Tally {
    /// A tally of a probe that has not been tried. What a container is taken for until then: alive, and as ready as it
    /// was said to be.
    #[must_use]
    pub fn new(kind: ProbeKind, schedule: &Schedule, ready: bool) -> Self {
        let stands = match kind {
            ProbeKind::Startup => None,
            ProbeKind::Liveness => Some(true),
            ProbeKind::Readiness => Some(ready),
        };
        let (successes, failures) = (schedule.successes, schedule.failures);
        Self { kind, successes, failures, latest: None, in_a_row: 0, stands }
    }

    /// Counts one more try, and tells when what is known of the container changes by it.
    pub fn count(&mut self, is_good: bool) -> Option<bool> {
        self.in_a_row = if self.latest == Some(is_good) { self.in_a_row.saturating_add(1) } else { 1 };
        self.latest = Some(is_good);
        let enough = if is_good { self.successes } else { self.failures };
        let changes = self.in_a_row >= enough && self.stands != Some(is_good);
        changes.then(|| {
            self.stands = Some(is_good);
            is_good
        })
    }

    /// Whether a change to `verdict` is the last that this probe has to say in this run.
    #[must_use]
    pub fn is_final(&self, verdict: bool) -> bool {
        match self.kind {
            ProbeKind::Startup => true,
            ProbeKind::Liveness => !verdict,
            ProbeKind::Readiness => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schedule(probe: serde_json::Value) -> Schedule {
        Schedule::of(&serde_json::from_value(probe).unwrap())
    }

    #[test]
    fn defaults_are_those_of_the_api() {
        let second = Duration::from_secs(1);
        let expected = Schedule {
            initial_delay: Duration::ZERO,
            period: second * 10,
            timeout: second,
            successes: 1,
            failures: 3,
        };
        assert_eq!(schedule(json!({})), expected);
        let odd = json!({"periodSeconds": 0, "timeoutSeconds": -1, "failureThreshold": -3, "successThreshold": 0, "initialDelaySeconds": -1});
        assert_eq!(schedule(odd), Schedule { period: second, ..expected });
    }

    #[test]
    fn enough_in_a_row_change_what_is_known() {
        let schedule = schedule(json!({"failureThreshold": 2, "successThreshold": 3}));
        let check = |kind, tries: &str| {
            let mut tally = Tally::new(kind, &schedule, false);
            let said = tries.chars().map(|try_| match tally.count(try_ == '+') {
                Some(true) => '+',
                Some(false) => '-',
                None => '.',
            });
            said.collect::<String>()
        };
        assert_eq!(check(ProbeKind::Readiness, "--+++++-+--++-+++"), "....+.....-.....+");
        assert_eq!(check(ProbeKind::Liveness, "+-+--"), "....-");
        assert_eq!(check(ProbeKind::Startup, "-+-+++"), ".....+");
        assert_eq!(check(ProbeKind::Startup, "+--"), "..-");
        let mut known = Tally::new(ProbeKind::Readiness, &schedule, true);
        assert_eq!([false, false].map(|is_good| known.count(is_good)), [None, Some(false)]);
    }

    #[test]
    fn a_run_is_started_once_and_dies_once() {
        let schedule = schedule(json!({}));
        let is_final = |kind, verdict| Tally::new(kind, &schedule, false).is_final(verdict);
        assert_eq!([true, false].map(|verdict| is_final(ProbeKind::Startup, verdict)), [true, true]);
        assert_eq!([true, false].map(|verdict| is_final(ProbeKind::Liveness, verdict)), [false, true]);
        assert_eq!([true, false].map(|verdict| is_final(ProbeKind::Readiness, verdict)), [false, false]);
    }
}
