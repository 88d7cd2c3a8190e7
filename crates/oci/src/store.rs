use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use coracle_lifecycle::{BoxFuture, Credential, Digest, ImageError, Images, LocalImage, PulledImage};
use parking_lot::{Mutex, MutexGuard};
use thiserror::Error;

use crate::catalog::{Catalog, Entry, Hold};
use crate::clients::{Clients, Proxies};
use crate::disk::{Disk, Part, remove_aside};
use crate::download::{DownloadError, Patience};
use crate::flight::Flights;
use crate::image::load;
use crate::name::ImageName;
use crate::policy::{Policy, PolicyError};
use crate::pull::pull;
use crate::registry::Registries;
use crate::spread::Sharing;
use crate::unpack::UnpackError;

/// What an image store is opened with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where the images lie. One process at a time may have it open.
    pub directory: PathBuf,
    /// The registries, each as `host[:port]`, that are spoken to without TLS.
    pub insecure_registries: Vec<String>,
    /// Where registries are configured as containerd lays it out, read at each pull: mirrors, authorities, client
    /// certificates (<https://github.com/containerd/containerd/blob/main/docs/hosts.md>).
    pub registry_directory: Option<PathBuf>,
    /// The HTTP proxies on the way to registries.
    pub proxies: Proxies,
    /// A file in the form of `containers-policy.json(5)` that says whose signature images must have; `None` for anybody's
    /// or none.
    pub policy: Option<PathBuf>,
    /// The most bytes a WebAssembly module may have.
    pub module_limit: u64,
    /// The most bytes that the layers of an image may have, and the most that its files may have.
    pub files_limit: u64,
    /// How long it may take to reach a registry.
    pub connect_timeout: Duration,
    /// How long a registry may send nothing before a pull ends.
    pub stall_timeout: Duration,
    /// How long it takes until a download that was broken off is taken up again; twice as long each time after.
    pub retry_delay: Duration,
}

impl Settings {
    /// The settings for a store in `directory`: no insecure registry, modules of up to 1 GiB, files of up to 16 GiB,
    /// 30 s to connect, 60 s without a byte, and half a second before a download is taken up again.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            insecure_registries: Vec::new(),
            registry_directory: None,
            proxies: Proxies::default(),
            policy: None,
            module_limit: 1 << 30,
            files_limit: 16 << 30,
            connect_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_mins(1),
            retry_delay: Duration::from_millis(500),
        }
    }
}

/// Why a store cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Its directory cannot be made, read or written.
    #[error("image directory {directory}: {cause}")]
    Directory {
        /// The directory of the settings.
        directory: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// The process has not chosen who does its cryptography (`rustls::crypto::CryptoProvider::install_default`).
    #[error("no default rustls crypto provider is installed")]
    NoCryptoProvider,
    /// The image policy cannot be used.
    #[error("image policy {path}: {cause}")]
    Policy {
        /// The file of the settings.
        path: PathBuf,
        /// Why.
        #[source]
        cause: PolicyError,
    },
    /// A proxy's address is none.
    #[error("the proxy for registries: {0}")]
    Proxy(#[source] reqwest::Error),
}

/// Images on this machine: the [`Images`] port over a directory and OCI registries.
///
/// Content lies under its digest and gets its name only when it is verified and on disk, so a process that is killed
/// at any point leaves nothing half-made that is ever used.
pub struct Store {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) disk: Arc<Disk>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) registries: Registries,
    pub(crate) patience: Patience,
    pub(crate) policy: Policy,
    pub(crate) module_limit: u64,
    pub(crate) files_limit: u64,
    pub(crate) images: Flights<Result<PulledImage, ImageError>>,
    pub(crate) blobs: Flights<Result<(), Arc<DownloadError>>>,
    pub(crate) trees: Flights<Result<(), Arc<UnpackError>>>,
    sharing: Sharing,
    /// Which containers' directories have files of the store under them, and what keeps these.
    lent: Mutex<HashMap<PathBuf, Hold>>,
    /// Whoever changes records has this, so that memory and disk change in one order.
    writing: Mutex<()>,
}

