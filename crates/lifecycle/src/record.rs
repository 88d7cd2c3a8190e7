use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::backoff::Backoff;
use crate::{Exit, Failure, ImageKind, LocalImage, ProbeKind, Role};

/// The least time that a container which did not have to end at once has from being asked to end to being killed.
const WINDOW: Duration = Duration::from_secs(2);

/// How long it is shown why a run did not come to be before it is shown that the next one waits. A kubelet shows the one until
/// it looks at the pod again.
const WHY_SHOWN: SignedDuration = SignedDuration::from_secs(5);

/// One container of a pod and its latest run.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerRecord {
    /// The container's name.
    pub name: String,
    /// What kind of container it is.
    pub role: Role,
    /// The number of the latest run, or of the one about to start; from 0.
    pub attempt: u32,
    /// What that run does.
    pub state: ContainerState,
    /// What is known of that run beside.
    pub course: Course,
    /// How the run before it ended.
    pub last: Option<Exit>,
    /// How long the next restart waits.
    pub backoff: Option<Backoff>,
    /// The end of the agent before this one cut the latest run short, as [`crate::recover`] finds: the next run starts
    /// at once.
    pub interrupted: bool,
    /// The latest run was ended so that one of another image takes its place, whatever the policies say.
    pub renewed: bool,
    /// The latest run was ended because its `postStart` hook failed.
    pub unhooked: bool,
    /// Why the latest run did not come to be is still shown, in place of its back-off: see [`ContainerRecord::retells_at`].
    pub tells_why: bool,
    /// All containers of its pod were put back to their beginning, and none of its runs has ended since: how the run before
    /// ended is told as that.
    pub anew: bool,
    /// The image for the next start.
    pub image: ImageState,
    /// What that image holds, as the runtime says; empty as long as nothing is known.
    pub kind: ImageKind,
    /// The image being fetched is no longer the one that is wished for.
    pub misfetched: bool,
    /// The image of the latest run.
    pub ran: Option<RanImage>,
    /// Why the latest try to start it failed.
    pub failure: Option<Failure>,
}

/// What a run of a container does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerState {
    /// It has not begun.
    Waiting,
    /// The runtime was asked to start it.
    Starting,
    /// It runs.
    Running {
        /// Since when.
        started_at: Timestamp,
    },
    /// It was asked to stop.
    Stopping {
        /// When it was started.
        started_at: Timestamp,
        /// How long the runtime was told to wait for it.
        grace: Duration,
        /// When the runtime kills it.
        until: Timestamp,
    },
    /// It ended.
    Terminated(Exit),
}

impl ContainerState {
    /// Whether the runtime has, or may soon have, something running.
    #[must_use]
    pub fn is_active(&self) -> bool {
        matches!(self, Self::Starting | Self::Running { .. } | Self::Stopping { .. })
    }

    /// When the run began, while it goes on.
    #[must_use]
    pub fn running_since(&self) -> Option<Timestamp> {
        match self {
            Self::Running { started_at } | Self::Stopping { started_at, .. } => Some(*started_at),
            _ => None,
        }
    }
}

/// What belongs to one run; the next one begins without it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Course {
    /// Its `postStart` hook has still to succeed: until then it does not count as running.
    pub owes_hook: bool,
    /// The hook that runs now.
    pub hook: Option<Hook>,
    /// The probes that run now.
    pub probes: Vec<ProbeKind>,
    /// It is up: what waited for it may begin, and other probes than the startup probe too.
    pub started: bool,
    /// It may be sent requests.
    pub ready: bool,
    /// Why it cannot go on.
    pub trouble: Option<Why>,
    /// That it is to end.
    pub ending: Option<Ending>,
}

/// A hook of a container.
///
/// <https://kubernetes.io/docs/concepts/containers/container-lifecycle-hooks/>
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hook {
    /// Runs as soon as the container runs.
    PostStart,
    /// Runs before the container is asked to stop, within its grace.
    PreStop,
}

/// Why a container is ended that does not end by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its pod ends.
    PodEnds,
    /// Its liveness or startup probe failed.
    Unhealthy(ProbeKind),
    /// Its `postStart` hook failed.
    HookFailed,
    /// The pod wants it to be of another image.
    Changed,
    /// All containers of the pod begin anew.
    RestartAll,
}

/// That a run is to end, and by when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Why.
    pub why: Why,
    /// The grace it was given last.
    pub grace: Duration,
    /// When that is over.
    pub deadline: Timestamp,
    /// Its `preStop` hook was begun, or there is no time for it.
    pub hooked: bool,
}

