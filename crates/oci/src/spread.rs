//! How files of the store come to be in another directory.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// How the files in one directory are made files in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// As further names of the same files: who gets them must never write to them.
    Link,
    /// As files of their own that share their blocks until one of them is written to.
    Reflink,
    /// As files of their own.
    Copy,
}

/// How the containers of an image come to its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// By a mount that keeps each container's changes apart.
    Overlay,
    /// File by file.
    Files(Way),
}

impl Sharing {
    /// The best way that `directory`, which is empty, and the rights of this process allow.
    pub(crate) fn find(directory: &Path) -> io::Result<Self> {
        for name in ["from", "to"] {
            fs::create_dir(directory.join(name))?;
        }
        let (from, to) = (directory.join("from"), directory.join("to"));
        fs::write(from.join("file"), b"shared")?;
        if overlay(&from, &to).is_ok() {
            unmount(&to, UnmountFlags::DETACH)?;
            return Ok(Self::Overlay);
        }
        let cloned = clone(&from.join("file"), &to.join("file"));
        Ok(Self::Files(if cloned.is_ok() { Way::Reflink } else { Way::Copy }))
    }

    /// Undoes what [`Self::find`] may have left mounted in `directory` when its process was killed.
    pub(crate) fn end_trial(directory: &Path) -> io::Result<()> {
        match unmount(directory.join("to"), UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            // It is no mount, is not there, or this process could not have made it.
            Ok(()) | Err(Errno::INVAL | Errno::NOENT | Errno::NOTDIR | Errno::PERM) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// What it is, in words.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Overlay => "overlay mounts",
            Self::Files(Way::Reflink) => "reflinks",
            Self::Files(Way::Link | Way::Copy) => "copies",
        }
    }

    /// Gives `to`, which is empty, the files of `from`, in a way that neither sees the other's changes.
    pub(crate) fn give(self, from: &Path, to: &Path) -> io::Result<()> {
        match self {
            Self::Overlay => overlay(from, to),
            Self::Files(way) => spread(from, to, way),
        }
    }
}

/// Mounts `from` over `to`. What is changed lies beside `to`, and goes with it.
fn overlay(from: &Path, to: &Path) -> io::Result<()> {
    let beside = |what: &str| {
        let mut name = to.as_os_str().to_owned();
        name.push(what);
        fs::create_dir(&name).and_then(|()| File::open(&name))
    };
    let directories = [File::open(from)?, beside(".changes")?, beside(".work")?];
    // The directories by descriptor: a path could have any length, and characters that have a meaning here.
    let [lower, upper, work] =
        directories.each_ref().map(|file| format!("/proc/self/fd/{}", file.as_raw_fd()));
    let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
    // Nobody waits for the changes of a container to be on disk; older kernels do not know how to be told.
    let tries = [format!("{options},volatile"), options];
    let mut result = Ok(());
    for options in tries {
        let options = std::ffi::CString::new(options)?;
        let flags = MountFlags::NODEV | MountFlags::NOSUID;
        result = mount("overlay", to, "overlay", flags, options.as_c_str());
        if result != Err(Errno::INVAL) {
            break;
        }
    }
    Ok(result?)
}

/// Makes all that is in `from` in `to` too. Both are directories, and nobody changes the former.
pub(crate) fn spread(from: &Path, to: &Path, way: Way) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target, kind) = (entry.path(), to.join(entry.file_name()), entry.file_type()?);
        if kind.is_dir() {
            fs::create_dir(&target)?;
            spread(&source, &target, way)?;
            fs::set_permissions(&target, source.metadata()?.permissions())?;
        } else if kind.is_symlink() {
            symlink(fs::read_link(&source)?, &target)?;
        } else {
            match way {
                Way::Link => link(&source, &target)?,
                Way::Reflink => clone(&source, &target)?,
                Way::Copy => copy(&source, &target)?,
            }
        }
    }
    Ok(())
}

fn link(source: &Path, target: &Path) -> io::Result<()> {
    match fs::hard_link(source, target) {
        // A file has only so many names.
        Err(error) if Errno::from_io_error(&error) == Some(Errno::MLINK) => copy(source, target),
        result => result,
    }
}

fn clone(source: &Path, target: &Path) -> io::Result<()> {
    let source = File::open(source)?;
    let metadata = source.metadata()?;
    let target = OpenOptions::new().write(true).create_new(true).mode(0o600).open(target)?;
    rustix::fs::ioctl_ficlone(&target, &source)?;
    like(&target, &metadata)
}

fn copy(source: &Path, target: &Path) -> io::Result<()> {
    fs::copy(source, target)?;
    like(&File::open(target)?, &source.metadata()?)
}

fn like(target: &File, metadata: &fs::Metadata) -> io::Result<()> {
    target.set_permissions(metadata.permissions())?;
    target.set_modified(metadata.modified()?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    fn sample() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let from = folder.path().join("image");
        fs::create_dir_all(from.join("deep/er")).unwrap();
        fs::create_dir(folder.path().join("root")).unwrap();
        fs::write(from.join("deep/file"), b"content").unwrap();
        fs::set_permissions(from.join("deep/file"), fs::Permissions::from_mode(0o751)).unwrap();
        symlink("deep/file", from.join("link")).unwrap();
        folder
    }

    fn check(sharing: Sharing) {
        let folder = sample();
        let (from, to) = (folder.path().join("image"), folder.path().join("root"));
        sharing.give(&from, &to).unwrap();
        assert_eq!(fs::read(to.join("link")).unwrap(), b"content");
        assert!(to.join("deep/er").is_dir());
        let [one, other] = [&from, &to].map(|root| fs::metadata(root.join("deep/file")).unwrap());
        assert_eq!((one.mode(), one.mtime()), (other.mode(), other.mtime()));
        fs::write(to.join("deep/file"), b"changed").unwrap();
        fs::remove_file(to.join("link")).unwrap();
        assert_eq!(fs::read(from.join("link")).unwrap(), b"content");
        if sharing == Sharing::Overlay {
            unmount(&to, UnmountFlags::DETACH).unwrap();
        }
    }

    #[test]
    fn who_gets_files_changes_none_but_its_own() {
        check(Sharing::Files(Way::Copy));
        let folder = tempfile::tempdir().unwrap();
        // Whatever this machine has; the other ways are refused by it.
        check(Sharing::find(folder.path()).unwrap());
    }

    #[test]
    fn a_trial_that_was_killed_can_be_undone() {
        let folder = sample();
        Sharing::end_trial(folder.path()).unwrap();
        let (from, to) = (folder.path().join("image"), folder.path().join("to"));
        fs::create_dir(&to).unwrap();
        // Where this machine mounts nothing there is nothing to undo.
        let _ = overlay(&from, &to);
        Sharing::end_trial(folder.path()).unwrap();
        assert_eq!(fs::read_dir(to).unwrap().count(), 0);
    }

    #[test]
    fn links_are_the_same_files() {
        let folder = sample();
        let (from, to) = (folder.path().join("image"), folder.path().join("root"));
        spread(&from, &to, Way::Link).unwrap();
        let [one, other] = [&from, &to].map(|root| fs::metadata(root.join("deep/file")).unwrap().ino());
        assert_eq!(one, other);
    }
}
