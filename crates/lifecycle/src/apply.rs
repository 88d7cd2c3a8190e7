use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod};

use crate::backoff::{Backoff, CONTAINER, MOUNT};
use crate::event::{Action, Event};
use crate::reasons::Waiting;
use crate::{
    Admission, Cause, ContainerRecord, ContainerState, Course, Deletion, Ending, Eviction, Exit, Failure,
    Freshness, Hook, ImageState, LocalImage, Observed, ProbeKind, RanImage, Role, Volumes, Why, Wish,
    projection,
};

/// Folds what happened at `now` into what is known: the only function that changes an [`Observed`].
pub fn apply(observed: &mut Observed, event: Event, now: Timestamp) {
    if let Event::ClockSet(by) = event {
        move_ends(observed, by);
    }
    keep_graces(observed, now);
    match event {
        Event::Wished(pod) => wish(observed, pod, now),
        Event::Removed => observed.removed = true,
        Event::ShutDown => observed.shutdown = true,
        Event::Addressed(addresses) => observed.addresses = addresses,
        Event::Judged(admission) => judge(observed, admission, now),
        Event::Evicted(eviction) => evict(observed, eviction),
        Event::Began(action) => begin(observed, action, now),
        Event::Mounted => mounted(observed),
        Event::MountFailed { message } | Event::SandboxFailed { message } => {
            fail_mount(observed, message, now);
        }
        Event::SourcesChanged => sources_changed(observed, now),
        Event::Refreshed => refreshed(observed),
        Event::RefreshFailed { .. } => fail_refresh(observed, now),
        Event::Unmounted => observed.volumes = Volumes::Gone,
        Event::Published { terminal } => observed.published |= terminal,
        Event::Deleted => observed.deletion = Deletion::Done,
        Event::DeleteFailed => fail_delete(observed, now),
        Event::Woke => show_waits(observed, now),
        Event::ClockSet(_)
        | Event::PullBegan { .. }
        | Event::PullSecretsMissing { .. }
        | Event::Pulled { .. }
        | Event::HookFellBack { .. }
        | Event::ProbeTold { .. } => {}
        Event::Fetched { container, image, kind } => {
            with(observed, &container, |record| {
                record.kind = kind;
                fetched(record, image);
            });
        }
        Event::FetchFailed { container, reason, message } => {
            with(observed, &container, |record| fail_fetch(record, reason, message, now));
        }
        Event::Started { container } => started(observed, &container, now),
        Event::HookEnded { container, attempt, hook, succeeded } => {
            hook_ended(observed, &container, attempt, hook, succeeded);
        }
        Event::Probed { container, attempt, kind, healthy } => {
            probed(observed, &container, attempt, kind, healthy);
        }
        Event::StartFailed { container, reason, message } => {
            with(observed, &container, |record| fail_start(record, reason, message, now));
        }
        Event::Exited { container, attempt, exit } => ended(observed, &container, attempt, exit),
    }
}

/// A clock that was set neither gives nor takes time: what is to end has as much as it had.
fn move_ends(observed: &mut Observed, by: SignedDuration) {
    let moved = |time: Timestamp| {
        let end = if by.is_negative() { Timestamp::MIN } else { Timestamp::MAX };
        time.checked_add(by).unwrap_or(end)
    };
    for record in &mut observed.containers {
        if let Some(ending) = &mut record.course.ending {
            ending.deadline = moved(ending.deadline);
        }
        if let ContainerState::Stopping { until, .. } = &mut record.state {
            *until = moved(*until);
        }
    }
}

/// A clock that was set back gives nobody more time, though nobody has told: what is to end has no longer than its grace, from now on.
fn keep_graces(observed: &mut Observed, now: Timestamp) {
    for record in &mut observed.containers {
        let Some(ending) = &mut record.course.ending else { continue };
        let latest = now.saturating_add(ending.grace).unwrap_or(Timestamp::MAX);
        ending.deadline = ending.deadline.min(latest);
        if let ContainerState::Stopping { until, grace, .. } = &mut record.state {
            *until = now.saturating_add(*grace).unwrap_or(Timestamp::MAX).min(*until);
        }
    }
}

fn with(observed: &mut Observed, container: &str, change: impl FnOnce(&mut ContainerRecord)) {
    if let Some(record) = observed.container_mut(container) {
        change(record);
    }
}

