//! Folders that vanish with their value, and at the latest with this process.

use std::path::{Path, PathBuf};

use anyhow::Context;
use tempfile::TempDir;

use crate::reaper;

/// A private folder below the system's folder for temporary files.
pub(crate) struct Scratch(TempDir);

impl Scratch {
    pub(crate) fn new(label: &str) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix(&format!("coracle-{label}-"))
            .tempdir()
            .context("making a folder for temporary files")?;
        reaper::owns_folder(folder.path()).context("telling the reaper of a folder")?;
        Ok(Self(folder))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}
