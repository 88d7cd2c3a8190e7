use std::io::{self, Seek as _};
use std::sync::Arc;
use std::time::Duration;

use coracle_lifecycle::Digest;
use reqwest::header::CONTENT_RANGE;
use reqwest::{Response, StatusCode};
use tempfile::NamedTempFile;
use thiserror::Error;
use tokio::io::{AsyncWriteExt, BufWriter};
use tokio::time::Instant;

use crate::catalog::Hold;
use crate::digest::{ContentError, Verifier};
use crate::disk::{Disk, Part};
use crate::manifest::Descriptor;
use crate::registry::{RegistryError, Repository, Source, network};

/// Chunks from the network are gathered to this many bytes before they go to disk.
const BUFFER: usize = 256 * 1024;
/// How often a server may fail before it has sent this many bytes more.
const RETRIES: u32 = 4;
const PROGRESS: u64 = 1024 * 1024;
/// The fewest bytes that must come in the time in which one must come.
const LEAST: u64 = 16 * 1024;
/// How often the log says how far a download has come.
const TELL: Duration = Duration::from_secs(10);
const WASM_MAGIC: [u8; 4] = *b"\0asm";

/// Why a blob is not here.
#[derive(Debug, Error)]
pub(crate) enum DownloadError {
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Content(#[from] ContentError),
    #[error("{0} is not WebAssembly")]
    NotWasm(Digest),
    #[error("cannot store {0}: {1}")]
    Disk(Digest, #[source] io::Error),
}

impl DownloadError {
    /// Whether asking again could help.
    fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Registry(RegistryError::Unavailable(_)) | Self::Content(ContentError::Truncated { .. })
        )
    }
}

/// What a blob must be, beside what its digest says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    Anything,
    Wasm,
}

/// Where a blob is to be.
pub(crate) struct Target {
    pub(crate) disk: Arc<Disk>,
    /// Keeps the blob once it is there.
    pub(crate) hold: Arc<Hold>,
    pub(crate) patience: Patience,
}

/// How long a server is waited for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// How long it may send nothing, or next to nothing.
    pub(crate) stall: Duration,
    /// How long to wait before it is asked anew the first time; twice as long each time after.
    pub(crate) retry: Duration,
}

/// Brings the blob into the store, unless it is there. It is verified while it streams to disk and gets its name only
/// when all of it is right and on disk; dropped before that, it leaves nothing. The servers of the repository are asked
/// in their order.
pub(crate) async fn download(
    repository: &Repository,
    target: &Target,
    wanted: &Descriptor,
    content: Content,
) -> Result<(), DownloadError> {
    let disk = &target.disk;
    let on_disk = |error| on_disk(wanted, error);
    let is_wrong = |head| content == Content::Wasm && head != WASM_MAGIC;
    if disk.holds(&wanted.digest, wanted.size) && is_right(disk, &wanted.digest).await {
        // It may be here as something else, say as another image's config.
        let head = disk.head(&wanted.digest).map_err(on_disk)?;
        return if is_wrong(head) { Err(DownloadError::NotWasm(wanted.digest.clone())) } else { Ok(()) };
    }
    let mut failure = DownloadError::Registry(RegistryError::NotFound);
    for source in repository.sources() {
        let arrival = Arrival::new(source, target, wanted).map_err(on_disk)?;
        match arrival.complete(is_wrong).await {
            Err(error) if !matches!(error, DownloadError::Disk(..)) => failure = error,
            done => return done,
        }
        source.note(&failure);
    }
    Err(failure)
}

/// Whether content that is here is what it should be. What is damaged is removed.
async fn is_right(disk: &Arc<Disk>, digest: &Digest) -> bool {
    let (disk, part) = (disk.clone(), Part::Blob(digest.clone()));
    disk.is_proven(&part) || tokio::task::spawn_blocking(move || disk.prove(&part)).await.unwrap_or(false)
}

/// A blob on its way from one server to an unfinished file.
struct Arrival<'a> {
    source: &'a Source,
    target: &'a Target,
    wanted: &'a Descriptor,
    file: NamedTempFile,
    verifier: Verifier,
}

impl<'a> Arrival<'a> {
    fn new(source: &'a Source, target: &'a Target, wanted: &'a Descriptor) -> io::Result<Self> {
        let verifier = Verifier::new(wanted.digest.clone(), wanted.size);
        Ok(Self { source, target, wanted, file: target.disk.unfinished()?, verifier })
    }