/// A deletion is never taken back and a terminal phase never left: an object without them is an older state.
fn wish(observed: &mut Observed, pod: Arc<Pod>, now: Timestamp) {
    let before = &observed.pod;
    let is_older =
        before.is_deleted() && !pod.is_deleted() || before.has_terminal_phase() && !pod.has_terminal_phase();
    if is_older {
        return;
    }
    for record in &mut observed.containers {
        let image = |pod: &Pod| pod.container(&record.name).and_then(|declared| declared.image.clone());
        if image(&observed.pod) != image(&pod) {
            change_image(record);
        }
    }
    if projection::shows_change(&observed.pod, &pod) {
        stale(observed);
    }
    let told = |pod: &Pod| (pod.metadata.labels.clone(), pod.metadata.annotations.clone());
    if told(&observed.pod) != told(&pod) {
        // A variable may come from there that was missing.
        try_configs_again(observed, now);
    }
    let added = pod.roles().into_iter().filter(|(role, _)| *role == Role::Ephemeral);
    for (role, name) in added {
        if observed.container(name).is_none() {
            observed.containers.push(ContainerRecord::new(name, role));
        }
    }
    observed.pod = pod;
}

/// Another image owes nothing to the failures of the one before it.
fn change_image(record: &mut ContainerRecord) {
    record.failure = None;
    record.backoff = None;
    if record.image == ImageState::Fetching {
        record.misfetched = true;
    } else if !record.state.is_active() {
        record.image = ImageState::Unknown;
    }
}

/// A pod is judged once, and not any more when it is over.
fn judge(observed: &mut Observed, admission: Admission, now: Timestamp) {
    if observed.admission == Admission::Awaited && !observed.is_over_by_wish() {
        observed.started_at.get_or_insert(now);
        observed.admission = admission;
    }
}

/// What is over already ends for no other reason, and the first reason stays; a shorter grace still counts.
fn evict(observed: &mut Observed, eviction: Eviction) {
    if let Some(before) = &mut observed.eviction {
        before.grace = before.grace.into_iter().chain(eviction.grace).min();
    } else if !observed.is_terminal() && !observed.is_over_by_wish() {
        observed.eviction = Some(eviction);
    }
}

fn begin(observed: &mut Observed, action: Action, now: Timestamp) {
    match action {
        Action::Mount => {
            observed.volumes = Volumes::Mounting;
            observed.freshness = Freshness::Fresh;
        }
        Action::Refresh => observed.freshness = Freshness::Refreshing,
        Action::AbandonMount => observed.volumes = Volumes::Unmounted,
        Action::Unmount => observed.volumes = Volumes::Unmounting,
        Action::Delete => observed.deletion = Deletion::InFlight,
        Action::Forget => {}
        Action::Expire => evict(observed, Eviction::past_deadline()),
        Action::Reset => reset(observed, now),
        Action::Start { container, attempt } => begin_start(observed, &container, attempt, now),
        Action::Fetch { ref container }
        | Action::Abandon { ref container }
        | Action::GiveUp { ref container, .. }
        | Action::RunHook { ref container, .. }
        | Action::Probe { ref container, .. }
        | Action::StopProbing { ref container, .. }
        | Action::End { ref container, .. }
        | Action::Stop { ref container, .. } => {
            with(observed, container, |record| begin_with(record, &action, now));
        }
    }
}

/// The actions that change the record of one container and nothing else.
fn begin_with(record: &mut ContainerRecord, action: &Action, now: Timestamp) {
    let course = &mut record.course;
    match *action {
        Action::Fetch { .. } => record.image = ImageState::Fetching,
        Action::Abandon { .. } => {
            record.image = ImageState::Unknown;
            record.misfetched = false;
        }
        Action::GiveUp { .. } => record.state = ContainerState::Waiting,
        Action::RunHook { hook, .. } => {
            course.hook = Some(hook);
            if let Some(ending) = course.ending.as_mut().filter(|_| hook == Hook::PreStop) {
                ending.hooked = true;
            }
        }
        Action::Probe { kind, .. } => course.probes.push(kind),
        Action::StopProbing { kind, .. } => course.probes.retain(|probe| *probe != kind),
        Action::End { why, grace, .. } => {
            course.ending = Some(Ending::new(why, grace, course.ending, now));
            course.hook = course.hook.filter(|hook| *hook == Hook::PreStop);
        }
        Action::Stop { grace, .. } => stop(record, grace, now),
        _ => {}
    }
}

fn stop(record: &mut ContainerRecord, grace: Duration, now: Timestamp) {
    if let Some(started_at) = record.state.running_since() {
        // What is left of the end that was decided, not of the plan: that was made a moment ago, and a run that may go on
        // for that moment longer would be stopped again and again.
        let left = record.course.ending.map_or(grace, |ending| ending.left(now));
        let until = now.saturating_add(left).unwrap_or(Timestamp::MAX);
        record.state = ContainerState::Stopping { started_at, grace: left, until };
        record.course.hook = None;
    }
}

