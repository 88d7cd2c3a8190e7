//! Who the node is to registries, beside what pods bring along: the docker configuration of the node, and programs that
//! know credentials.

mod docker;
mod plugin;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use coracle_lifecycle::Credential;
use futures::future::join_all;

pub(crate) use docker::credentials_of_secret;
use plugin::Plugin;
pub use plugin::PluginConfigError;

/// The credentials of the node.
#[derive(Clone, Default)]
pub struct NodeCredentials {
    files: Vec<PathBuf>,
    plugins: Arc<[Plugin]>,
}

impl NodeCredentials {
    /// Those in the first of `files` that is there, read anew for each pull: each a docker `config.json`.
    #[must_use]
    pub fn of_files(files: Vec<PathBuf>) -> Self {
        Self { files, plugins: Arc::default() }
    }

    /// The same with those of the plugins that the file of `--image-credential-provider-config` names, whose programs lie in
    /// `directory`.
    ///
    /// # Errors
    /// When the file cannot be read or is none, or names a program that is not there.
    pub fn with_plugins(self, config: &Path, directory: &Path) -> Result<Self, PluginConfigError> {
        Ok(Self { plugins: plugin::read(config, directory)?.into(), ..self })
    }

    /// Those that may fit an image.
    pub(crate) async fn for_image(&self, image: &str) -> Vec<Credential> {
        let files = self.files.clone();
        let of_files = tokio::task::spawn_blocking(move || docker::credentials_of_files(&files)).await;
        let mut all = of_files.unwrap_or_default();
        let of_plugins = join_all(self.plugins.iter().map(|plugin| plugin.credentials(image))).await;
        all.extend(of_plugins.into_iter().flatten());
        all
    }
}
