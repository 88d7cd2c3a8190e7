use jiff::Timestamp;

use crate::backoff::Backoff;
use crate::event::{Action, Plan};
use crate::{
    Admission, ContainerRecord, ContainerState, Deletion, Exit, Freshness, Hook, ImageState, Observed,
    ProbeKind, Role, Volumes, Why, Wish, end, is_final,
};

/// What to begin now. Level-triggered: it looks at what is, not at what happened, so that asking twice adds nothing.
#[must_use]
pub fn plan(observed: &Observed, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let is_admitted = observed.admission == Admission::Admitted;
    let is_over = observed.is_ending() || observed.is_terminal() || is_admitted && observed.is_complete();
    let deadline = observed.deadline().filter(|_| !is_over);
    if deadline.is_some_and(|deadline| deadline <= now) {
        plan.act(Action::Expire);
    } else if is_over {
        end::all(observed, &mut plan, now);
        if !observed.is_busy() && plan.actions.is_empty() {
            finish(observed, &mut plan, now);
        }
    } else if is_admitted && observed.unsupported().is_none() {
        run(observed, &mut plan, now);
    }
    deadline.into_iter().filter(|deadline| *deadline > now).for_each(|deadline| plan.wake_at(deadline));
    plan
}

fn run(observed: &Observed, plan: &mut Plan, now: Timestamp) {
    match observed.volumes {
        Volumes::Unmounted => {
            let due = observed.mount_failure.as_ref().map(|failure| failure.due(now));
            plan.act_after(due, now, || Action::Mount);
        }
        Volumes::Mounted => {
            refresh(observed, plan, now);
            match observed.restarter() {
                Some((container, exit)) => restart_all(observed, container.restart_due(exit, now), plan, now),
                None => run_in_order(observed, plan, now),
            }
        }
        Volumes::Mounting | Volumes::Unmounting | Volumes::Gone => {}
    }
}

fn refresh(observed: &Observed, plan: &mut Plan, now: Timestamp) {
    if observed.freshness == Freshness::Stale {
        let due = observed.refresh_backoff.map(|backoff| backoff.over(now));
        plan.act_after(due, now, || Action::Refresh);
    }
}

/// Ends what runs, then lets all begin anew, as seldom as the container whose end is the cause of it may restart.
fn restart_all(observed: &Observed, due: Timestamp, plan: &mut Plan, now: Timestamp) {
    end::restart_all(observed, plan, now);
    let mut begin_anew = observed.containers.iter().filter(|container| container.role != Role::Ephemeral);
    if !begin_anew.any(|container| container.state.is_active()) && plan.actions.is_empty() {
        plan.act_after(Some(due), now, || Action::Reset);
    }
}

/// Each init container when the one before it is done, or started if it is a sidecar; then the others. What has begun
/// is kept up whatever became of those before it.
fn run_in_order(observed: &Observed, plan: &mut Plan, now: Timestamp) {
    let is_initialized = observed.is_initialized();
    let mut is_open = true;
    for container in &observed.containers {
        let may_run = match container.role {
            Role::Ephemeral => observed.unsupported_in(container).is_none(),
            _ => is_open,
        };
        match container.role {
            Role::Init if is_initialized || container.has_succeeded() => continue,
            Role::Sidecar if container.has_begun() => keep(observed, container, plan, now),
            _ if may_run => keep(observed, container, plan, now),
            _ => {}
        }
        is_open &= match container.role {
            Role::Init => false,
            Role::Sidecar => is_initialized || container.is_started(),
            Role::App | Role::Ephemeral => true,
        };
    }
}

fn keep(observed: &Observed, container: &ContainerRecord, plan: &mut Plan, now: Timestamp) {
    match &container.state {
        ContainerState::Waiting => start(container, container.attempt, plan, now),
        ContainerState::Terminated(exit) if observed.restarts(container, exit) => {
            let due = container.restart_due(exit, now);
            if due <= now {
                start(container, container.attempt + 1, plan, now);
            } else {
                plan.wake_at(container.retells_at().map_or(due, |time| time.min(due)));
            }
        }
        ContainerState::Running { .. } | ContainerState::Stopping { .. } => {
            tend(observed, container, plan, now);
        }
        ContainerState::Starting | ContainerState::Terminated(_) => {}
    }
}