fn begin_start(observed: &mut Observed, container: &str, attempt: u32, now: Timestamp) {
    let wished = observed.pod.container(container).and_then(|declared| declared.image.clone());
    with(observed, container, |record| {
        if let ContainerState::Terminated(exit) = &record.state {
            if !record.interrupted {
                record.backoff = Some(Backoff::next(CONTAINER, record.backoff, exit.finished_at, now));
            }
            record.last = Some(exit.clone());
            record.anew = false;
        }
        record.interrupted = false;
        record.renewed = false;
        record.unhooked = false;
        record.attempt = attempt;
        record.state = ContainerState::Starting;
        record.course = Course::default();
        if let ImageState::Ready(image) = &record.image {
            record.ran = Some(RanImage {
                reference: image.reference.clone(),
                repo_digest: image.repo_digest.clone(),
                wished: wished.unwrap_or_default(),
            });
        }
    });
}

/// All begin anew. Only the container whose end is the cause of it waits longer the next time.
fn reset(observed: &mut Observed, now: Timestamp) {
    let restarter = observed.restarter().map(|(container, _)| container.name.clone());
    for record in observed.containers.iter_mut().filter(|record| record.role != Role::Ephemeral) {
        let ContainerState::Terminated(exit) = &record.state else { continue };
        if Some(&record.name) == restarter.as_ref() {
            record.backoff = Some(Backoff::next(CONTAINER, record.backoff, exit.finished_at, now));
        }
        record.last = Some(exit.clone());
        record.attempt += 1;
        record.state = ContainerState::Waiting;
        record.interrupted = false;
        record.renewed = false;
        record.unhooked = false;
        record.anew = true;
    }
}

fn fetched(record: &mut ContainerRecord, image: Box<LocalImage>) {
    if record.image == ImageState::Fetching && !forget_misfetched(record) {
        record.image = ImageState::Ready(image);
        record.failure = record.failure.take().filter(|failure| !failure.reason.is_of_image());
    }
}

fn fail_fetch(record: &mut ContainerRecord, reason: Waiting, message: String, now: Timestamp) {
    if record.image == ImageState::Fetching && !forget_misfetched(record) {
        fail(record, reason, message, now);
    }
}

/// Whatever became of an image that is no longer wished for, the one that is has to be looked for.
fn forget_misfetched(record: &mut ContainerRecord) -> bool {
    if record.misfetched {
        record.misfetched = false;
        record.image = ImageState::Unknown;
        return true;
    }
    false
}

/// Whatever failed on the way to a start, the next try looks for the image again.
fn fail(record: &mut ContainerRecord, reason: Waiting, message: String, now: Timestamp) {
    let failure = Failure::new(CONTAINER, record.failure.as_ref(), reason, message, now);
    record.failure = Some(failure);
    record.image = ImageState::Unknown;
}

fn started(observed: &mut Observed, container: &str, now: Timestamp) {
    let declared = observed.pod.container(container).map(Cow::into_owned).unwrap_or_default();
    with(observed, container, |record| {
        if record.state == ContainerState::Starting {
            record.state = ContainerState::Running { started_at: now };
            record.failure = None;
            let hooks = declared.lifecycle.as_ref();
            record.course.owes_hook = hooks.is_some_and(|hooks| hooks.post_start.is_some());
            come_up(record, &declared);
        }
    });
}

/// A container without a startup probe has started as soon as it is up, and one without a readiness probe is ready then.
fn come_up(record: &mut ContainerRecord, declared: &Container) {
    let course = &mut record.course;
    course.started = !course.owes_hook && declared.startup_probe.is_none();
    course.ready = course.started && declared.readiness_probe.is_none();
}

fn hook_ended(observed: &mut Observed, container: &str, attempt: u32, hook: Hook, succeeded: bool) {
    let declared = observed.pod.container(container).map(Cow::into_owned).unwrap_or_default();
    with(observed, container, |record| {
        if record.attempt != attempt || record.course.hook != Some(hook) {
            return;
        }
        record.course.hook = None;
        match hook {
            Hook::PostStart if succeeded => {
                record.course.owes_hook = false;
                come_up(record, &declared);
            }
            Hook::PostStart => record.course.trouble = Some(Why::HookFailed),
            Hook::PreStop => {}
        }
    });
}

