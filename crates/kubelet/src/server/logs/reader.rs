use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;
use coracle_lifecycle::ContainerId;
use futures::{Stream, stream};
use k8s_openapi::api::core::v1::PodStatus;
use tokio::sync::watch;
use tokio::task::spawn_blocking;

use super::files::{LogFiles, Place};
use super::growth::Growth;
use super::options::LogOptions;
use super::run::is_running;
use super::selection::{Lines, Selection};

/// How much is read at a time.
const BLOCK: usize = 64 << 10;

/// The run of a container whose log is read, and how to tell that it has ended.
pub(super) struct Run {
    pub(super) container: String,
    pub(super) id: ContainerId,
    pub(super) status: watch::Receiver<Arc<PodStatus>>,
}

/// Reads one run's log through its rotated files, and goes on at its end while the run does.
struct Reader {
    files: LogFiles,
    place: Option<Place>,
    /// The file to go on with, once the one at `place` has been read to its end again.
    successor: Option<Place>,
    lines: Lines,
    selection: Selection,
    block: Vec<u8>,
    run: Run,
    /// How to wait for more; `None` when what is there is all that is asked for.
    growth: Option<Growth>,
}

/// What is asked for of a log, in pieces as they are read. All of it lives in the stream: dropping it ends
/// everything.
pub(super) async fn read(
    files: LogFiles,
    run: Run,
    options: LogOptions,
) -> io::Result<impl Stream<Item = io::Result<Bytes>> + Send + use<>> {
    // Before the first look, so that nothing falls between.
    let growth = options.follow.then(|| Growth::of(files.directory()));
    let (files, place) = in_background(move || files.start(options.tail).map(|place| (files, place))).await?;
    let reader = Reader {
        files,
        place,
        successor: None,
        lines: Lines::default(),
        selection: Selection::new(&options),
        block: vec![0; BLOCK],
        run,
        growth,
    };
    Ok(stream::try_unfold(reader, |mut reader| async move {
        Ok(reader.next().await?.map(|bytes| (bytes, reader)))
    }))
}

async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}

impl Reader {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        while !self.selection.is_full() {
            let count = self.fill().await?;
            if count == 0 {
                if !self.advance().await? {
                    break;
                }
                continue;
            }
            let (selection, mut output) = (&mut self.selection, Vec::new());
            self.lines.push(&self.block[..count], |line| selection.append(line, &mut output));
            if !output.is_empty() {
                return Ok(Some(output.into()));
            }
        }
        Ok(None)
    }

    async fn fill(&mut self) -> io::Result<usize> {
        let Some(mut place) = self.place.take() else { return Ok(0) };
        let mut block = std::mem::take(&mut self.block);
        let (place, block, count) = in_background(move || {
            let count = place.file.read(&mut block)?;
            Ok((place, block, count))
        })
        .await?;
        (self.place, self.block) = (Some(place), block);
        Ok(count)
    }

    /// At the end of a file: whether there is more to read, after waiting for it where that is asked.
    async fn advance(&mut self) -> io::Result<bool> {
        if let Some(next) = self.successor.take() {
            self.lines.clear();
            self.place = Some(next);
            return Ok(true);
        }
        let has_ended = !self.is_running();
        if self.look_further().await? {
            return Ok(true);
        }
        let Some(growth) = &mut self.growth else { return Ok(false) };
        if has_ended {
            // What it wrote last may have come after the read: once more, and then it is all.
            self.growth = None;
            return Ok(true);
        }
        let is_known = tokio::select! {
            () = growth.next() => true,
            changed = self.run.status.changed() => changed.is_ok(),
        };
        if !is_known {
            self.growth = None;
        }
        Ok(true)
    }

    /// Looks for the next file. The one at hand may have grown just before it was rotated, so it is read once more.
    async fn look_further(&mut self) -> io::Result<bool> {
        let (files, place) = (self.files.clone(), self.place.take());
        let (place, successor) = in_background(move || {
            let next = files.after(place.as_ref())?;
            Ok((place, next))
        })
        .await?;
        (self.place, self.successor) = (place, successor);
        Ok(self.successor.is_some())
    }

    fn is_running(&mut self) -> bool {
        is_running(&self.run.status.borrow_and_update(), &self.run.container, &self.run.id)
    }
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
