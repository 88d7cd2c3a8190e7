use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use coracle_lifecycle::{Credential, Digest, ImageError, LocalImage, PulledImage};
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;

use crate::catalog::{Entry, Hold};
use crate::config::{Configuration, Layer};
use crate::credentials::{fitting, scope};
use crate::disk::{Part, Record};
use crate::download::{Content, DownloadError, Target, download};
use crate::forest::Chain;
use crate::image::{Documents, LoadError, Step, step};
use crate::manifest::{Body, Descriptor, ManifestError};
use crate::name::ImageName;
use crate::registry::{MANIFEST_LIMIT, RegistryError, Repository, Server};
use crate::signatures;
use crate::store::Inner;
use crate::sum::Sums;
use crate::unpack::{Budget, UnpackError, Wanted};

/// How many layers of an image are downloaded at a time, as other nodes do.
const DOWNLOADS: usize = 3;
/// The most files, directories and links that an image may have in all its layers.
const ENTRIES: u64 = 500_000;

/// Pulls `name`, together with all who pull it with the same credentials at this time.
pub(crate) async fn pull(
    inner: Arc<Inner>,
    name: ImageName,
    all: &[Credential],
) -> Result<PulledImage, ImageError> {
    let servers = servers(&inner, &name).await?;
    let whom =
        |server: &Server| if server.is_registry() { name.registry().to_owned() } else { server.address() };
    let users: Vec<_> = servers.iter().map(|server| fitting(&whom(server), name.path(), all)).collect();
    let scope = scope(&name, users.iter().flatten());
    let asked = servers.into_iter().zip(users).collect();
    let key = format!("{scope} {name}");
    let pull = Pull { inner: inner.clone(), name, scope };
    inner.images.join(key, async move { pull.run(asked).await }.boxed()).await
}

/// Servers, each with the users that it may be asked as.
type Asked = Vec<(Server, Vec<Credential>)>;

async fn servers(inner: &Arc<Inner>, name: &ImageName) -> Result<Vec<Server>, ImageError> {
    let (inner, asked) = (inner.clone(), name.clone());
    let servers = if inner.registries.reads_files() {
        tokio::task::spawn_blocking(move || inner.registries.servers(&asked)).await
    } else {
        Ok(inner.registries.servers(&asked))
    };
    let failed = |why: String| ImageError::Storage(format!("image \"{name}\": its registry: {why}"));
    servers.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))
}

struct Pull {
    inner: Arc<Inner>,
    name: ImageName,
    scope: Digest,
}

impl Pull {
    async fn run(self, asked: Asked) -> Result<PulledImage, ImageError> {
        let (repository, documents) = self.resolve(asked).await?;
        self.check_sizes(&documents)?;
        self.check_policy(&repository, &documents).await?;
        let hold = Arc::new(self.inner.catalog.hold(documents.parts()));
        let repository = Arc::new(repository);
        // The small one first: an image that is not whole fails before its module is downloaded.
        self.fetch(&repository, &documents.body.config, Content::Anything, &hold).await?;
        let mut holds = vec![hold.clone()];
        match &documents.body.body {
            Body::Program { module, .. } => self.fetch(&repository, module, Content::Wasm, &hold).await?,
            Body::Files(layers) => holds.push(self.files(&repository, &documents, layers).await?),
        }
        let image = self.keep(documents, holds).await?;
        Ok(PulledImage { image, user: repository.user() })
    }

    /// Brings the files of an image into the store: downloads the layers that no image here has, and unpacks them. The
    /// hold returned keeps the files; the layers themselves are not kept.
    async fn files(
        &self,
        repository: &Arc<Repository>,
        documents: &Documents,
        layers: &[Descriptor],
    ) -> Result<Arc<Hold>, ImageError> {
        let configuration = documents.configuration(&self.inner.disk, layers.len());
        let Configuration { layers: chain, .. } = configuration.map_err(|error| self.unreadable(&error))?;
        let trees = chain.iter().map(|layer| Part::Tree(layer.chain.clone())).collect();
        let hold = Arc::new(self.inner.catalog.hold(trees));
        let missing = self.known(&chain).await;
        let archives = layers[missing..].iter().map(|layer| Part::Blob(layer.digest.clone())).collect();
        let passing = Arc::new(self.inner.catalog.hold(archives));
        let downloads =
            layers[missing..].iter().map(|layer| self.fetch(repository, layer, Content::Anything, &passing));
        let downloads: Vec<_> = downloads.collect();
        stream::iter(downloads).buffered(DOWNLOADS).try_collect::<()>().await?;
        let sums = Arc::new(Mutex::new(Sums::default()));
        for (index, layer) in chain.iter().enumerate().skip(missing) {
            let below = index.checked_sub(1).map(|below| chain[below].chain.clone());
            self.unpack(layer, below, &layers[index].digest, &hold, sums.clone()).await?;
        }
        Ok(hold)
    }

