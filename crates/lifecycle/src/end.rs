//! How containers that do not end by themselves are brought to their end.

use std::time::Duration;

use jiff::Timestamp;

use crate::event::{Action, Plan};
use crate::{
    ContainerRecord, ContainerState, Ending, Hook, ImageState, Observed, ProbeKind, Role, Volumes, Why, Wish,
};

/// The grace of containers that begin anew because another one ended: the kubelet gives them none.
const RESTART: Duration = Duration::from_secs(2);

/// Ends all there is of a pod, and gives up what is on its way.
pub(crate) fn all(observed: &Observed, plan: &mut Plan, now: Timestamp) {
    if observed.volumes == Volumes::Mounting {
        plan.act(Action::AbandonMount);
    }
    end_all(observed, Why::PodEnds, observed.grace(), plan, now);
}

/// Ends all containers of a pod that are to begin anew; what was added to look into it stays, and images on their way
/// come all the same.
pub(crate) fn restart_all(observed: &Observed, plan: &mut Plan, now: Timestamp) {
    end_all(observed, Why::RestartAll, RESTART, plan, now);
}

fn end_all(observed: &Observed, why: Why, grace: Duration, plan: &mut Plan, now: Timestamp) {
    for container in &observed.containers {
        let begins_anew = why == Why::RestartAll;
        let stays = begins_anew && container.role == Role::Ephemeral;
        if container.state.is_active() && !stays {
            end(observed, container, why, grace, plan, now);
        } else if container.image == ImageState::Fetching && !begins_anew {
            plan.act(Action::Abandon { container: container.name.clone() });
        }
    }
}

/// Ends one container of a pod that goes on.
pub(crate) fn one(
    observed: &Observed,
    container: &ContainerRecord,
    why: Why,
    plan: &mut Plan,
    now: Timestamp,
) {
    end(observed, container, why, grace(observed, container, why), plan, now);
}

/// A probe may have a grace of its own, but not when the pod is deleted.
fn grace(observed: &Observed, container: &ContainerRecord, why: Why) -> Duration {
    let Why::Unhealthy(kind) = why else { return observed.grace() };
    let declared = observed.pod.container(&container.name);
    let probe = declared.as_ref().and_then(|declared| kind.of(declared));
    let own = probe.and_then(|probe| probe.termination_grace_period_seconds);
    let own = own.filter(|_| !observed.pod.is_deleted()).and_then(|seconds| u64::try_from(seconds).ok());
    own.map_or_else(|| observed.grace(), |seconds| Duration::from_secs(seconds.max(1)))
}

/// The decision first, then what it takes. A grace only shrinks.
fn end(
    observed: &Observed,
    container: &ContainerRecord,
    why: Why,
    grace: Duration,
    plan: &mut Plan,
    now: Timestamp,
) {
    let before = container.course.ending;
    let next = Ending::new(why, grace, before, now);
    match before {
        Some(ending) if grace >= ending.grace || next.deadline >= ending.deadline => {
            quieten(container, plan);
            carry_out(observed, container, &ending, plan, now);
        }
        _ => plan.act(Action::End { container: container.name.clone(), why, grace }),
    }
}

/// What ends is not probed for its life any more; whether it may be sent requests is asked to the last.
fn quieten(container: &ContainerRecord, plan: &mut Plan) {
    for kind in &container.course.probes {
        if *kind != ProbeKind::Readiness {
            plan.act(Action::StopProbing { container: container.name.clone(), kind: *kind });
        }
    }
}

fn carry_out(
    observed: &Observed,
    container: &ContainerRecord,
    ending: &Ending,
    plan: &mut Plan,
    now: Timestamp,
) {
    let (name, attempt) = (|| container.name.clone(), container.attempt);
    let is_late = ending.deadline <= now;
    match container.state {
        ContainerState::Starting => {
            plan.act_after(Some(ending.deadline), now, || Action::GiveUp { container: name(), attempt });
        }
        ContainerState::Running { .. } if !is_late && owes_pre_stop(observed, container, ending) => {
            plan.act(Action::RunHook { container: name(), attempt, hook: Hook::PreStop });
        }
        ContainerState::Running { .. } if !is_late && has_to_wait(observed, container) => {
            plan.wake_at(ending.deadline);
        }
        ContainerState::Running { .. } => {
            plan.act(Action::Stop { container: name(), grace: ending.left(now) });
        }
        ContainerState::Stopping { until, grace: given, .. } => {
            let grace = ending.left(now);
            if grace < given && now.saturating_add(grace).is_ok_and(|sooner| sooner < until) {
                plan.act(Action::Stop { container: name(), grace });
            }
        }
        _ => {}
    }
}

fn owes_pre_stop(observed: &Observed, container: &ContainerRecord, ending: &Ending) -> bool {
    let declares = || {
        let declared = observed.pod.container(&container.name);
        declared.is_some_and(|declared| {
            declared.lifecycle.as_ref().is_some_and(|lifecycle| lifecycle.pre_stop.is_some())
        })
    };
    !ending.hooked && ending.why != Why::RestartAll && declares()
}

/// Its `preStop` hook runs; or it is a sidecar whose pod ends, and what it serves has not ended: the app containers and
/// the sidecars after it.
fn has_to_wait(observed: &Observed, container: &ContainerRecord) -> bool {
    container.course.hook == Some(Hook::PreStop)
        || container.role == Role::Sidecar && ends_as_a_whole(observed) && has_dependants(observed, container)
}

fn ends_as_a_whole(observed: &Observed) -> bool {
    observed.is_ending() || observed.is_complete() || observed.restarts_all()
}

fn has_dependants(observed: &Observed, container: &ContainerRecord) -> bool {
    let after = observed.containers.iter().skip_while(|other| other.name != container.name).skip(1);
    let mut dependants = after.filter(|other| matches!(other.role, Role::Sidecar | Role::App));
    dependants.any(|other| other.state.is_active())
}
