//! One request and its answer, as its connection and the instance at work both see it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{Method, StatusCode, Uri};
use tokio::time::Instant;

use crate::usage::Count;

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
    _place: Place,
}

/// The requests of a container that are being answered, of which there may be no more than this.
#[derive(Debug)]
pub(super) struct Places(Arc<Count>, u64);

/// A place for one of them, for as long as this lives.
#[derive(Debug)]
pub(super) struct Place(Arc<Count>);

impl Places {
    pub(super) fn new(most: usize) -> Self {
        Self(Arc::default(), most as u64)
    }

    /// One more, if there is one.
    pub(super) fn take(&self) -> Option<Place> {
        self.0.add(1, Some(self.1)).then(|| Place(Arc::clone(&self.0)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.subtract(1);
    }
}

impl Exchange {
    pub(super) fn begin(method: Method, uri: Uri, patience: Duration, place: Place) -> Self {
        Self {
            method,
            uri,
            began: Instant::now(),
            patience,
            progress: AtomicU64::new(0),
            fault: OnceLock::new(),
            _place: place,
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
