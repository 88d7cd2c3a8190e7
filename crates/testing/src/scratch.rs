//! Folders that vanish with their value, and at the latest with this process.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::mount::{UnmountFlags, unmount};
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

/// A node that was killed has unmounted nothing.
impl Drop for Scratch {
    fn drop(&mut self) {
        let Ok(folder) = self.path().canonicalize() else { return };
        let table = fs::read("/proc/self/mountinfo").unwrap_or_default();
        let within: Vec<_> = mount_points(&table).filter(|place| place.starts_with(&folder)).collect();
        for place in within.iter().rev() {
            let _may_be_gone = unmount(place, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
        }
    }
}

/// The mount points of a table as `proc_pid_mountinfo(5)` describes it, but those with a name of blanks and the like.
fn mount_points(table: &[u8]) -> impl Iterator<Item = PathBuf> {
    let points =
        table.split(|byte| *byte == b'\n').filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    points.map(|point| OsString::from_vec(point.to_vec()).into())
}

#[cfg(test)]
mod tests {
    use rustix::mount::{MountFlags, mount};

    use super::*;

    #[test]
    fn a_folder_vanishes_with_what_is_mounted_in_it() {
        let scratch = Scratch::new("mounts").unwrap();
        let (folder, place) = (scratch.path().to_owned(), scratch.join("deep/er"));
        fs::create_dir_all(&place).unwrap();
        // Who may not mount has left nothing mounted.
        let mounted = mount("tmpfs", &place, "tmpfs", MountFlags::empty(), None);
        fs::write(place.join("file"), "").unwrap();
        drop(scratch);
        assert!(!folder.exists(), "{mounted:?}");
    }
}
