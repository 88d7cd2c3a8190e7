use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::backoff::Backoff;
use crate::{Exit, Failure, LocalImage};

/// One container of a pod and its latest run.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerRecord {
    /// The container's name.
    pub name: String,
    /// The number of the latest run, or of the one about to start; from 0.
    pub attempt: u32,
    /// What that run does.
    pub state: ContainerState,
    /// How the run before it ended.
    pub last: Option<Exit>,
    /// How long the next restart waits.
    pub backoff: Option<Backoff>,
    /// The end of the agent before this one cut the latest run short, as [`crate::recover`] finds: the next run starts
    /// at once.
    pub interrupted: bool,
    /// The image for the next start.
    pub image: ImageState,
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
        /// The grace it was given last.
        grace: Duration,
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
}

impl ContainerRecord {
    /// A container that has not run yet.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            attempt: 0,
            state: ContainerState::Waiting,
            last: None,
            backoff: None,
            interrupted: false,
            image: ImageState::Unknown,
            ran: None,
            failure: None,
        }
    }

    /// The number of the latest run that the runtime took: what `restartCount` shows.
    #[must_use]
    pub fn restart_count(&self) -> u32 {
        match self.state {
            ContainerState::Waiting | ContainerState::Starting => self.attempt.saturating_sub(1),
            _ => self.attempt,
        }
    }
}