impl Ending {
    /// The end of a run that has `grace` from `now` on; one that was to end before has no more time than then.
    #[must_use]
    pub fn new(why: Why, grace: Duration, before: Option<Self>, now: Timestamp) -> Self {
        let deadline = now.saturating_add(grace).unwrap_or(Timestamp::MAX);
        Self {
            why: before.map_or(why, |before| before.why),
            grace,
            deadline: before.map_or(deadline, |before| before.deadline.min(deadline)),
            hooked: before.is_some_and(|before| before.hooked),
        }
    }

    /// The grace that is left at `now`: enough to end in order, though hooks and others took all of it. By a clock that was
    /// set back it is no more than what was given.
    #[must_use]
    pub fn left(&self, now: Timestamp) -> Duration {
        let left = Duration::try_from(self.deadline.duration_since(now)).unwrap_or_default();
        left.max(WINDOW).min(self.grace)
    }
}

/// The image of a container's next start.
#[derive(Clone, Debug, PartialEq)]
pub enum ImageState {
    /// To be looked for.
    Unknown,
    /// Being found, pulled and prepared.
    Fetching,
    /// Ready to start.
    Ready(Box<LocalImage>),
}

/// The image a run was made of, as its status shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RanImage {
    /// `status.containerStatuses[].image`.
    pub reference: String,
    /// `status.containerStatuses[].imageID`.
    pub repo_digest: String,
    /// The image as the pod named it then; empty where that is not known.
    #[serde(default)]
    pub wished: String,
}

impl ContainerRecord {
    /// A container that has not run yet.
    #[must_use]
    pub fn new(name: &str, role: Role) -> Self {
        Self {
            name: name.to_owned(),
            role,
            attempt: 0,
            state: ContainerState::Waiting,
            course: Course::default(),
            last: None,
            backoff: None,
            interrupted: false,
            renewed: false,
            unhooked: false,
            tells_why: false,
            anew: false,
            image: ImageState::Unknown,
            kind: ImageKind::default(),
            misfetched: false,
            ran: None,
            failure: None,
        }
    }

    /// The number of the latest run that the runtime took, or will as all begin anew: what `restartCount` shows.
    #[must_use]
    pub fn restart_count(&self) -> u32 {
        match self.state {
            ContainerState::Waiting | ContainerState::Starting if !self.anew => {
                self.attempt.saturating_sub(1)
            }
            _ => self.attempt,
        }
    }

    /// Whether the runtime has ever taken a run of it.
    #[must_use]
    pub fn has_run(&self) -> bool {
        self.last.is_some() || !matches!(self.state, ContainerState::Waiting | ContainerState::Starting)
    }

    /// Whether a run of it has begun since the pod's containers began, or were all put back to their beginning.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        let is_back = self.anew && matches!(self.state, ContainerState::Waiting | ContainerState::Starting);
        self.has_run() && !is_back
    }

    /// Whether a run of it is shown: not the first one while its `postStart` hook has still to succeed, as if its start was
    /// under way.
    #[must_use]
    pub fn has_shown_run(&self) -> bool {
        let is_held = matches!(self.state, ContainerState::Running { .. })
            && self.course.owes_hook
            && self.course.ending.is_none();
        self.last.is_some() || self.has_run() && !is_held
    }

    /// Whether what waits for it may begin.
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.state.running_since().is_some() && self.course.started
    }

    /// Whether it is as ready as one of its kind can be: an init container that did its work, any other one that runs
    /// and may be sent requests.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        match self.role {
            Role::Init => self.has_succeeded(),
            _ => self.is_started() && self.course.ready,
        }
    }

    /// When it is to be shown that it waits, and no longer why; `None` while there is nothing to change.
    #[must_use]
    pub fn retells_at(&self) -> Option<Timestamp> {
        match &self.state {
            ContainerState::Terminated(exit) if self.tells_why => Some(exit.finished_at + WHY_SHOWN),
            _ => None,
        }
    }

    /// Whether its latest run ended with code 0.
    #[must_use]
    pub fn has_succeeded(&self) -> bool {
        matches!(&self.state, ContainerState::Terminated(exit) if exit.cause == crate::Cause::Exited(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_a_grace_is_never_more_than_it_was() {
        let (now, grace) = (Timestamp::constant(1_000, 0), Duration::from_secs(30));
        let ending = Ending::new(Why::PodEnds, grace, None, now);
        let left = |seconds: i64| ending.left(now + jiff::SignedDuration::from_secs(seconds)).as_secs();
        assert_eq!([-3_600, 0, 10, 29, 300].map(left), [30, 30, 20, 2, 2]);
        let short = Ending::new(Why::PodEnds, Duration::from_secs(1), Some(ending), now);
        assert_eq!(short.left(now), Duration::from_secs(1));
    }
}
