use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;

use crate::backoff::{Backoff, CONTAINER, MOUNT};
use crate::event::{Action, Event};
use crate::reasons::Waiting;
use crate::{
    Admission, Cause, ContainerRecord, ContainerState, Deletion, Eviction, Exit, Failure, Freshness,
    ImageState, LocalImage, Observed, RanImage, Volumes, Wish, projection,
};

/// Folds what happened at `now` into what is known: the only function that changes an [`Observed`].
pub fn apply(observed: &mut Observed, event: Event, now: Timestamp) {
    match event {
        Event::Wished(pod) => wish(observed, pod),
        Event::Removed => observed.removed = true,
        Event::ShutDown => observed.shutdown = true,
        Event::Judged(admission) => judge(observed, admission, now),
        Event::Evicted(eviction) => evict(observed, eviction),
        Event::Began(action) => begin(observed, action, now),
        Event::Mounted => mounted(observed),
        Event::MountFailed { message } => fail_mount(observed, message, now),
        Event::SourcesChanged => sources_changed(observed, now),
        Event::Refreshed => refreshed(observed),
        Event::RefreshFailed { .. } => fail_refresh(observed, now),
        Event::Unmounted => observed.volumes = Volumes::Gone,
        Event::Published { terminal } => observed.published |= terminal,
        Event::Deleted => observed.deletion = Deletion::Done,
        Event::DeleteFailed => fail_delete(observed, now),
        Event::Woke => show_waits(observed, now),
        Event::PullBegan { .. } | Event::PullSecretsMissing { .. } | Event::Pulled { .. } => {}
        Event::Fetched { container, image, .. } => {
            with(observed, &container, |record| fetched(record, image));
        }
        Event::FetchFailed { container, reason, message } => {
            with(observed, &container, |record| fail_fetch(record, reason, message, now));
        }
        Event::Started { container } => with(observed, &container, |record| started(record, now)),
        Event::StartFailed { container, reason, message } => {
            with(observed, &container, |record| fail_start(record, reason, message, now));
        }
        Event::Exited { container, attempt, exit } => ended(observed, &container, attempt, exit),
    }
}

fn with(observed: &mut Observed, container: &str, change: impl FnOnce(&mut ContainerRecord)) {
    if let Some(record) = observed.container_mut(container) {
        change(record);
    }
}

/// A deletion is never taken back and a terminal phase never left: an object without them is an older state.
fn wish(observed: &mut Observed, pod: Arc<Pod>) {
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
    observed.pod = pod;
}

/// Another image owes nothing to the failures of the one before it.
fn change_image(record: &mut ContainerRecord) {
    record.failure = None;
    record.backoff = None;
    if !record.state.is_active() && record.image != ImageState::Fetching {
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
        Action::Unmount => observed.volumes = Volumes::Unmounting,
        Action::Delete => observed.deletion = Deletion::InFlight,
        Action::Forget => {}
        Action::Expire => evict(observed, Eviction::past_deadline()),
        Action::Fetch { container } => {
            with(observed, &container, |record| record.image = ImageState::Fetching);
        }
        Action::Abandon { container } => {
            with(observed, &container, |record| record.image = ImageState::Unknown);
        }
        Action::Start { container, attempt } => {
            with(observed, &container, |record| begin_start(record, attempt, now));
        }
        Action::Stop { container, grace } => with(observed, &container, |record| {
            if let ContainerState::Running { started_at } | ContainerState::Stopping { started_at, .. } =
                record.state
            {
                record.state = ContainerState::Stopping { started_at, grace };
            }
        }),
    }
}

fn begin_start(record: &mut ContainerRecord, attempt: u32, now: Timestamp) {
    if let ContainerState::Terminated(exit) = &record.state {
        if !record.interrupted {
            record.backoff = Some(Backoff::next(CONTAINER, record.backoff, exit.finished_at, now));
        }
        record.last = Some(exit.clone());
    }
    record.interrupted = false;
    record.attempt = attempt;
    record.state = ContainerState::Starting;
    if let ImageState::Ready(image) = &record.image {
        record.ran =
            Some(RanImage { reference: image.reference.clone(), repo_digest: image.repo_digest.clone() });
    }
}

fn fetched(record: &mut ContainerRecord, image: Box<LocalImage>) {
    if record.image == ImageState::Fetching {
        record.image = ImageState::Ready(image);
        record.failure = record.failure.take().filter(|failure| !failure.reason.is_of_image());
    }
}

fn fail_fetch(record: &mut ContainerRecord, reason: Waiting, message: String, now: Timestamp) {
    if record.image == ImageState::Fetching {
        fail(record, reason, message, now);
    }
}

/// Whatever failed on the way to a start, the next try looks for the image again.
fn fail(record: &mut ContainerRecord, reason: Waiting, message: String, now: Timestamp) {
    let failure = Failure::new(CONTAINER, record.failure.as_ref(), reason, message, now);
    record.failure = Some(failure);
    record.image = ImageState::Unknown;
}

fn started(record: &mut ContainerRecord, now: Timestamp) {
    if record.state == ContainerState::Starting {
        record.state = ContainerState::Running { started_at: now };
        record.failure = None;
    }
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
            record.state = ContainerState::Terminated(exit);
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
    let failures = observed.containers.iter_mut().filter_map(|record| record.failure.as_mut());
    let of_config = failures.filter(|failure| failure.reason == Waiting::CreateContainerConfigError);
    for failure in of_config.chain(observed.mount_failure.as_mut()) {
        failure.backoff = Backoff { delay: SignedDuration::ZERO, updated_at: now };
    }
    observed.refresh_backoff = None;
    stale(observed);
}

fn fail_delete(observed: &mut Observed, now: Timestamp) {
    observed.deletion = Deletion::Idle;
    observed.deletion_backoff = Some(Backoff::next(MOUNT, observed.deletion_backoff, now, now));
}

fn show_waits(observed: &mut Observed, now: Timestamp) {
    for failure in observed.containers.iter_mut().filter_map(|record| record.failure.as_mut()) {
        failure.age(now);
    }
}
