use coracle_lifecycle::{Action, Event, Plan, Role, apply, is_final, plan, status};
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::PodStatus;

use super::World;

fn is_terminal(status: &PodStatus) -> bool {
    matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"))
}

impl World {
    /// What was begun is not planned again.
    pub(super) fn check_that_planning_again_adds_nothing(&self, begun: &Plan) {
        let again = plan(&self.observed, self.now);
        let repeated: Vec<&Action> = again
            .actions
            .iter()
            .filter(|action| **action != Action::Forget && begun.actions.contains(action))
            .collect();
        assert!(repeated.is_empty(), "{repeated:?} was begun and is planned again");
    }

    /// The object says how all that ran has ended before it is deleted.
    pub(super) fn check_that_all_is_told(&self) {
        let status = self.object.status.clone().unwrap_or_default();
        assert!(is_final(&self.observed, &status), "deleted before the API server shows the end: {status:?}");
        let lists = [
            &status.init_container_statuses,
            &status.container_statuses,
            &status.ephemeral_container_statuses,
        ];
        for (container, attempt) in &self.ran {
            let shown = lists.into_iter().flatten().flatten().find(|shown| shown.name == *container);
            let count = shown.and_then(|shown| u32::try_from(shown.restart_count).ok());
            assert!(count >= Some(*attempt), "run {attempt} of {container} is not told: {status:?}");
        }
    }

    /// At most one run of a container, and no run twice.
    pub(super) fn check_start(&mut self, container: &str, attempt: u32) {
        let under_way =
            self.flights.iter().filter_map(super::Flight::run_of).any(|(name, _)| name == container);
        assert!(!under_way, "{container} is started while it runs");
        assert!(self.observed.unsupported().is_none(), "an unsupported pod is started");
        let run = (container.to_owned(), attempt);
        assert!(!self.ran.contains(&run), "{run:?} is started a second time");
        let latest = self.ran.iter().filter(|(name, _)| name == container).map(|(_, attempt)| *attempt).max();
        assert!(latest.is_none_or(|latest| attempt == latest + 1), "{run:?} follows {latest:?}");
    }

    pub(super) fn check_that_it_runs(&self, container: &str, attempt: u32) {
        let runs = self.flights.iter().any(
            |flight| matches!(flight, super::Flight::Run { container: name, attempt: run, .. } if name == container && *run == attempt),
        );
        assert!(runs, "run {attempt} of {container} does not run");
    }

    /// Before a container begins for the first time, each init container before it has done its work, and each sidecar
    /// before it has started; once an app container runs, no sidecar holds up the others.
    pub(super) fn check_order_of_starts(&self, container: &str) {
        let role = self.observed.container(container).map(|record| record.role);
        if role == Some(Role::Ephemeral) || self.ran.iter().any(|(name, _)| name == container) {
            return;
        }
        for before in self.observed.containers.iter().take_while(|record| record.name != container) {
            let name = &before.name;
            match before.role {
                Role::Init => assert!(self.succeeded.contains(name), "{container} before {name} is done"),
                Role::Sidecar => {
                    let may_begin = before.is_started() || self.observed.is_initialized();
                    assert!(may_begin, "{container} before {name} has started");
                }
                Role::App | Role::Ephemeral => {}
            }
        }
    }

    /// When a pod ends, a sidecar outlives the containers it serves, as long as their grace lasts.
    pub(super) fn check_order_of_stops(&self, container: &str) {
        let Some(sidecar) = self.observed.container(container).filter(|record| record.role == Role::Sidecar)
        else {
            return;
        };
        let is_late = sidecar.course.ending.is_some_and(|ending| ending.deadline <= self.now);
        if is_late || !self.observed.is_ending() {
            return;
        }
        let after = self.observed.containers.iter().skip_while(|record| record.name != container).skip(1);
        for other in after.filter(|other| matches!(other.role, Role::Sidecar | Role::App)) {
            let runs =
                self.flights.iter().filter_map(super::Flight::run_of).any(|(name, _)| name == other.name);
            assert!(!runs, "{container} is stopped before {}", other.name);
        }
    }

    pub(super) fn check(&self, shown: &PodStatus) {
        self.check_phase(shown);
        self.check_counts(shown);
        self.check_wake();
        assert_eq!(*shown, status(&self.observed, &self.shown, self.now), "status is no function");
        let later = self.now + SignedDuration::from_hours(1);
        assert_eq!(*shown, status(&self.observed, shown, later), "status changes though nothing happened");
    }

    fn check_phase(&self, shown: &PodStatus) {
        if is_terminal(&self.shown) && !self.foreign_phase {
            assert_eq!(shown.phase, self.shown.phase, "a terminal phase was left");
        }
        let runs = self.flights.iter().any(|flight| flight.run_of().is_some());
        let lost = self.flights.iter().filter_map(super::Flight::of_run).find(|(name, attempt)| {
            !self.flights.iter().any(|flight| flight.run_of() == Some((*name, *attempt)))
        });
        assert_eq!(lost, None, "a hook or probe outlives its run");
        assert!(
            self.foreign_phase || !(is_terminal(shown) && runs),
            "terminal while something runs: {:?}",
            self.flights
        );
        if is_terminal(shown) {
            let ready = shown.conditions.iter().flatten().find(|condition| condition.type_ == "Ready");
            assert!(
                ready.is_none_or(|ready| self.foreign_phase || ready.status == "False"),
                "ready after the end"
            );
        }
    }

    fn check_counts(&self, shown: &PodStatus) {
        // Who writes a phase may know less than this node has to say, and is left alone where nothing ran.
        if self.foreign_phase && shown.container_statuses.is_none() {
            return;
        }
        let statuses = || shown.container_statuses.iter().flatten();
        for before in self.shown.container_statuses.iter().flatten() {
            let after = statuses().find(|after| after.name == before.name);
            assert!(
                after.is_some_and(|after| after.restart_count >= before.restart_count),
                "the count of restarts fell from {} to {:?}",
                before.restart_count,
                after
            );
        }
        assert!(statuses().is_sorted_by_key(|status| &status.name), "statuses are not sorted");
        if self.shown.pod_ip.is_some() {
            assert_eq!(shown.pod_ip, self.shown.pod_ip, "the pod lost its address");
        }
    }

    /// A time that has come changes something: the worker never spins.
    fn check_wake(&self) {
        let Some(wake) = self.wake else { return };
        let now = self.now.max(wake);
        let mut woken = self.observed.clone();
        for _ in 0..3 {
            apply(&mut woken, Event::Woke, now);
            let plan = plan(&woken, now);
            if !plan.actions.is_empty() || plan.wake.is_none_or(|wake| wake > now) {
                return;
            }
        }
        panic!("woken at {now}, the plan still waits for {wake}");
    }
}