    /// Receives all of it and keeps it.
    async fn complete(mut self, is_wrong: impl Fn([u8; 4]) -> bool) -> Result<(), DownloadError> {
        self.receive().await?;
        let Self { target, wanted, file, verifier, .. } = self;
        if is_wrong(verifier.finish()?) {
            return Err(DownloadError::NotWasm(wanted.digest.clone()));
        }
        let (disk, hold, digest) = (target.disk.clone(), target.hold.clone(), wanted.digest.clone());
        let keep = move || {
            let kept = disk.keep(file, &digest);
            // Not before: a pull that was dropped meanwhile must find the file in place to take it away again.
            drop(hold);
            kept
        };
        let kept = tokio::task::spawn_blocking(keep).await;
        kept.map_err(io::Error::other).flatten().map_err(|error| self::on_disk(wanted, error))
    }

    /// Receives it, beginning again where it was broken off, until a server fails too often without sending much.
    async fn receive(&mut self) -> Result<(), DownloadError> {
        let (mut failures, mut reached) = (0, 0);
        loop {
            let Err(failure) = self.receive_more().await else { return Ok(()) };
            if self.verifier.seen() >= reached + PROGRESS {
                (failures, reached) = (0, self.verifier.seen());
            }
            if failures == RETRIES || !failure.may_pass() {
                return Err(failure);
            }
            let delay = self.target.patience.retry * 2_u32.pow(failures);
            let (digest, seen) = (&self.wanted.digest, self.verifier.seen());
            tracing::info!(%digest, seen, %failure, ?delay, "a download was broken off and is taken up again");
            tokio::time::sleep(delay).await;
            failures += 1;
        }
    }

    async fn receive_more(&mut self) -> Result<(), DownloadError> {
        let response = self.source.blob(&self.wanted.digest, self.verifier.seen()).await?;
        if response.status() == StatusCode::PARTIAL_CONTENT {
            let start = format!("bytes {}-", self.verifier.seen());
            let range = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
            if !range.is_some_and(|range| range.starts_with(&start)) {
                let why = "the answer begins at another byte than was asked for";
                return Err(RegistryError::Malformed(why.to_owned()).into());
            }
        } else {
            self.verifier = Verifier::new(self.wanted.digest.clone(), self.wanted.size);
            let file = self.file.as_file_mut();
            file.set_len(0).and_then(|()| file.rewind()).map_err(|error| on_disk(self.wanted, error))?;
        }
        self.take(response).await
    }

    async fn take(&mut self, mut response: Response) -> Result<(), DownloadError> {
        let wanted = self.wanted;
        let on_disk = |error| on_disk(wanted, error);
        if response.content_length().is_some_and(|length| length > wanted.size - self.verifier.seen()) {
            let (digest, size) = (wanted.digest.clone(), wanted.size);
            return Err(ContentError::TooLong { digest, size }.into());
        }
        let file = self.file.as_file().try_clone().map_err(on_disk)?;
        let mut writer = BufWriter::with_capacity(BUFFER, tokio::fs::File::from_std(file));
        let mut pace = Pace::new(self.target.patience.stall, self.verifier.seen());
        let ended = loop {
            match response.chunk().await {
                Ok(Some(chunk)) => {
                    self.verifier.update(&chunk)?;
                    writer.write_all(&chunk).await.map_err(on_disk)?;
                    if let Err(failure) = pace.check(wanted, self.verifier.seen()) {
                        break Err(failure.into());
                    }
                }
                // All of it came, whatever came after that.
                Ok(None) | Err(_) if self.verifier.seen() == wanted.size => break Ok(()),
                Err(error) if error.is_timeout() => break Err(network(&error).into()),
                Ok(None) | Err(_) => break Err(self.verifier.truncated().into()),
            }
        };
        writer.flush().await.map_err(on_disk)?;
        ended
    }
}

/// How fast a blob comes.
struct Pace {
    window: Duration,
    began: Instant,
    before: u64,
    told: Instant,
}

impl Pace {
    fn new(window: Duration, seen: u64) -> Self {
        let now = Instant::now();
        Self { window, began: now, before: seen, told: now }
    }

    /// Says in the log how far a long download has come, and ends one that all but stands still: it would keep
    /// others from being pulled.
    fn check(&mut self, wanted: &Descriptor, seen: u64) -> Result<(), RegistryError> {
        let Descriptor { digest, size } = wanted;
        if self.told.elapsed() >= TELL {
            self.told = Instant::now();
            tracing::info!(%digest, seen, size, "pulling");
        }
        if self.began.elapsed() < self.window {
            return Ok(());
        }
        let came = seen - self.before;
        (self.began, self.before) = (Instant::now(), seen);
        if came >= LEAST || seen == *size {
            return Ok(());
        }
        Err(RegistryError::Unavailable(format!("only {came} bytes came in {} s", self.window.as_secs())))
    }
}

fn on_disk(wanted: &Descriptor, error: io::Error) -> DownloadError {
    DownloadError::Disk(wanted.digest.clone(), error)
}
