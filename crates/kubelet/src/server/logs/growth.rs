use std::io;
use std::path::Path;
use std::time::Duration;

use futures::StreamExt;
use inotify::{EventStream, Inotify, WatchMask};
use tokio::time::sleep;
use tracing::debug;

/// How often a directory is looked at that the kernel will not watch for us: its watches are limited in number.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Tells when files of a directory grow, come or go.
pub(super) enum Growth {
    /// The kernel tells.
    Watched(EventStream<Vec<u8>>),
    /// Nobody tells.
    Unwatched,
}

impl Growth {
    /// Begins to watch; what happens from here on is not missed.
    pub(super) fn of(directory: &Path) -> Self {
        match watch(directory) {
            Ok(events) => Self::Watched(events),
            Err(error) => {
                debug!(%error, directory = %directory.display(), "a log directory cannot be watched");
                Self::Unwatched
            }
        }
    }

    /// Waits until there may be something new.
    pub(super) async fn next(&mut self) {
        if let Self::Watched(events) = self {
            if matches!(events.next().await, Some(Ok(_))) {
                return;
            }
            *self = Self::Unwatched;
        }
        sleep(LOOK_EVERY).await;
    }
}

fn watch(directory: &Path) -> io::Result<EventStream<Vec<u8>>> {
    let inotify = Inotify::init()?;
    inotify.watches().add(directory, WatchMask::MODIFY | WatchMask::CREATE | WatchMask::MOVE)?;
    inotify.into_event_stream(vec![0; 4096])
}