    /// How many layers, from the lowest on, have their files here, right.
    async fn known(&self, chain: &[Layer]) -> usize {
        let disk = self.inner.disk.clone();
        let chain = chain.to_vec();
        let is_right = move |layer: &Layer| {
            disk.facts(&layer.chain).is_some() && disk.prove(&Part::Tree(layer.chain.clone()))
        };
        let highest = tokio::task::spawn_blocking(move || chain.iter().rposition(is_right));
        highest.await.ok().flatten().map_or(0, |highest| highest + 1)
    }

    /// Unpacks one layer over those below it, together with all who want the same of the same registry.
    async fn unpack(
        &self,
        layer: &Layer,
        below: Option<Digest>,
        archive: &Digest,
        hold: &Arc<Hold>,
        sums: Arc<Mutex<Sums>>,
    ) -> Result<(), ImageError> {
        let key = format!("{} {} {archive}", self.scope, layer.chain);
        let (inner, layer, hold) = (self.inner.clone(), layer.clone(), hold.clone());
        let path = self.inner.disk.path(archive);
        let work = async move {
            let wanted = Arc::new(AtomicBool::new(true));
            let _until_here = Abandon(wanted.clone());
            let work = move || {
                let is_awaited = || wanted.load(Ordering::Relaxed);
                let wanted = Wanted { file: File::open(path)?, diff: &layer.diff, is_awaited: &is_awaited };
                let chain = Chain { chain: &layer.chain, below: below.as_ref() };
                let mut budget = Budget { bytes: inner.files_limit, entries: ENTRIES };
                let done = inner.disk.grow(&chain, wanted, &mut budget, &mut sums.lock());
                // Not before: a pull that was dropped meanwhile must find the files in place to take them away again.
                drop(hold);
                done
            };
            let done = tokio::task::spawn_blocking(work).await;
            done.unwrap_or_else(|error| Err(io::Error::other(error).into())).map_err(Arc::new)
        };
        let done = self.inner.trees.join(key, work).await;
        done.map_err(|error| self.not_unpacked(archive, &error))
    }

