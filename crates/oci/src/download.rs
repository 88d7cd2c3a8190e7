use std::io;
use std::sync::Arc;

use reqwest::Response;
use tempfile::NamedTempFile;
use thiserror::Error;
use tokio::io::{AsyncWriteExt, BufWriter};

use crate::catalog::Hold;
use crate::digest::{ContentError, Verifier};
use crate::disk::Disk;
use crate::manifest::Descriptor;
use crate::registry::{RegistryError, Repository, network};

/// Chunks from the network are gathered to this many bytes before they go to disk.
const BUFFER: usize = 256 * 1024;
const WASM_MAGIC: [u8; 4] = *b"\0asm";

/// Why a blob is not here.
#[derive(Debug, Error)]
pub(crate) enum DownloadError {
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Content(#[from] ContentError),
    #[error("{0} is not WebAssembly")]
    NotWasm(coracle_lifecycle::Digest),
    #[error("cannot store {0}: {1}")]
    Disk(coracle_lifecycle::Digest, #[source] io::Error),
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
}

/// Brings the blob into the store, unless it is there. It is verified while it streams to disk and gets its name only
/// when all of it is right and on disk; dropped before that, it leaves nothing.
pub(crate) async fn download(
    repository: &Repository,
    target: &Target,
    wanted: &Descriptor,
    content: Content,
) -> Result<(), DownloadError> {
    let Target { disk, hold } = target;
    let on_disk = |error| DownloadError::Disk(wanted.digest.clone(), error);
    let is_wrong = |head| content == Content::Wasm && head != WASM_MAGIC;
    if disk.holds(&wanted.digest, wanted.size) {
        // It may be here as something else, say as another image's config.
        let head = disk.head(&wanted.digest).map_err(on_disk)?;
        return if is_wrong(head) { Err(DownloadError::NotWasm(wanted.digest.clone())) } else { Ok(()) };
    }
    let response = repository.blob(&wanted.digest).await?;
    let file = disk.unfinished().map_err(on_disk)?;
    let head = receive(response, wanted, &file).await?;
    if is_wrong(head) {
        return Err(DownloadError::NotWasm(wanted.digest.clone()));
    }
    let (disk, hold, digest) = (disk.clone(), hold.clone(), wanted.digest.clone());
    let keep = move || {
        let kept = disk.keep(file, &digest);
        // Not before: a pull that was dropped meanwhile must find the file in place to take it away again.
        drop(hold);
        kept
    };
    let kept = tokio::task::spawn_blocking(keep).await;
    kept.map_err(io::Error::other).flatten().map_err(on_disk)
}

async fn receive(
    mut response: Response,
    wanted: &Descriptor,
    file: &NamedTempFile,
) -> Result<[u8; 4], DownloadError> {
    let on_disk = |error| DownloadError::Disk(wanted.digest.clone(), error);
    let mut verifier = Verifier::new(wanted.digest.clone(), wanted.size);
    if response.content_length().is_some_and(|length| length > wanted.size) {
        let (digest, size) = (wanted.digest.clone(), wanted.size);
        return Err(ContentError::TooLong { digest, size }.into());
    }
    let file = file.as_file().try_clone().map_err(on_disk)?;
    let mut writer = BufWriter::with_capacity(BUFFER, tokio::fs::File::from_std(file));
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => {
                verifier.update(&chunk)?;
                writer.write_all(&chunk).await.map_err(on_disk)?;
            }
            Ok(None) => break,
            Err(error) if error.is_timeout() => return Err(network(&error).into()),
            Err(_) => return Err(verifier.truncated().into()),
        }
    }
    writer.flush().await.map_err(on_disk)?;
    Ok(verifier.finish()?)
}