fn start(container: &ContainerRecord, attempt: u32, plan: &mut Plan, now: Timestamp) {
    let container_name = || container.name.clone();
    if container.misfetched {
        plan.act(Action::Abandon { container: container_name() });
        return;
    }
    if let Some(failure) = container.failure.as_ref().filter(|failure| failure.due(now) > now) {
        plan.wake_at(failure.next_look());
        return;
    }
    match &container.image {
        ImageState::Unknown => plan.act(Action::Fetch { container: container_name() }),
        ImageState::Ready(_) => plan.act(Action::Start { container: container_name(), attempt }),
        ImageState::Fetching => {}
    }
}

/// What a container that runs needs: to end, its `postStart` hook, or probes.
fn tend(observed: &Observed, container: &ContainerRecord, plan: &mut Plan, now: Timestamp) {
    let changed = observed.is_outdated(container).then_some(Why::Changed);
    if let Some(why) = container.course.trouble.or(changed) {
        end::one(observed, container, why, plan, now);
    } else if container.course.owes_hook {
        run_post_start(container, plan);
    } else {
        probe(observed, container, plan);
    }
}

fn run_post_start(container: &ContainerRecord, plan: &mut Plan) {
    if container.course.hook.is_none() {
        let (container, attempt) = (container.name.clone(), container.attempt);
        plan.act(Action::RunHook { container, attempt, hook: Hook::PostStart });
    }
}

/// Until a container has started only its startup probe runs, then only the others.
fn probe(observed: &Observed, container: &ContainerRecord, plan: &mut Plan) {
    let Some(declared) = observed.pod.container(&container.name) else { return };
    for kind in ProbeKind::ALL {
        let is_wanted = kind.of(&declared).is_some()
            && (kind == ProbeKind::Startup) != container.course.started
            && !container.course.probes.contains(&kind);
        if is_wanted {
            let (container, attempt) = (container.name.clone(), container.attempt);
            plan.act(Action::Probe { container, attempt, kind });
        }
    }
}

/// The last steps, each when the one before it is done: terminal phase acknowledged, volumes gone, object deleted.
fn finish(observed: &Observed, plan: &mut Plan, now: Timestamp) {
    let is_shown = || observed.pod.status.as_ref().is_some_and(|shown| is_final(observed, shown));
    let acknowledged = observed.published || observed.removed || is_shown();
    if !observed.is_terminal() || !acknowledged {
        return;
    }
    if observed.volumes != Volumes::Gone {
        plan.act(Action::Unmount);
    } else if observed.removed {
        plan.act(Action::Forget);
    } else if observed.pod.is_deleted() {
        delete(observed, plan, now);
    }
}

fn delete(observed: &Observed, plan: &mut Plan, now: Timestamp) {
    if observed.deletion == Deletion::Idle {
        let wait = observed.deletion_backoff.map(|backoff| backoff.over(now));
        plan.act_after(wait, now, || Action::Delete);
    }
}

impl ContainerRecord {
    /// When a container that ended may start again. What the agent's own end interrupted does not wait.
    #[must_use]
    pub fn restart_at(&self, exit: &Exit) -> Timestamp {
        if self.interrupted || self.renewed {
            exit.finished_at
        } else {
            Backoff::due(self.backoff, exit.finished_at)
        }
    }

    /// The same as it is to be kept to at `now`: an end in the future, by a clock that was set back since, is waited for
    /// no longer.
    fn restart_due(&self, exit: &Exit, now: Timestamp) -> Timestamp {
        if exit.finished_at > now { now } else { self.restart_at(exit) }
    }
}
