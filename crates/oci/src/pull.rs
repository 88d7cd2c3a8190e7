use std::io;
use std::sync::Arc;

use coracle_lifecycle::{Credential, Digest, ImageError, LocalImage};
use futures::FutureExt;

use crate::catalog::{Entry, Hold};
use crate::credentials::{fitting, scope};
use crate::disk::Record;
use crate::download::{Content, DownloadError, Target, download};
use crate::image::{Documents, Step, step};
use crate::manifest::{Descriptor, ManifestError};
use crate::name::ImageName;
use crate::registry::{MANIFEST_LIMIT, RegistryError, Repository};
use crate::store::Inner;

/// Pulls `name`, together with all who pull it with the same credentials at this time.
pub(crate) async fn pull(
    inner: Arc<Inner>,
    name: ImageName,
    all: &[Credential],
) -> Result<LocalImage, ImageError> {
    let credentials = fitting(&name, all);
    let scope = scope(&name, &credentials);
    let key = format!("{scope} {name}");
    let pull = Pull { inner: inner.clone(), name, scope };
    inner.images.join(key, async move { pull.run(credentials).await }.boxed()).await
}

struct Pull {
    inner: Arc<Inner>,
    name: ImageName,
    scope: Digest,
}

impl Pull {
    async fn run(self, credentials: Vec<Credential>) -> Result<LocalImage, ImageError> {
        let (repository, documents) = self.resolve(credentials).await?;
        self.check_sizes(&documents)?;
        let hold = Arc::new(self.inner.catalog.hold(documents.blobs()));
        let repository = Arc::new(repository);
        // The small one first: an image that is not whole fails before its module is downloaded.
        let parts =
            [(&documents.artifact.config, Content::Anything), (&documents.artifact.module, Content::Wasm)];
        for (part, content) in parts {
            self.fetch(&repository, part, content, &hold).await?;
        }
        self.keep(documents, hold).await
    }

