use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use coracle_lifecycle::reasons::Waiting;
use coracle_lifecycle::{
    Admission, Cause, Digest, Event, Eviction, Exit, Hook, ImageContent, ImageKind, ImageModule, LocalImage,
    Observed, ProbeKind, ProbeTrouble, PullTime, Wish,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{EphemeralContainer, Pod, PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;
use serde_json::{Value, json};

/// A pod, and what happens to it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Story {
    /// `metadata` and `spec` as far as they matter; name, namespace, uid and generation are filled in.
    pod: Value,
    pub(super) steps: Vec<Step>,
    /// Whether the whole last status is written down.
    #[serde(default)]
    pub(super) full: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Step {
    /// Seconds since the story's start.
    pub(super) at: f64,
    pub(super) event: Happening,
}

/// The events, and two things that are made of more: a deletion, the agent's return.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub(super) enum Happening {
    Admitted {},
    Refused {
        reason: String,
        message: String,
    },
    Mounted {},
    MountFailed {
        message: String,
    },
    SandboxFailed {
        message: String,
    },
    SourcesChanged {},
    Refreshed {},
    RefreshFailed {
        message: String,
    },
    PullBegan {
        container: String,
    },
    SecretsMissing {
        names: Vec<String>,
    },
    Present {
        container: String,
    },
    Pulled {
        container: String,
        milliseconds: u64,
    },
    FetchFailed {
        container: String,
        reason: String,
        message: String,
    },
    Started {
        container: String,
    },
    StartFailed {
        container: String,
        reason: String,
        message: String,
    },
    Exited {
        container: String,
        attempt: u32,
        cause: String,
        #[serde(default)]
        code: i32,
        message: Option<String>,
    },
    /// The node needs the room for something else.
    Preempted {},
    /// The machine goes down, and gives so many seconds.
    MachineStops {
        grace: u64,
    },
    HookEnded {
        container: String,
        hook: String,
        #[serde(default)]
        attempt: u32,
        succeeded: bool,
    },
    Probed {
        container: String,
        kind: String,
        #[serde(default)]
        attempt: u32,
        healthy: bool,
    },
    ProbeFailed {
        container: String,
        kind: String,
        message: String,
    },
    /// Somebody adds an ephemeral container.
    Debug {
        container: String,
        image: String,
    },
    /// Somebody sets a condition of the pod.
    Condition {
        kind: String,
        status: String,
    },
    Delete {
        grace: i64,
    },
    /// The deadline is set to so many seconds after the start.
    Deadline {
        seconds: i64,
    },
    Image {
        container: String,
        image: String,
    },
    SetPhase {
        phase: String,
        reason: String,
    },
    /// The watch brings the object as the API server has it after the status was written.
    Echo {},
    /// The watch brings the object as it was at first.
    Stale {},
    Removed {},
    ShutDown {},
    Unmounted {},
    Published {
        terminal: bool,
    },
    Deleted {},
    DeleteFailed {},
    Woke {},
    /// The clock was set by so many seconds: `at` is the time it shows now.
    ClockSet {
        seconds: i64,
    },
    #[serde(rename_all = "camelCase")]
    Recover {
        #[serde(default)]
        lose_checkpoint: bool,
    },
}

impl fmt::Display for Happening {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self:?}")
    }
}

impl Story {
    pub(super) fn pod(&self) -> Pod {
        let mut pod = self.pod.clone();
        let metadata = json!({"name": "web", "namespace": "default", "uid": "u-1", "generation": 1});
        for (key, value) in metadata.as_object().unwrap() {
            pod["metadata"].as_object_mut().map(|given| given.entry(key).or_insert(value.clone()));
        }
        if pod["metadata"].is_null() {
            pod["metadata"] = metadata;
        }
        serde_json::from_value(pod).unwrap()
    }
}

impl Happening {
    pub(super) fn to_events(&self, observed: &Observed, shown: &PodStatus, now: Timestamp) -> Vec<Event> {
        match self.clone() {
            Self::Present { container } => vec![pulled(&container, None), fetched(observed, container)],
            Self::Pulled { container, milliseconds } => {
                let pulling = Duration::from_millis(milliseconds);
                let time = PullTime { pulling, waiting: pulling + Duration::from_millis(100) };
                vec![pulled(&container, Some(time)), fetched(observed, container)]
            }
            _ => vec![self.to_event(observed, shown, now)],
        }
    }

