use std::time::Duration;

use crate::event::{Action, Event, ProbeTrouble, PullTime};
use crate::reasons::Waiting;
use crate::{
    Admission, Cause, ContainerRecord, ContainerState, Eviction, Exit, Face, Hook, Observed, ProbeKind,
    RestartPolicy, Role, Why, Wish,
};

/// One Event to write about a pod, in the kubelet's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Whether it reports something that is wrong.
    pub is_warning: bool,
    /// One word, such as `Pulled`.
    pub reason: String,
    /// The sentence for people.
    pub message: String,
    /// The container it is about; the whole pod when `None`.
    pub container: Option<String>,
}

impl Notice {
    /// The pull of an image begins, for a container or for the pod.
    #[must_use]
    pub fn pulling(container: Option<&str>, image: &str) -> Self {
        let message = format!("Pulling image {image:?}");
        Self { container: container.map(str::to_owned), ..Self::of_pod(false, "Pulling", message) }
    }

    /// An image of so many bytes is here, for a container or for the pod.
    #[must_use]
    pub fn pulled(container: Option<&str>, image: &str, size: u64, pull: Option<PullTime>) -> Self {
        let message = pulled(image, size, pull);
        Self { container: container.map(str::to_owned), ..Self::of_pod(false, "Pulled", message) }
    }

    /// A volume could not be made.
    #[must_use]
    pub fn failed_mount(message: String) -> Self {
        Self::of_pod(true, "FailedMount", message)
    }

    fn of_pod(is_warning: bool, reason: &str, message: String) -> Self {
        Self { is_warning, reason: reason.to_owned(), message, container: None }
    }

    fn normal(container: &str, reason: &str, message: impl Into<String>) -> Self {
        Self {
            is_warning: false,
            reason: reason.to_owned(),
            message: message.into(),
            container: Some(container.to_owned()),
        }
    }

    fn warning(container: &str, reason: &str, message: impl Into<String>) -> Self {
        Self { is_warning: true, ..Self::normal(container, reason, message) }
    }
}

/// What people are told of `event`, when it was just folded into `observed`. Of an image whose fetch was given up,
/// nothing.
#[must_use]
pub fn notices(observed: &Observed, event: &Event) -> Vec<Notice> {
    let image = |container: &str| {
        observed.pod.container(container).and_then(|declared| declared.image.clone()).unwrap_or_default()
    };
    match event {
        Event::PullBegan { .. } | Event::Pulled { .. } | Event::FetchFailed { .. }
            if observed.is_ending() =>
        {
            Vec::new()
        }
        Event::Evicted(eviction) if observed.eviction.as_ref() == Some(eviction) => evicted(eviction),
        Event::Began(Action::Expire) => observed.eviction.as_ref().map(evicted).unwrap_or_default(),
        Event::Judged(admission) => judged(observed, admission),
        Event::MountFailed { message } | Event::RefreshFailed { message } => {
            vec![Notice::failed_mount(message.clone())]
        }
        Event::PullSecretsMissing { names } => vec![Notice::of_pod(
            true,
            "FailedToRetrieveImagePullSecret",
            format!(
                "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                names.join(", ")
            ),
        )],
        Event::PullBegan { container } => {
            vec![Notice::pulling(Some(container), &image(container))]
        }
        Event::Pulled { container, size, pull } => {
            vec![Notice::pulled(Some(container), &image(container), *size, *pull)]
        }
        Event::FetchFailed { container, reason, message } => {
            fetch_failed(container, &image(container), *reason, message)
        }
        Event::Woke => backed_off(observed, &image),
        Event::Started { container } => {
            vec![created(observed, container), Notice::normal(container, "Started", "Container started")]
        }
        Event::SandboxFailed { message }
        | Event::StartFailed { reason: Waiting::ContainerCreating, message, .. } => {
            vec![sandbox_failed(message)]
        }
        Event::StartFailed { container, message, .. } => {
            vec![Notice::warning(container, "Failed", format!("Error: {message}"))]
        }
        Event::Began(Action::End { container, why, .. }) => {
            vec![Notice::normal(container, "Killing", killing(observed, container, *why))]
        }
        Event::HookEnded { container, hook, succeeded: false, .. } => vec![hook_failed(container, *hook)],
        Event::HookFellBack { host } => vec![Notice::of_pod(
            true,
            "LifecycleHTTPFallback",
            format!("request to HTTPS lifecycle hook {host} got HTTP response, retry with HTTP succeeded"),
        )],
        Event::ProbeTold { container, kind, trouble } => vec![probe_told(container, *kind, trouble)],
        Event::Exited { container, exit, .. } => {
            [unstarted(observed, container, exit), crash_loop(observed, container)].concat()
        }
        _ => Vec::new(),
    }
}

