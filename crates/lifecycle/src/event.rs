use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;

use crate::reasons::Waiting;
use crate::{Admission, Eviction, Exit, Hook, ImageKind, LocalImage, ProbeKind, Why};

/// What the worker should begin now. Beginning it is an [`Event::Began`]; how it ended is another event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make the pod's volumes.
    Mount,
    /// Make the files of the volumes anew, from what the pod refers to now.
    Refresh,
    /// Find, or pull, and prepare a container's image.
    Fetch {
        /// The container.
        container: String,
    },
    /// Give up a fetch; no event of it follows.
    Abandon {
        /// The container.
        container: String,
    },
    /// Start a run of a container.
    Start {
        /// The container.
        container: String,
        /// The number of the run.
        attempt: u32,
    },
    /// Give up a start that has not come to its end within the container's grace; no event of it follows.
    GiveUp {
        /// The container.
        container: String,
        /// The number of the run.
        attempt: u32,
    },
    /// Run a hook of a container.
    RunHook {
        /// The container.
        container: String,
        /// The number of its run.
        attempt: u32,
        /// Which hook.
        hook: Hook,
    },
    /// Probe a container until it ends or [`Action::StopProbing`].
    Probe {
        /// The container.
        container: String,
        /// The number of its run.
        attempt: u32,
        /// What for.
        kind: ProbeKind,
    },
    /// Probe a container no more.
    StopProbing {
        /// The container.
        container: String,
        /// What for.
        kind: ProbeKind,
    },
    /// Decide that a container has to end, or to end sooner: nothing is done yet, but the time counts from now.
    End {
        /// The container.
        container: String,
        /// Why.
        why: Why,
        /// How long it has, hooks and the wait for others included.
        grace: Duration,
    },
    /// Ask a container to stop, or to stop sooner than it was asked before.
    Stop {
        /// The container.
        container: String,
        /// How long it has before it is killed.
        grace: Duration,
    },
    /// The pod's active deadline has passed: there is nothing to perform.
    Expire,
    /// Put all containers back to their beginning: none runs, and all are to begin anew.
    Reset,
    /// Give up making the volumes; no event of it follows.
    AbandonMount,
    /// Take down volumes and root file systems; logs stay.
    Unmount,
    /// Delete the object, with grace 0 and its UID as precondition.
    Delete,
    /// Remove all that is left of the pod on this node. Nothing follows.
    Forget,
}

impl Action {
    /// Whether it may begin before what must survive the agent is written: an agent that knows nothing of it does it again.
    #[must_use]
    pub fn may_be_forgotten(&self) -> bool {
        matches!(self, Self::Mount | Self::Refresh | Self::Fetch { .. })
    }
}

/// Whatever happens to a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The object changed.
    Wished(Arc<Pod>),
    /// The object is gone.
    Removed,
    /// The agent is about to end.
    ShutDown,
    /// The pod has addresses of its own, the primary one first. It comes before the verdict.
    Addressed(Vec<IpAddr>),
    /// The node has judged the pod.
    Judged(Admission),
    /// The node ends the pod for good.
    Evicted(Eviction),
    /// An action was begun.
    Began(Action),
    /// The volumes are there.
    Mounted,
    /// A volume could not be made.
    MountFailed {
        /// Which one and why.
        message: String,
    },
    /// The volumes are made, but what the containers have in common besides cannot be.
    SandboxFailed {
        /// What failed.
        message: String,
    },
    /// What the pod refers to has changed: what is made of it is made anew, and what could not be made is tried again
    /// at once.
    SourcesChanged,
    /// The files of the volumes show what the pod refers to.
    Refreshed,
    /// They show what was there before.
    RefreshFailed {
        /// Which one and why.
        message: String,
    },
    /// The image is not here: a pull began.
    PullBegan {
        /// The container.
        container: String,
    },
    /// Some pull secrets could not be read; the pull goes on without them.
    PullSecretsMissing {
        /// The secrets' names.
        names: Vec<String>,
    },
    /// The image is here.
    Pulled {
        /// The container.
        container: String,
        /// Its size, in bytes.
        size: u64,
        /// How it came here; `None` when it was here already.
        pull: Option<PullTime>,
    },
    /// The image is ready to start.
    Fetched {
        /// The container.
        container: String,
        /// The image.
        image: Box<LocalImage>,
        /// What it holds.
        kind: ImageKind,
    },
    /// The image cannot be had or made ready.
    FetchFailed {
        /// The container.
        container: String,
        /// The reason as Kubernetes names it.
        reason: Waiting,
        /// What failed.
        message: String,
    },
    /// A run began.
    Started {
        /// The container.
        container: String,
    },
    /// A run could not begin.
    StartFailed {
        /// The container.
        container: String,
        /// The reason as Kubernetes names it.
        reason: Waiting,
        /// What failed.
        message: String,
    },
    /// A hook came to its end.
    HookEnded {
        /// The container.
        container: String,
        /// The number of its run.
        attempt: u32,
        /// Which hook.
        hook: Hook,
        /// Whether it did what it should.
        succeeded: bool,
    },
    /// A hook's server speaks HTTP where HTTPS was asked for, and was asked so.
    HookFellBack {
        /// The server, as `host:port`.
        host: String,
    },
    /// A probe has said often enough, for the first time, that it is so.
    Probed {
        /// The container.
        container: String,
        /// The number of its run.
        attempt: u32,
        /// What was probed.
        kind: ProbeKind,
        /// Whether all is well.
        healthy: bool,
    },
    /// One try of a probe, that people are told of.
    ProbeTold {
        /// The container.
        container: String,
        /// What was probed.
        kind: ProbeKind,
        /// What the try came to.
        trouble: ProbeTrouble,
    },
    /// A run ended.
    Exited {
        /// The container.
        container: String,
        /// The number of the run.
        attempt: u32,
        /// How it ended.
        exit: Exit,
    },
    /// Volumes and root file systems are gone.
    Unmounted,
    /// The API server has acknowledged a status.
    Published {
        /// Whether it was the last: see [`crate::is_final`].
        terminal: bool,
    },
    /// The API server has accepted the deletion, or the object was gone before.
    Deleted,
    /// The deletion failed.
    DeleteFailed,
    /// A time came that [`crate::plan()`] asked to be woken at.
    Woke,
    /// The machine's clock was set, by so much: no more time has passed than before.
    ClockSet(SignedDuration),
}

/// What one try of a probe came to, when it is worth a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeTrouble {
    /// It did not go well.
    Failed(String),
    /// It went well, but not as one would like.
    Warned(String),
    /// It could not be tried.
    Impossible(String),
}

/// How long a pull took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PullTime {
    /// From the first byte asked for to the last stored.
    pub pulling: Duration,
    /// The same and the wait for other pulls before it.
    pub waiting: Duration,
}

/// What [`crate::plan()`] wants: things to begin, and when to ask again though nothing happens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// To begin now, in this order.
    pub actions: Vec<Action>,
    /// When to plan again at the latest.
    pub wake: Option<Timestamp>,
}

impl Plan {
    pub(crate) fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    /// Acts now, or asks to be woken when the time has come.
    pub(crate) fn act_after(
        &mut self,
        time: Option<Timestamp>,
        now: Timestamp,
        action: impl FnOnce() -> Action,
    ) {
        match time.filter(|time| *time > now) {
            Some(time) => self.wake_at(time),
            None => self.act(action()),
        }
    }

    pub(crate) fn wake_at(&mut self, time: Timestamp) {
        self.wake = Some(self.wake.map_or(time, |wake| wake.min(time)));
    }
}