    fn to_event(&self, observed: &Observed, shown: &PodStatus, now: Timestamp) -> Event {
        match self.clone() {
            Self::Admitted {} => Event::Judged(Admission::Admitted),
            Self::Refused { reason, message } => Event::Judged(Admission::Refused { reason, message }),
            Self::Mounted {} => Event::Mounted,
            Self::MountFailed { message } => Event::MountFailed { message },
            Self::SandboxFailed { message } => Event::SandboxFailed { message },
            Self::SourcesChanged {} => Event::SourcesChanged,
            Self::Refreshed {} => Event::Refreshed,
            Self::RefreshFailed { message } => Event::RefreshFailed { message },
            Self::PullBegan { container } => Event::PullBegan { container },
            Self::SecretsMissing { names } => Event::PullSecretsMissing { names },
            Self::FetchFailed { container, reason, message } => {
                Event::FetchFailed { container, reason: waiting(&reason), message }
            }
            Self::Started { container } => Event::Started { container },
            Self::StartFailed { container, reason, message } => {
                Event::StartFailed { container, reason: waiting(&reason), message }
            }
            Self::Exited { container, attempt, cause, code, message } => {
                let is_unstarted = cause == "unstarted";
                let started_at =
                    if is_unstarted { Timestamp::UNIX_EPOCH } else { now - SignedDuration::from_secs(1) };
                let exit = Exit { cause: self::cause(&cause, code), message, started_at, finished_at: now };
                Event::Exited { container, attempt, exit }
            }
            Self::Preempted {} => Event::Evicted(Eviction::preempted()),
            Self::MachineStops { grace } => Event::Evicted(Eviction::shutdown(Duration::from_secs(grace))),
            Self::HookEnded { container, hook, attempt, succeeded } => {
                Event::HookEnded { container, attempt, hook: self::hook(&hook), succeeded }
            }
            Self::Probed { container, kind, attempt, healthy } => {
                Event::Probed { container, attempt, kind: probe(&kind), healthy }
            }
            Self::ProbeFailed { container, kind, message } => {
                Event::ProbeTold { container, kind: probe(&kind), trouble: ProbeTrouble::Failed(message) }
            }
            Self::Removed {} => Event::Removed,
            Self::ShutDown {} => Event::ShutDown,
            Self::Unmounted {} => Event::Unmounted,
            Self::Published { terminal } => Event::Published { terminal },
            Self::Deleted {} => Event::Deleted,
            Self::DeleteFailed {} => Event::DeleteFailed,
            Self::Woke {} => Event::Woke,
            Self::ClockSet { seconds } => Event::ClockSet(SignedDuration::from_secs(seconds)),
            Self::Present { .. } | Self::Pulled { .. } | Self::Recover { .. } => {
                unreachable!("it is not one event")
            }
            Self::Delete { .. }
            | Self::Deadline { .. }
            | Self::Debug { .. }
            | Self::Condition { .. }
            | Self::Image { .. }
            | Self::SetPhase { .. }
            | Self::Echo {}
            | Self::Stale {} => Event::Wished(Arc::new(self.object(observed, shown, now))),
        }
    }

    /// The object as it is after this.
    fn object(&self, observed: &Observed, shown: &PodStatus, now: Timestamp) -> Pod {
        let mut pod = (*observed.pod).clone();
        match self.clone() {
            Self::Delete { grace } => {
                pod.metadata.deletion_timestamp = Some(Time(now));
                pod.metadata.deletion_grace_period_seconds = Some(grace);
                pod.metadata.generation = pod.metadata.generation.map(|generation| generation + 1);
            }
            Self::Deadline { seconds } => {
                pod.spec.as_mut().unwrap().active_deadline_seconds = Some(seconds);
            }
            Self::Image { container, image } => {
                let spec = pod.spec.as_mut().unwrap();
                let mut containers =
                    spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten());
                containers.find(|declared| declared.name == container).unwrap().image = Some(image);
            }
            Self::Debug { container, image } => {
                let added = EphemeralContainer { name: container, image: Some(image), ..Default::default() };
                pod.spec.as_mut().unwrap().ephemeral_containers.get_or_insert_default().push(added);
            }
            Self::Condition { kind, status } => {
                let condition = PodCondition { type_: kind, status, ..PodCondition::default() };
                let mut status = shown.clone();
                status.conditions.get_or_insert_default().push(condition);
                pod.status = Some(status);
            }
            Self::SetPhase { phase, reason } => {
                let (phase, reason) = (Some(phase), Some(reason));
                pod.status = Some(PodStatus { phase, reason, ..shown.clone() });
            }
            Self::Echo {} => pod.status = Some(shown.clone()),
            _ => {
                pod.metadata.deletion_timestamp = None;
                pod.status = None;
            }
        }
        pod
    }
}

fn pulled(container: &str, pull: Option<PullTime>) -> Event {
    Event::Pulled { container: container.to_owned(), size: 123, pull }
}

fn fetched(observed: &Observed, container: String) -> Event {
    let declared = observed.pod.container(&container).and_then(|declared| declared.image.clone());
    let reference = format!("registry.test/{}", declared.unwrap_or_default());
    let digest = Digest::parse(&format!("sha256:{}", "ab".repeat(32))).unwrap();
    let module =
        ImageModule { digest: digest.clone(), path: "/images/app.wasm".into(), name: "app".to_owned() };
    let repo_digest = format!("{}@{digest}", reference.split(':').next().unwrap_or_default());
    let content = ImageContent::Program(module);
    let image = Box::new(LocalImage { digest, reference, repo_digest, content, size: 123 });
    Event::Fetched { container, image, kind: ImageKind(String::new()) }
}

fn waiting(reason: &str) -> Waiting {
    let all = [
        Waiting::CreateContainerConfigError,
        Waiting::CreateContainerError,
        Waiting::RunContainerError,
        Waiting::InvalidImageName,
        Waiting::ErrImageNeverPull,
        Waiting::RegistryUnavailable,
        Waiting::SignatureValidationFailed,
        Waiting::ErrImagePull,
    ];
    all.into_iter().find(|waiting| waiting.as_str() == reason).unwrap_or_else(|| panic!("no reason {reason}"))
}

fn hook(word: &str) -> Hook {
    match word {
        "postStart" => Hook::PostStart,
        "preStop" => Hook::PreStop,
        _ => panic!("no hook {word}"),
    }
}

fn probe(word: &str) -> ProbeKind {
    let found = ProbeKind::ALL.into_iter().find(|kind| kind.as_str().eq_ignore_ascii_case(word));
    found.unwrap_or_else(|| panic!("no probe {word}"))
}

fn cause(word: &str, code: i32) -> Cause {
    match word {
        "exited" => Cause::Exited(code),
        "trapped" => Cause::Trapped(code),
        "outOfMemory" => Cause::OutOfMemory,
        "unstarted" => Cause::Unstarted,
        "stopped" => Cause::Stopped,
        "killed" => Cause::Killed,
        "lost" => Cause::Lost,
        _ => panic!("no cause {word}"),
    }
}