fn probed(observed: &mut Observed, container: &str, attempt: u32, kind: ProbeKind, healthy: bool) {
    let has_readiness_probe =
        observed.pod.container(container).is_some_and(|declared| declared.readiness_probe.is_some());
    with(observed, container, |record| {
        let course = &mut record.course;
        if record.attempt != attempt || !course.probes.contains(&kind) {
            return;
        }
        match (kind, healthy) {
            (ProbeKind::Readiness, _) => course.ready = healthy,
            (ProbeKind::Startup, true) => {
                course.started = true;
                course.ready = !has_readiness_probe;
            }
            (ProbeKind::Startup | ProbeKind::Liveness, false) => course.trouble = Some(Why::Unhealthy(kind)),
            (ProbeKind::Liveness, true) => {}
        }
        if kind == ProbeKind::Startup || course.trouble == Some(Why::Unhealthy(kind)) {
            course.probes.retain(|probe| *probe != kind);
        }
    });
}

fn fail_start(record: &mut ContainerRecord, reason: Waiting, message: String, now: Timestamp) {
    if record.state == ContainerState::Starting {
        record.state = ContainerState::Waiting;
        fail(record, reason, message, now);
    }
}

/// What the agent's own stop ended was interrupted: that is not an exit of the program.
fn ended(observed: &mut Observed, container: &str, attempt: u32, mut exit: Exit) {
    if observed.shutdown && !observed.is_over_by_wish() && !exit.cause.is_own() {
        exit.cause = Cause::Lost;
    }
    with(observed, container, |record| {
        if record.attempt == attempt && record.state.is_active() {
            let ending = record.course.ending.take();
            record.renewed = ending.is_some_and(|ending| ending.why == Why::Changed);
            record.unhooked = ending.is_some_and(|ending| ending.why == Why::HookFailed);
            record.tells_why = record.unhooked || exit.cause == Cause::Unstarted;
            record.state = ContainerState::Terminated(exit);
            record.course = Course::default();
            record.image = ImageState::Unknown;
            record.failure = None;
        }
    });
}

fn mounted(observed: &mut Observed) {
    observed.volumes = Volumes::Mounted;
    observed.mount_failure = None;
}

fn fail_mount(observed: &mut Observed, message: String, now: Timestamp) {
    let before = observed.mount_failure.as_ref();
    observed.mount_failure = Some(Failure::new(MOUNT, before, Waiting::ContainerCreating, message, now));
    observed.volumes = Volumes::Unmounted;
}

fn stale(observed: &mut Observed) {
    observed.freshness = match observed.freshness {
        Freshness::Refreshing | Freshness::Overtaken => Freshness::Overtaken,
        Freshness::Fresh | Freshness::Stale => Freshness::Stale,
    };
}

fn refreshed(observed: &mut Observed) {
    observed.refresh_backoff = None;
    observed.freshness = match observed.freshness {
        Freshness::Refreshing | Freshness::Fresh => Freshness::Fresh,
        Freshness::Overtaken | Freshness::Stale => Freshness::Stale,
    };
}

fn fail_refresh(observed: &mut Observed, now: Timestamp) {
    // What has changed meanwhile may be just what was missing.
    let before = observed.refresh_backoff.filter(|_| observed.freshness != Freshness::Overtaken);
    observed.refresh_backoff = Some(Backoff::next(MOUNT, before, now, now));
    observed.freshness = Freshness::Stale;
}

/// A failure for want of something waits no longer when there is news of that.
fn sources_changed(observed: &mut Observed, now: Timestamp) {
    try_configs_again(observed, now);
    if let Some(failure) = &mut observed.mount_failure {
        failure.backoff = Backoff { delay: SignedDuration::ZERO, updated_at: now };
    }
    observed.refresh_backoff = None;
    stale(observed);
}

fn try_configs_again(observed: &mut Observed, now: Timestamp) {
    let failures = observed.containers.iter_mut().filter_map(|record| record.failure.as_mut());
    for failure in failures.filter(|failure| failure.reason == Waiting::CreateContainerConfigError) {
        failure.backoff = Backoff { delay: SignedDuration::ZERO, updated_at: now };
    }
}

fn fail_delete(observed: &mut Observed, now: Timestamp) {
    observed.deletion = Deletion::Idle;
    observed.deletion_backoff = Some(Backoff::next(MOUNT, observed.deletion_backoff, now, now));
}

fn show_waits(observed: &mut Observed, now: Timestamp) {
    for record in &mut observed.containers {
        if let Some(failure) = &mut record.failure {
            failure.age(now);
        }
        record.tells_why &= record.retells_at().is_some_and(|time| time > now);
    }
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
