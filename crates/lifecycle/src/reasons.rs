//! The words Kubernetes has for what happens to containers: the one place where errors become reasons.

use crate::{Cause, ImageError, PrepareError, StartError};

/// The reason of a waiting container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// The container's own preparation goes on.
    ContainerCreating,
    /// The pod's init containers come first.
    PodInitializing,
    /// It is started again when its back-off is over.
    CrashLoopBackOff,
    /// All containers of the pod begin anew.
    RestartingAllContainers,
    /// What the pod asks for cannot be put together.
    CreateContainerConfigError,
    /// The image cannot be made ready, or the container cannot be created.
    CreateContainerError,
    /// The runtime could not start it.
    RunContainerError,
    /// Its `postStart` hook failed.
    PostStartHookError,
    /// The image reference cannot be parsed.
    InvalidImageName,
    /// The pod forbids to pull an image that is not here.
    ErrImageNeverPull,
    /// The registry cannot be reached.
    RegistryUnavailable,
    /// Nobody whom the node trusts has signed the image.
    SignatureValidationFailed,
    /// The image cannot be pulled.
    ErrImagePull,
    /// The image is pulled again when its back-off is over.
    ImagePullBackOff,
}

impl Waiting {
    /// The reason as the API writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ContainerCreating => "ContainerCreating",
            Self::PodInitializing => "PodInitializing",
            Self::CrashLoopBackOff => "CrashLoopBackOff",
            Self::RestartingAllContainers => RESTARTING_ALL_CONTAINERS,
            Self::CreateContainerConfigError => "CreateContainerConfigError",
            Self::CreateContainerError => "CreateContainerError",
            Self::RunContainerError => "RunContainerError",
            Self::PostStartHookError => "PostStartHookError",
            Self::InvalidImageName => "InvalidImageName",
            Self::ErrImageNeverPull => "ErrImageNeverPull",
            Self::RegistryUnavailable => "RegistryUnavailable",
            Self::SignatureValidationFailed => "SignatureValidationFailed",
            Self::ErrImagePull => "ErrImagePull",
            Self::ImagePullBackOff => "ImagePullBackOff",
        }
    }

    /// Whether an image cannot be pulled for this reason, so that a back-off follows.
    #[must_use]
    pub fn is_pull(self) -> bool {
        matches!(self, Self::ErrImagePull | Self::RegistryUnavailable | Self::SignatureValidationFailed)
    }

    /// Whether the cause is gone once the image is ready to start.
    #[must_use]
    pub fn is_of_image(self) -> bool {
        self.is_pull()
            || matches!(self, Self::InvalidImageName | Self::ErrImageNeverPull | Self::ImagePullBackOff)
    }
}

impl From<&ImageError> for Waiting {
    fn from(error: &ImageError) -> Self {
        match error {
            ImageError::InvalidName(_) => Self::InvalidImageName,
            ImageError::RegistryUnavailable(_) => Self::RegistryUnavailable,
            ImageError::Unsigned(_) => Self::SignatureValidationFailed,
            ImageError::NotFound(_)
            | ImageError::Unauthorized(_)
            | ImageError::Corrupt(_)
            | ImageError::Unsupported(_)
            | ImageError::Storage(_) => Self::ErrImagePull,
        }
    }
}

impl From<&PrepareError> for Waiting {
    fn from(_: &PrepareError) -> Self {
        Self::CreateContainerError
    }
}

impl From<&StartError> for Waiting {
    fn from(error: &StartError) -> Self {
        match error {
            StartError::Invalid(_) => Self::CreateContainerError,
            StartError::Command(_) | StartError::Exhausted(_) | StartError::Failed(_) => {
                Self::RunContainerError
            }
        }
    }
}

/// The reason of a terminated container.
#[must_use]
pub fn terminated(cause: Cause) -> &'static str {
    match cause {
        Cause::Exited(0) => "Completed",
        Cause::Unstarted => START_ERROR,
        Cause::OutOfMemory => "OOMKilled",
        Cause::Lost => CONTAINER_STATUS_UNKNOWN,
        Cause::Exited(_) | Cause::Trapped(_) | Cause::Stopped | Cause::Killed => "Error",
    }
}

/// A container that was put back to its beginning with all others of its pod, while it waits and as its last state.
pub const RESTARTING_ALL_CONTAINERS: &str = "RestartingAllContainers";
/// The message that goes with [`RESTARTING_ALL_CONTAINERS`].
pub const ANEW_MESSAGE: &str = "The container is removed because RestartAllContainers in place";
/// A container whose program could not be started.
pub const START_ERROR: &str = "StartError";
/// A container that ran and of whose end nothing is known.
pub const CONTAINER_STATUS_UNKNOWN: &str = "ContainerStatusUnknown";
/// The message that goes with [`CONTAINER_STATUS_UNKNOWN`].
pub const LOST_MESSAGE: &str = "The container could not be located when the pod was terminated";