    /// Tries the credentials one after the other, or goes as nobody if there are none.
    async fn resolve(&self, credentials: Vec<Credential>) -> Result<(Repository, Documents), ImageError> {
        let as_nobody = credentials.is_empty().then_some(None);
        let mut first_error = None;
        for credential in credentials.into_iter().map(Some).chain(as_nobody) {
            let repository = self.inner.registries.repository(&self.name, credential);
            match self.documents(&repository).await {
                Ok(documents) => return Ok((repository, documents)),
                Err(error @ (ImageError::Unauthorized(_) | ImageError::NotFound(_))) => {
                    first_error.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(first_error.unwrap_or_else(|| self.unresolved(&RegistryError::Denied)))
    }

    async fn documents(&self, repository: &Repository) -> Result<Documents, ImageError> {
        let first = repository.manifest(self.name.target()).await.map_err(|error| self.unresolved(&error))?;
        if let Some(wanted) = self.name.digest().filter(|wanted| **wanted != first.0) {
            return Err(self.wrong_manifest(wanted, &first.0));
        }
        let entry = match self.step(vec![first.clone()])? {
            Step::End(documents) => return Ok(documents),
            Step::Next(entry) => entry,
        };
        let second =
            repository.manifest(entry.digest.as_str()).await.map_err(|error| self.unresolved(&error))?;
        if second.0 != entry.digest {
            return Err(self.wrong_manifest(&entry.digest, &second.0));
        }
        match self.step(vec![first, second])? {
            Step::End(documents) => Ok(documents),
            Step::Next(_) => Err(self.unsupported("an index within an index is not supported")),
        }
    }

    fn step(&self, chain: Vec<(Digest, Vec<u8>)>) -> Result<Step, ImageError> {
        step(chain).map_err(|error| match error {
            ManifestError::Malformed(_) => ImageError::Corrupt(self.of_image(&error.to_string())),
            ManifestError::Unsupported(_) => self.unsupported(&error.to_string()),
        })
    }

    fn check_sizes(&self, documents: &Documents) -> Result<(), ImageError> {
        let artifact = &documents.artifact;
        let limits = [
            ("config", &artifact.config, MANIFEST_LIMIT),
            ("module", &artifact.module, self.inner.module_limit),
        ];
        match limits.into_iter().find(|(_, part, limit)| part.size > *limit) {
            Some((what, part, limit)) => Err(self.unsupported(&format!(
                "its {what} has {} bytes, this node takes no more than {limit}",
                part.size
            ))),
            None => Ok(()),
        }
    }

    async fn fetch(
        &self,
        repository: &Arc<Repository>,
        part: &Descriptor,
        content: Content,
        hold: &Arc<Hold>,
    ) -> Result<(), ImageError> {
        let target = Target { disk: self.inner.disk.clone(), hold: hold.clone() };
        let (repository, wanted) = (repository.clone(), part.clone());
        // The kind is a part of the key: who wants a program must not be content with any bytes.
        let key = format!("{} {} {} {content:?}", self.scope, part.digest, part.size);
        let work = async move { download(&repository, &target, &wanted, content).await.map_err(Arc::new) };
        let done = self.inner.blobs.join(key, work).await;
        done.map_err(|error| self.not_downloaded(&part.digest, &error))
    }

    /// Writes the image down, documents before records, and makes it known. Once begun this comes to its end even
    /// if the pull is dropped, so that memory and disk agree.
    async fn keep(self, documents: Documents, hold: Arc<Hold>) -> Result<LocalImage, ImageError> {
        let work = move || {
            let kept = keep(&self.inner, &self.name, &documents);
            drop(hold);
            kept.map_err(|error| ImageError::Storage(self.of_image(&format!("cannot store it: {error}"))))
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(kept) => kept,
            Err(error) => Err(ImageError::Storage(format!("the image store failed: {error}"))),
        }
    }

    fn of_image(&self, what: &str) -> String {
        format!("image \"{}\": {what}", self.name)
    }

    fn unsupported(&self, what: &str) -> ImageError {
        ImageError::Unsupported(self.of_image(what))
    }

    fn wrong_manifest(&self, wanted: &Digest, got: &Digest) -> ImageError {
        ImageError::Corrupt(
            self.of_image(&format!("manifest {wanted} has the wrong digest: what came is {got}")),
        )
    }

    fn unresolved(&self, error: &RegistryError) -> ImageError {
        registry_error(error, format!("failed to resolve reference \"{}\": {error}", self.name))
    }

    fn not_downloaded(&self, digest: &Digest, error: &DownloadError) -> ImageError {
        let message = self.of_image(&error.to_string());
        match error {
            DownloadError::Registry(cause) => {
                registry_error(cause, self.of_image(&format!("{digest}: {cause}")))
            }
            DownloadError::Content(_) => ImageError::Corrupt(message),
            DownloadError::NotWasm(_) => ImageError::Unsupported(message),
            DownloadError::Disk(..) => ImageError::Storage(message),
        }
    }
}

fn registry_error(error: &RegistryError, message: String) -> ImageError {
    match error {
        RegistryError::NotFound => ImageError::NotFound(message),
        RegistryError::Denied => ImageError::Unauthorized(message),
        RegistryError::Unavailable(_) => ImageError::RegistryUnavailable(message),
        RegistryError::Malformed(_) => ImageError::Corrupt(message),
    }
}

/// Keeps the image under its name and under its digest: the latter still leads to it when a tag has moved on.
fn keep(inner: &Inner, name: &ImageName, documents: &Documents) -> io::Result<LocalImage> {
    let _writing = inner.writing();
    for (digest, bytes) in &documents.chain {
        if !inner.disk.holds(digest, bytes.len() as u64) {
            inner.disk.keep_bytes(bytes, digest)?;
        }
    }
    let entry = documents.entry(name, &inner.disk);
    let by_digest = Entry { target: documents.manifest.clone(), ..entry.clone() };
    keep_under(inner, entry.image.repo_digest.clone(), by_digest)?;
    let image = entry.image.clone();
    keep_under(inner, name.key(), entry)?;
    Ok(image)
}

fn keep_under(inner: &Inner, key: String, mut entry: Entry) -> io::Result<()> {
    if inner.catalog.find(&key).is_some_and(|known| known.target == entry.target) {
        return Ok(());
    }
    entry.image.reference.clone_from(&key);
    inner.disk.record(&Record { reference: key.clone(), target: entry.target.clone() })?;
    inner.catalog.insert(key, entry);
    Ok(())
}
