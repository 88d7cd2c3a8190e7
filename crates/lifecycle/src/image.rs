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
    ) -> BoxFuture<'a, Result<PulledImage, ImageError>>;

    /// All images that are here and whole.
    fn list(&self) -> BoxFuture<'_, Result<Vec<LocalImage>, ImageError>>;

    /// Removes the image with this manifest digest, and what no other image shares with it.
    fn remove<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<(), ImageError>>;

    /// Gives the existing, empty `directory` the image's files, nothing for a bare artifact: copied, or shared in a way
    /// that no write to one directory shows in another. They may be mounted over `directory`. While it exists the
    /// image's files stay, whatever is removed.
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
    /// What it holds.
    pub content: ImageContent,
    /// The bytes it takes on disk, what it shares with other images counted in full.
    pub size: u64,
}

/// An image that was pulled, and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PulledImage {
    /// The image.
    pub image: LocalImage,
    /// The user that the registry asked for; `None` when it asked for none.
    pub user: Option<Credential>,
}

impl LocalImage {
    /// The program that a bare artifact is; `None` for an image with files.
    #[must_use]
    pub fn program(&self) -> Option<&ImageModule> {
        match &self.content {
            ImageContent::Program(module) => Some(module),
            ImageContent::Files(_) => None,
        }
    }

    /// The files of an image that has any, with their configuration.
    #[must_use]
    pub fn files(&self) -> Option<&ImageFiles> {
        match &self.content {
            ImageContent::Program(_) => None,
            ImageContent::Files(files) => Some(files),
        }
    }
}

/// What an image holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImageContent {
    /// One program and no files: a bare artifact.
    Program(ImageModule),
    /// A file system with programs in it.
    Files(ImageFiles),
}

/// The files of an image, and how a container of it begins where the pod does not say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFiles {
    /// The chain id of its layers (<https://github.com/opencontainers/image-spec/blob/main/config.md#layer-chainid>).
    pub chain: Digest,
    /// The directory that holds all its files as its layers make them together. It never changes while it exists,
    /// and no symbolic link in it is absolute.
    pub directory: PathBuf,
    /// The image's own configuration.
    pub config: ImageConfig,
}

/// The part of an image's configuration that a container is begun with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// `Entrypoint`: replaced by the pod's `command`.
    pub entrypoint: Vec<String>,
    /// `Cmd`: replaced by the pod's `args`, dropped when the pod gives a `command`.
    pub command: Vec<String>,
    /// `Env`, in order; the pod's own variables go over it.
    pub env: Vec<(String, String)>,
    /// `WorkingDir`, when it names one.
    pub working_directory: Option<String>,
    /// `User`, when it names one. It is no more than told: a guest has no user ids.
    pub user: Option<String>,
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
    /// Nobody whom the node trusts has signed it.
    #[error("{0}")]
    Unsigned(String),
    /// This machine's disk failed or is full.
    #[error("{0}")]
    Storage(String),
}