impl Inner {
    pub(crate) fn writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock()
    }
}

impl Store {
    /// Opens the store, makes its directory if there is none, and removes what a killed process left half-made.
    /// It reads the disk: call it where that may block.
    ///
    /// # Errors
    /// When the directory or the policy cannot be used, the process has no rustls crypto provider, or a proxy's address is
    /// none.
    pub fn open(settings: Settings) -> Result<Self, OpenError> {
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            return Err(OpenError::NoCryptoProvider);
        }
        let patience = Patience { stall: settings.stall_timeout, retry: settings.retry_delay };
        let clients = Clients::new(settings.connect_timeout, settings.stall_timeout, &settings.proxies);
        let clients = clients.map_err(OpenError::Proxy)?;
        let registries = Registries::new(settings.insecure_registries, settings.registry_directory, clients);
        let policy = match settings.policy {
            Some(path) => Policy::from_file(&path).map_err(|cause| OpenError::Policy { path, cause })?,
            None => Policy::default(),
        };
        let directory = settings.directory;
        let (disk, catalog, sharing) =
            open_directory(&directory).map_err(|cause| OpenError::Directory { directory, cause })?;
        tracing::info!(by = sharing.name(), "containers get the files of their images");
        let inner = Inner {
            disk,
            catalog,
            registries,
            patience,
            policy,
            module_limit: settings.module_limit,
            files_limit: settings.files_limit,
            images: Flights::new(),
            blobs: Flights::new(),
            trees: Flights::new(),
            sharing,
            lent: Mutex::default(),
            writing: Mutex::new(()),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The image of a reference, if it is here for all that is known without reading it.
    fn known(&self, reference: &str) -> Result<Option<Entry>, ImageError> {
        // What somebody took away must be pulled again.
        let is_whole = |entry: &Entry| entry.is_whole(&self.inner.disk);
        // A full reference is its own key: most are found without being parsed.
        if self.inner.policy.is_empty()
            && let Some(entry) = self.inner.catalog.find(reference).filter(is_whole)
        {
            return Ok(Some(entry));
        }
        let name = ImageName::parse(reference)?;
        let demand = self.inner.policy.demand(&name);
        // What met another demand must be looked at again, and so does what met none.
        let is_verified = |entry: &Entry| demand.is_none() || entry.verified == demand;
        let found = self.inner.catalog.find(&name.key()).filter(is_verified).filter(is_whole);
        Ok(found.map(|entry| {
            let image = LocalImage { reference: name.to_string(), ..entry.image };
            Entry { image, ..entry }
        }))
    }

    /// Whether what would be run of an image is right; it is read when a process before this one has made it.
    async fn is_proven(&self, entry: &Entry) -> bool {
        let (disk, part) = (self.inner.disk.clone(), entry.content());
        disk.is_proven(&part) || tokio::task::spawn_blocking(move || disk.prove(&part)).await.unwrap_or(false)
    }
}

impl Images for Store {
    fn find<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<Option<LocalImage>, ImageError>> {
        Box::pin(async move {
            let Some(entry) = self.known(reference)? else { return Ok(None) };
            Ok(self.is_proven(&entry).await.then_some(entry.image))
        })
    }