    /// Tries the registry's users one after the other, or goes as nobody if there are none; mirrors are asked as the first of
    /// theirs.
    async fn resolve(&self, asked: Asked) -> Result<(Repository, Documents), ImageError> {
        let registry = asked.last().map(|(_, users)| users.clone()).unwrap_or_default();
        let as_nobody = registry.is_empty().then_some(None);
        let mut first_error = None;
        for credential in registry.into_iter().map(Some).chain(as_nobody) {
            let servers = asked.iter().map(|(server, users)| {
                let user = if server.is_registry() { credential.clone() } else { users.first().cloned() };
                (server.clone(), user)
            });
            let repository = Repository::new(&self.name, servers.collect());
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
        let mut chain = vec![first];
        loop {
            let (known, entry) = match self.step(chain)? {
                Step::End(documents) => return Ok(documents),
                Step::Next(known, entry) => (known, entry),
            };
            let next = repository.manifest(entry.digest.as_str()).await;
            let next = next.map_err(|error| self.unresolved(&error))?;
            if next.0 != entry.digest {
                return Err(self.wrong_manifest(&entry.digest, &next.0));
            }
            chain = [known, vec![next]].concat();
        }
    }

    fn step(&self, chain: Vec<(Digest, Vec<u8>)>) -> Result<Step, ImageError> {
        step(chain).map_err(|error| match error {
            ManifestError::Malformed(_) => ImageError::Corrupt(self.of_image(&error.to_string())),
            ManifestError::Unsupported(_) => self.unsupported(&error.to_string()),
        })
    }

    /// Refuses, before anything of it is here, an image that is not signed as the node's policy wants it.
    async fn check_policy(&self, repository: &Repository, documents: &Documents) -> Result<(), ImageError> {
        let Some(requirements) = self.inner.policy.requirements(&self.name) else { return Ok(()) };
        let checked = signatures::check(repository, &self.name, documents, requirements).await;
        checked.map_err(|error| ImageError::Unsigned(self.of_image(&error.to_string())))
    }

    fn check_sizes(&self, documents: &Documents) -> Result<(), ImageError> {
        let config = ("config", documents.body.config.size, MANIFEST_LIMIT);
        let content = match &documents.body.body {
            Body::Program { module, .. } => ("module", module.size, self.inner.module_limit),
            Body::Files(layers) => {
                let size = layers.iter().fold(0_u64, |sum, layer| sum.saturating_add(layer.size));
                ("layers", size, self.inner.files_limit)
            }
        };
        match [config, content].into_iter().find(|(_, size, limit)| size > limit) {
            Some((what, size, limit)) => Err(self
                .unsupported(&format!("its {what} has {size} bytes, this node takes no more than {limit}"))),
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
        let target =
            Target { disk: self.inner.disk.clone(), hold: hold.clone(), patience: self.inner.patience };
        let (repository, wanted) = (repository.clone(), part.clone());
        // The kind is a part of the key: who wants a program must not be content with any bytes.
        let key = format!("{} {} {} {content:?}", self.scope, part.digest, part.size);
        let work = async move { download(&repository, &target, &wanted, content).await.map_err(Arc::new) };
        let done = self.inner.blobs.join(key, work).await;
        done.map_err(|error| self.not_downloaded(&part.digest, &error))
    }

    /// Writes the image down, documents before records, and makes it known. Once begun this comes to its end even
    /// if the pull is dropped, so that memory and disk agree.
    async fn keep(self, documents: Documents, holds: Vec<Arc<Hold>>) -> Result<LocalImage, ImageError> {
        let work = move || {
            let kept = keep(&self.inner, &self.name, &documents);
            drop(holds);
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

    fn unreadable(&self, error: &LoadError) -> ImageError {
        match error {
            LoadError::Disk(_) => ImageError::Storage(self.of_image(&error.to_string())),
            _ => ImageError::Corrupt(self.of_image(&error.to_string())),
        }
    }

    fn not_unpacked(&self, layer: &Digest, error: &UnpackError) -> ImageError {
        let message = self.of_image(&format!("the layer {layer} cannot be unpacked: {error}"));
        match error {
            UnpackError::Malformed(_) | UnpackError::OtherContent { .. } => ImageError::Corrupt(message),
            UnpackError::TooLarge(_) => ImageError::Unsupported(message),
            UnpackError::Disk(_) | UnpackError::Abandoned => ImageError::Storage(message),
        }
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

/// Tells work on another thread, when dropped, that nobody waits for it.
struct Abandon(Arc<AtomicBool>);

impl Drop for Abandon {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
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
fn keep(inner: &Inner, name: &ImageName, documents: &Documents) -> Result<LocalImage, LoadError> {
    let _writing = inner.writing();
    for (digest, bytes) in &documents.chain {
        let is_here = inner.disk.holds(digest, bytes.len() as u64);
        if !is_here || !inner.disk.is_proven(&Part::Blob(digest.clone())) {
            inner.disk.keep_bytes(bytes, digest)?;
        }
    }
    let verified = inner.policy.demand(name);
    let entry = Entry { verified, ..documents.entry(name, &inner.disk)? };
    let by_digest = Entry { target: documents.manifest.clone(), ..entry.clone() };
    keep_under(inner, entry.image.repo_digest.clone(), by_digest)?;
    let image = entry.image.clone();
    keep_under(inner, name.key(), entry)?;
    Ok(image)
}

fn keep_under(inner: &Inner, key: String, mut entry: Entry) -> io::Result<()> {
    let is_same = |known: &Entry| known.target == entry.target && known.verified == entry.verified;
    if inner.catalog.find(&key).is_some_and(|known| is_same(&known)) {
        return Ok(());
    }
    entry.image.reference.clone_from(&key);
    let (reference, target, verified) = (key.clone(), entry.target.clone(), entry.verified.clone());
    inner.disk.record(&Record { reference, target, verified })?;
    inner.catalog.insert(key, entry);
    Ok(())
}
