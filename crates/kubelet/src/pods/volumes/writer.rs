use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use coracle_lifecycle::projection::{File, Files};

/// The link through which all files of a volume are seen.
const CURRENT: &str = "..data";
/// The same link before it takes the place of the one before it.
const NEXT: &str = "..data_tmp";

/// Writes volumes as Kubernetes' atomic writer does: the files in a directory of their own, `..data` a link to it that is
/// swapped by one rename, and each visible name a link through `..data`. Whenever it is cut short, who reads sees all the
/// old files or all the new ones, and the next write leaves nothing else behind.
pub(super) struct Writer<'a> {
    directory: &'a Path,
    group: Option<u32>,
    /// Called before each system call that changes something; an error ends the write there and then.
    before_each: &'a dyn Fn() -> io::Result<()>,
}

impl<'a> Writer<'a> {
    /// A writer for the volume in an existing directory, whose files belong to `group` as far as this user may say so.
    pub(super) fn new(directory: &'a Path, group: Option<u32>) -> Self {
        Self { directory, group, before_each: &|| Ok(()) }
    }

    /// Makes these files those of the volume. What is there already and the same is left alone.
    pub(super) fn write(&self, files: &Files) -> io::Result<()> {
        let current = fs::read_link(self.directory.join(CURRENT)).ok();
        let is_new = !current.as_ref().is_some_and(|current| holds(&self.directory.join(current), files));
        let current = current.unwrap_or_default();
        let payload = if is_new { self.replace(files) } else { Ok(current.clone()) };
        if let Err(error) = payload {
            // What was written for nothing may be what filled the disk.
            let _ = self.remove_others(&current);
            return Err(error);
        }
        self.link_names(files)?;
        self.remove_others(&payload?)
    }

    fn replace(&self, files: &Files) -> io::Result<PathBuf> {
        let payload = self.unused()?;
        self.make_directory(&self.directory.join(&payload))?;
        for (path, file) in files {
            let path = self.directory.join(&payload).join(path);
            self.make_parents(&path)?;
            let mut written = self.step(|| fs::File::create_new(&path))?;
            self.step(|| written.write_all(&file.content))?;
            self.step(|| written.set_permissions(Permissions::from_mode(file.mode)))?;
            self.give(&path)?;
        }
        let next = self.directory.join(NEXT);
        if fs::symlink_metadata(&next).is_ok() {
            self.step(|| fs::remove_file(&next))?;
        }
        self.step(|| symlink(&payload, &next))?;
        self.step(|| fs::rename(&next, self.directory.join(CURRENT)))?;
        Ok(payload.into())
    }

    /// A name that no payload has.
    fn unused(&self) -> io::Result<String> {
        let taken = names(self.directory)?;
        let mut numbered = (0_u64..).map(|number| format!("..{number}"));
        let free = numbered.find(|name| !taken.contains(&OsString::from(name)));
        free.ok_or_else(|| ErrorKind::AlreadyExists.into())
    }

    fn make_parents(&self, path: &Path) -> io::Result<()> {
        match path.parent() {
            Some(parent) if fs::symlink_metadata(parent).is_err() => {
                self.make_parents(parent)?;
                self.make_directory(parent)
            }
            _ => Ok(()),
        }
    }

    fn make_directory(&self, path: &Path) -> io::Result<()> {
        self.step(|| DirBuilder::new().mode(0o700).create(path))?;
        self.give(path)
    }

    fn give(&self, path: &Path) -> io::Result<()> {
        if self.group.is_none() {
            return Ok(());
        }
        match self.step(|| chown(path, None, self.group)) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
            result => result,
        }
    }

    /// Links what is to be seen, and no more what is not.
    fn link_names(&self, files: &Files) -> io::Result<()> {
        let wanted = visible_names(files);
        for name in names(self.directory)? {
            let is_wanted = name.to_str().is_some_and(|name| name.starts_with("..") || wanted.contains(name));
            let path = self.directory.join(&name);
            // Others are mount points of what is mounted in this volume.
            if !is_wanted && fs::read_link(&path).is_ok() {
                self.step(|| fs::remove_file(path))?;
            }
        }
        for name in wanted {
            let link = self.directory.join(name);
            if fs::symlink_metadata(&link).is_err() {
                self.step(|| symlink(Path::new(CURRENT).join(name), link))?;
            }
        }
        Ok(())
    }

    /// Removes all payloads but this one: the one before it, and those of writes that were cut short.
    fn remove_others(&self, payload: &Path) -> io::Result<()> {
        for name in names(self.directory)? {
            let is_payload = name.to_str().is_some_and(|name| name.starts_with("..") && name != CURRENT);
            let path = self.directory.join(&name);
            if is_payload && name != payload.as_os_str() {
                self.remove(&path)?;
            }
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        if !fs::symlink_metadata(path)?.is_dir() {
            return self.step(|| fs::remove_file(path));
        }
        names(path)?.iter().try_for_each(|name| self.remove(&path.join(name)))?;
        self.step(|| fs::remove_dir(path))
    }

    fn step<T>(&self, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        (self.before_each)()?;
        work()
    }
}

/// Whether a payload holds just these files.
fn holds(payload: &Path, files: &Files) -> bool {
    let is_same = |(path, file): (&String, &File)| {
        let path = payload.join(path);
        let mode = fs::metadata(&path).map(|metadata| metadata.permissions().mode() & 0o777);
        mode.is_ok_and(|mode| mode == file.mode)
            && fs::read(&path).is_ok_and(|content| content == file.content)
    };
    files.iter().all(is_same) && count(payload).is_ok_and(|number| number == files.len())
}

/// How many files lie below a directory.
fn count(directory: &Path) -> io::Result<usize> {
    let mut number = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        number += if entry.file_type()?.is_dir() { count(&entry.path())? } else { 1 };
    }
    Ok(number)
}

fn names(directory: &Path) -> io::Result<BTreeSet<OsString>> {
    fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name())).collect()
}

/// The first part of each path, once.
fn visible_names(files: &Files) -> BTreeSet<&str> {
    files.keys().map(|path| path.split_once('/').map_or(path.as_str(), |(name, _)| name)).collect()
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