    fn pull<'a>(
        &'a self,
        reference: &'a str,
        credentials: &'a [Credential],
    ) -> BoxFuture<'a, Result<PulledImage, ImageError>> {
        Box::pin(async move { pull(self.inner.clone(), ImageName::parse(reference)?, credentials).await })
    }

    /// One for each tag that leads to an image, and one for each image that has no tag in its repository.
    fn list(&self) -> BoxFuture<'_, Result<Vec<LocalImage>, ImageError>> {
        Box::pin(async move { Ok(listed(self.inner.catalog.entries())) })
    }

    /// Content that a pull counts on stays until that pull has ended.
    fn remove<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<(), ImageError>> {
        let (inner, digest) = (self.inner.clone(), digest.clone());
        Box::pin(async move {
            let removed = tokio::task::spawn_blocking(move || remove(&inner, &digest)).await;
            removed
                .map_err(io::Error::other)
                .flatten()
                .map_err(|error| ImageError::Storage(format!("cannot remove an image: {error}")))
        })
    }

    fn root_file_system<'a>(
        &'a self,
        image: &'a LocalImage,
        directory: &'a Path,
    ) -> BoxFuture<'a, Result<(), ImageError>> {
        let Some(files) = image.files() else { return Box::pin(async { Ok(()) }) };
        let (inner, directory, files) = (self.inner.clone(), directory.to_owned(), files.clone());
        Box::pin(async move {
            let given = tokio::task::spawn_blocking(move || {
                inner.lend(&files.chain, directory.clone());
                inner.sharing.give(&files.directory, &directory)
            });
            let given = given.await.map_err(io::Error::other).flatten();
            given.map_err(|error| ImageError::Storage(format!("the image's files cannot be shared: {error}")))
        })
    }
}

impl Inner {
    /// Keeps the files of a chain for as long as `directory` exists.
    fn lend(self: &Arc<Self>, chain: &Digest, directory: PathBuf) {
        let hold = self.catalog.hold(vec![Part::Tree(chain.clone())]);
        let mut lent = self.lent.lock();
        lent.insert(directory, hold);
    }

    /// Lets go what was kept for directories that are gone.
    fn take_back(&self) {
        let mut lent = self.lent.lock();
        let returned: Vec<Hold> =
            lent.extract_if(|directory, _| !directory.exists()).map(|(_, hold)| hold).collect();
        drop(lent);
        // Which may remove many files.
        drop(returned);
    }
}

fn open_directory(directory: &Path) -> io::Result<(Arc<Disk>, Arc<Catalog>, Sharing)> {
    let disk = Arc::new(Disk::open(directory)?);
    let sharing = Sharing::find(disk.unfinished_directory()?.path())?;
    forget_remains(&disk)?;
    let catalog = Arc::new(Catalog::new(disk.clone()));
    for record in disk.records()? {
        match load(&disk, &record) {
            Ok((key, entry)) => catalog.insert(key, entry),
            Err(error) => {
                tracing::warn!(reference = record.reference, %error, "an image that is not whole is forgotten");
                disk.forget(&record.reference)?;
            }
        }
    }
    // Held and let go at once: what no image uses goes.
    drop(catalog.hold(disk.parts()?));
    Ok((disk, catalog, sharing))
}

/// Removes trees of which nothing is known: the machine went down before they were on disk.
fn forget_remains(disk: &Disk) -> io::Result<()> {
    for part in disk.parts()? {
        if let Part::Tree(chain) = &part
            && disk.facts(chain).is_none()
        {
            tracing::warn!(%chain, "files that are not whole are removed");
            disk.set_aside(&part).map_or(Ok(()), |path| remove_aside(&path))?;
        }
    }
    Ok(())
}

fn remove(inner: &Inner, digest: &Digest) -> io::Result<()> {
    inner.take_back();
    let _writing = inner.writing();
    for (key, entry) in inner.catalog.entries() {
        if entry.image.digest == *digest {
            inner.disk.forget(&key)?;
            inner.catalog.remove(&key);
        }
    }
    Ok(())
}

fn listed(entries: Vec<(String, Entry)>) -> Vec<LocalImage> {
    let is_tagged = |image: &LocalImage| image.reference != image.repo_digest;
    let images = entries.into_iter().map(|(_, entry)| entry.image);
    let (mut tagged, bare): (Vec<_>, Vec<_>) = images.partition(is_tagged);
    let known: HashSet<String> = tagged.iter().map(|image| image.repo_digest.clone()).collect();
    tagged.extend(bare.into_iter().filter(|image| !known.contains(&image.repo_digest)));
    tagged.sort_by(|one, other| one.reference.cmp(&other.reference));
    tagged
}