/// What was created, as far as its image tells it: `Container created: wasip1 module`.
fn created(observed: &Observed, name: &str) -> Notice {
    let kind = observed.container(name).map(|container| container.kind.0.as_str());
    let told = kind.filter(|kind| !kind.is_empty()).map(|kind| format!(": {kind}"));
    Notice::normal(name, "Created", format!("Container created{}", told.unwrap_or_default()))
}

/// A container whose program could not be started was made all the same.
fn unstarted(observed: &Observed, name: &str, exit: &Exit) -> Vec<Notice> {
    if exit.cause != Cause::Unstarted {
        return Vec::new();
    }
    let why = exit.message.as_deref().unwrap_or_default();
    vec![created(observed, name), Notice::warning(name, "Failed", format!("Error: {why}"))]
}

fn sandbox_failed(why: &str) -> Notice {
    Notice::of_pod(true, "FailedCreatePodSandBox", format!("Failed to create pod sandbox: {why}"))
}

fn judged(observed: &Observed, admission: &Admission) -> Vec<Notice> {
    match admission {
        Admission::Refused { reason, message } => vec![Notice::of_pod(true, reason, message.clone())],
        Admission::Admitted => observed
            .unsupported()
            .map(|message| Notice::of_pod(true, "Failed", format!("Error: {message}")))
            .into_iter()
            .collect(),
        Admission::Awaited => Vec::new(),
    }
}

fn evicted(eviction: &Eviction) -> Vec<Notice> {
    let notice = || Notice::of_pod(eviction.is_warning(), &eviction.reason, eviction.message.clone());
    eviction.is_told().then(notice).into_iter().collect()
}

fn killing(observed: &Observed, name: &str, why: Why) -> String {
    let role = observed.container(name).map(|container| container.role);
    let (of_init, kind) =
        if role == Some(Role::Sidecar) { (true, "Init container") } else { (false, "Container") };
    let text = match why {
        Why::PodEnds => return format!("Stopping container {name}"),
        Why::HookFailed => return "FailedPostStartHook".to_owned(),
        Why::RestartAll => return "killing".to_owned(),
        Why::Unhealthy(ProbeKind::Startup) => format!("{kind} {name} failed startup probe"),
        Why::Unhealthy(_) => format!("{kind} {name} failed liveness probe"),
        Why::Changed => format!("{kind} {name} definition changed"),
    };
    let is_restarted = why == Why::Changed || may_restart(observed, name);
    if of_init || !is_restarted { text } else { format!("{text}, will be restarted") }
}

/// Whether the policies let a container start again, though it is not known yet how it ends.
fn may_restart(observed: &Observed, name: &str) -> bool {
    let declared = observed.pod.container(name);
    let own = declared.as_ref().and_then(|declared| RestartPolicy::named(declared.restart_policy.as_deref()));
    own.unwrap_or(observed.pod.restart_policy()) != RestartPolicy::Never
}

