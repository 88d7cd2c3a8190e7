use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{BoxFuture, Digest};

/// An image store: the second port. Images are known by digest; references lead to digests.
pub trait Images: Send + Sync + 'static {
    /// The image that `reference` led to when it was last pulled, verified and whole; `None` when it is not here.
    fn find<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<Option<LocalImage>, ImageError>>;

    /// Fetches what `reference` leads to now, verifies it and stores it. Content that is here already is not
    /// fetched again; the same content is fetched once however many ask at a time. Dropping it ends the pull.
    fn pull<'a>(
        &'a self,
        reference: &'a str,
        credentials: &'a [Credential],
    ) -> BoxFuture<'a, Result<LocalImage, ImageError>>;

    /// All images that are here and whole.
    fn list(&self) -> BoxFuture<'_, Result<Vec<LocalImage>, ImageError>>;

    /// Removes the image with this manifest digest, and what no other image shares with it.
    fn remove<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<(), ImageError>>;

    /// Lays the image's files into the existing, empty `directory`; nothing for a bare artifact.
    fn root_file_system<'a>(
        &'a self,
        image: &'a LocalImage,
        directory: &'a Path,
    ) -> BoxFuture<'a, Result<(), ImageError>>;
}

/// An image that is on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalImage {
    /// The digest of its manifest.
    pub digest: Digest,
    /// The full reference it was found by, with registry and tag or digest.
    pub reference: String,
    /// `repository@digest`, what Kubernetes shows as `imageID`.
    pub repo_digest: String,
    /// The program to run.
    pub module: ImageModule,
    /// The bytes it takes on disk.
    pub size: u64,
}

/// The program in an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageModule {
    /// The digest of the program's bytes: what a runtime keeps its prepared form by.
    pub digest: Digest,
    /// The file that holds them; it never changes while it exists.
    pub path: PathBuf,
    /// The program's name: argv\[0\] where the pod gives no command.
    pub name: String,
}

/// A user name and password for a registry.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// The registry it is for, as a docker configuration names it: a host, with a port or path or without.
    pub registry: String,
    /// The user's name.
    pub username: String,
    /// The password or token.
    pub password: String,
}

impl fmt::Debug for Credential {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Credential").field("registry", &self.registry).finish_non_exhaustive()
    }
}

/// Why an image cannot be had. Each message names the image or its part and the cause.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ImageError {
    /// The reference cannot be parsed.
    #[error("{0}")]
    InvalidName(String),
    /// The registry has no such image.
    #[error("{0}")]
    NotFound(String),
    /// The registry wants credentials, or others than those given.
    #[error("{0}")]
    Unauthorized(String),
    /// The registry cannot be reached or answers with an error of its own.
    #[error("{0}")]
    RegistryUnavailable(String),
    /// What came is not what was promised: a wrong digest or size, a truncated or malformed document.
    #[error("{0}")]
    Corrupt(String),
    /// An image of a kind that this node cannot run.
    #[error("{0}")]
    Unsupported(String),
    /// This machine's disk failed or is full.
    #[error("{0}")]
    Storage(String),
}
