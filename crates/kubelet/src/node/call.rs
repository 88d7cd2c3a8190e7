use std::time::Duration;

use thiserror::Error;
use tokio::time::timeout;

use super::FactsError;
use crate::answers::words;
use crate::waits::Waits;

/// How long one call of a heartbeat may take: a late one is worth less than the next.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a heartbeat failed.
#[derive(Debug, Error)]
pub(super) enum CallError {
    #[error("no answer from the API server within {PATIENCE:?}")]
    TimedOut,
    #[error("{}", words(.0))]
    Api(#[from] kube::Error),
    #[error(transparent)]
    Facts(#[from] FactsError),
    #[error("reading this machine's state was interrupted")]
    Interrupted(#[from] tokio::task::JoinError),
}

impl CallError {
    /// Whether the object of the call does not exist.
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::Api(kube::Error::Api(status)) if status.is_not_found())
    }

    /// Whether the object was changed since it was read, or is another one now.
    pub(super) fn is_conflict(&self) -> bool {
        matches!(self, Self::Api(kube::Error::Api(status)) if status.code == 409)
    }

    /// Whether the object to be made exists already.
    pub(super) fn is_already_exists(&self) -> bool {
        matches!(self, Self::Api(kube::Error::Api(status)) if status.is_already_exists())
    }
}

/// The outcome of one call, which fails when it takes too long.
pub(super) async fn call<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, CallError> {
    timeout(PATIENCE, request).await.map_err(|_| CallError::TimedOut)?.map_err(CallError::Api)
}

/// The waits between attempts to reach the API server: 100 ms, doubled up to 7 s, each with up to as much again.
pub(super) fn retries() -> Waits {
    Waits::new(Duration::from_millis(100), Duration::from_secs(7)).with_jitter()
}
