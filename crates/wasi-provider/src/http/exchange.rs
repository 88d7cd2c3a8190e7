//! One request and its answer, as its connection and the instance at work both see it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{Method, StatusCode, Uri};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

/// What is known of a request that is being answered. It counts as one of the container's for as long as this lives.
#[derive(Debug)]
pub(super) struct Exchange {
    method: Method,
    uri: Uri,
    began: Instant,
    patience: Duration,
    /// The last sign of progress, in milliseconds since the beginning.
    progress: AtomicU64,
    /// What the client did wrong, as the answer to it.
    fault: OnceLock<StatusCode>,
    _permit: OwnedSemaphorePermit,
}

impl Exchange {
    pub(super) fn begin(method: Method, uri: Uri, patience: Duration, permit: OwnedSemaphorePermit) -> Self {
        Self {
            method,
            uri,
            began: Instant::now(),
            patience,
            progress: AtomicU64::new(0),
            fault: OnceLock::new(),
            _permit: permit,
        }
    }

    /// The request in words, as a log of requests has them.
    pub(super) fn title(&self) -> String {
        const LONGEST: usize = 200;
        format!("{} {}", self.method, self.uri.path().chars().take(LONGEST).collect::<String>())
    }

    /// How long it may stand still.
    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// Notes that it goes on.
    pub(super) fn go_on(&self) {
        let passed = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.progress.fetch_max(passed, Ordering::Relaxed);
    }

    /// When it is given up, should it not go on before.
    pub(super) fn deadline(&self) -> Instant {
        self.began + Duration::from_millis(self.progress.load(Ordering::Relaxed)) + self.patience
    }

    /// Notes what the client did wrong; the first fault stays.
    pub(super) fn blame(&self, fault: StatusCode) {
        let _ = self.fault.set(fault);
    }

    pub(super) fn fault(&self) -> Option<StatusCode> {
        self.fault.get().copied()
    }
}
