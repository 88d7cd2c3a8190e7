use std::time::Duration;

use jiff::Timestamp;

use crate::backoff::Backoff;
use crate::event::{Action, Plan};
use crate::{
    Admission, ContainerRecord, ContainerState, Deletion, Exit, Failure, Freshness, ImageState, Observed,
    Volumes, Wish, is_final,
};

/// The grace of a container whose pod was deleted by force.
const FORCED: Duration = Duration::from_secs(1);

/// What to begin now. Level-triggered: it looks at what is, not at what happened, so that asking twice adds nothing.
#[must_use]
pub fn plan(observed: &Observed, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let deadline = observed.deadline().filter(|_| !observed.is_ending() && !observed.is_terminal());
    if deadline.is_some_and(|deadline| deadline <= now) {
        plan.act(Action::Expire);
    } else if observed.is_ending() || observed.is_terminal() {
        stop(observed, &mut plan);
        if !observed.is_busy() && plan.actions.is_empty() {
            finish(observed, &mut plan, now);
        }
    } else if observed.admission == Admission::Admitted && observed.unsupported().is_none() {
        run(observed, &mut plan, now);
    }
    deadline.into_iter().filter(|deadline| *deadline > now).for_each(|deadline| plan.wake_at(deadline));
    plan
}

fn run(observed: &Observed, plan: &mut Plan, now: Timestamp) {
    match observed.volumes {
        Volumes::Unmounted => {
            plan.act_after(observed.mount_failure.as_ref().map(Failure::retry_at), now, || Action::Mount);
        }
        Volumes::Mounted => {
            if observed.freshness == Freshness::Stale {
                let due = observed.refresh_backoff.map(|backoff| backoff.updated_at + backoff.delay);
                plan.act_after(due, now, || Action::Refresh);
            }
            for container in &observed.containers {
                run_container(observed, container, plan, now);
            }
        }
        Volumes::Mounting | Volumes::Unmounting | Volumes::Gone => {}
    }
}

fn run_container(observed: &Observed, container: &ContainerRecord, plan: &mut Plan, now: Timestamp) {
    match &container.state {
        ContainerState::Waiting => start(container, container.attempt, plan, now),
        ContainerState::Terminated(exit) if observed.restarts(exit) => {
            let due = container.restart_at(exit);
            if due <= now {
                start(container, container.attempt + 1, plan, now);
            } else {
                plan.wake_at(due);
            }
        }
        _ => {}
    }
}

fn start(container: &ContainerRecord, attempt: u32, plan: &mut Plan, now: Timestamp) {
    if let Some(failure) = container.failure.as_ref().filter(|failure| failure.retry_at() > now) {
        plan.wake_at(failure.next_look());
        return;
    }
    let container_name = || container.name.clone();
    match &container.image {
        ImageState::Unknown => plan.act(Action::Fetch { container: container_name() }),
        ImageState::Ready(_) => plan.act(Action::Start { container: container_name(), attempt }),
        ImageState::Fetching => {}
    }
}

fn stop(observed: &Observed, plan: &mut Plan) {
    let grace = if observed.removed { FORCED } else { observed.grace() };
    for container in &observed.containers {
        let name = || container.name.clone();
        match container.state {
            ContainerState::Running { .. } => plan.act(Action::Stop { container: name(), grace }),
            ContainerState::Stopping { grace: given, .. } if grace < given => {
                plan.act(Action::Stop { container: name(), grace });
            }
            _ if container.image == ImageState::Fetching => plan.act(Action::Abandon { container: name() }),
            _ => {}
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
        let wait = observed.deletion_backoff.map(|backoff| backoff.updated_at + backoff.delay);
        plan.act_after(wait, now, || Action::Delete);
    }
}

impl ContainerRecord {
    /// When a container that ended may start again. What the agent's own end interrupted does not wait.
    #[must_use]
    pub fn restart_at(&self, exit: &Exit) -> Timestamp {
        if self.interrupted { exit.finished_at } else { Backoff::due(self.backoff, exit.finished_at) }
    }
}