fn hook_failed(container: &str, hook: Hook) -> Notice {
    match hook {
        Hook::PostStart => Notice::warning(container, "FailedPostStartHook", "PostStartHook failed"),
        Hook::PreStop => Notice::warning(container, "FailedPreStopHook", "PreStopHook failed"),
    }
}

fn probe_told(container: &str, kind: ProbeKind, trouble: &ProbeTrouble) -> Notice {
    let kind = kind.as_str();
    match trouble {
        ProbeTrouble::Failed(said) => {
            Notice::warning(container, "Unhealthy", format!("{kind} probe failed: {said}"))
        }
        ProbeTrouble::Warned(said) => {
            Notice::warning(container, "ProbeWarning", format!("{kind} probe warning: {said}"))
        }
        ProbeTrouble::Impossible(said) => Notice::warning(
            container,
            "Unhealthy",
            format!("{kind} probe errored and resulted in unknown state: {said}"),
        ),
    }
}

fn pulled(name: &str, size: u64, pull: Option<PullTime>) -> String {
    match pull {
        None => format!("Container image {name:?} already present on machine and can be accessed by the pod"),
        Some(time) => format!(
            "Successfully pulled image {name:?} in {} ({} including waiting). Image size: {size} bytes.",
            go_duration(time.pulling),
            go_duration(time.waiting),
        ),
    }
}

/// A duration with three digits at most, as Go's `Duration.Truncate(time.Millisecond)` prints it below a minute.
fn go_duration(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    if milliseconds == 0 {
        return "0s".to_owned();
    }
    if milliseconds < 1_000 {
        return format!("{milliseconds}ms");
    }
    let seconds = duration.as_secs();
    let fraction = format!("{}.{:03}", seconds % 60, milliseconds % 1_000);
    let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
    if seconds < 60 { format!("{fraction}s") } else { format!("{}m{fraction}s", seconds / 60) }
}

fn fetch_failed(container: &str, image: &str, reason: Waiting, message: &str) -> Vec<Notice> {
    match reason {
        Waiting::InvalidImageName => vec![
            Notice::warning(
                container,
                "InspectFailed",
                format!("Failed to apply default image tag {image:?}: {message}"),
            ),
            Notice::warning(container, "Failed", format!("Error: {}", reason.as_str())),
        ],
        Waiting::ErrImageNeverPull => vec![
            Notice::warning(container, reason.as_str(), message),
            Notice::warning(container, "Failed", format!("Error: {}", reason.as_str())),
        ],
        reason if reason.is_pull() => vec![
            Notice::warning(container, "Failed", format!("Failed to pull image {image:?}: {message}")),
            Notice::warning(container, "Failed", format!("Error: {}", reason.as_str())),
        ],
        _ => vec![Notice::warning(container, "Failed", format!("Error: {message}"))],
    }
}

fn backed_off(observed: &Observed, image: &impl Fn(&str) -> String) -> Vec<Notice> {
    let waiting = observed.containers.iter().filter(|container| {
        container.failure.as_ref().is_some_and(|failure| failure.face == Face::WaitBegins)
    });
    waiting
        .flat_map(|container| {
            let name = &container.name;
            [
                Notice::normal(name, "BackOff", format!("Back-off pulling image {:?}", image(name))),
                Notice::warning(name, "Failed", "Error: ImagePullBackOff"),
            ]
        })
        .collect()
}

fn crash_loop(observed: &Observed, name: &str) -> Vec<Notice> {
    let waits = |container: &ContainerRecord| match &container.state {
        ContainerState::Terminated(exit) => {
            observed.restarts(container, exit) && container.restart_at(exit) > exit.finished_at
        }
        _ => false,
    };
    if !observed.container(name).is_some_and(waits) || observed.is_ending() || observed.is_complete() {
        return Vec::new();
    }
    let pod = observed.pod.identity();
    let message = format!(
        "Back-off restarting failed container {name} in pod {}_{}({})",
        pod.name, pod.namespace, pod.uid
    );
    vec![Notice::warning(name, "BackOff", message)]
}
