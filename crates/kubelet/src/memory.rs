use std::fs::{self, DirBuilder};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::statfs;
use thiserror::Error;

/// What `statfs(2)` says of a file system that lies in memory.
const TMPFS: i64 = 0x0102_1994;

/// There is nowhere to keep files in memory.
#[derive(Debug, Error)]
#[error("no file system in memory can be written to: none of /run, /run/user/<uid>, /dev/shm")]
pub(crate) struct NoMemory;

/// A directory in memory that only this node's user can enter, always the same one for the same root directory.
///
/// # Errors
/// When this machine has no file system in memory that this user can write to.
pub(crate) fn directory(root: &Path) -> Result<PathBuf, NoMemory> {
    let user = rustix::process::geteuid().as_raw();
    let candidates = ["/run".to_owned(), format!("/run/user/{user}"), "/dev/shm".to_owned()];
    let usable = |parent: &String| is_in_memory(Path::new(parent));
    let mut made = candidates.iter().filter(|parent| usable(parent)).filter_map(|parent| {
        let directory = Path::new(parent).join(name(root));
        claim(&directory, user).ok().map(|()| directory)
    });
    made.next().ok_or(NoMemory)
}

fn is_in_memory(directory: &Path) -> bool {
    #[expect(clippy::useless_conversion, reason = "the field is of another type on other machines")]
    statfs(directory).is_ok_and(|found| i64::try_from(found.f_type).is_ok_and(|kind| kind == TMPFS))
}

fn name(root: &Path) -> String {
    let root = fs::canonicalize(root).unwrap_or_else(|_| root.to_owned());
    let mut hasher = DefaultHasher::new();
    root.hash(&mut hasher);
    format!("coracle-{:016x}", hasher.finish())
}

/// Makes a directory that nobody else can enter. Where everybody can write, somebody else may have been there first.
fn claim(directory: &Path, user: u32) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(directory)?;
    let is_ours = found.is_dir() && found.uid() == user && found.mode() & 0o777 == 0o700;
    if is_ours { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn what_others_can_enter_is_not_used() {
        let root = tempfile::tempdir().unwrap();
        let user = rustix::process::geteuid().as_raw();
        let path = |name: &str| root.path().join(name);
        claim(&path("new"), user).unwrap();
        claim(&path("new"), user).unwrap();
        claim(&path("new"), user + 1).unwrap_err();
        fs::set_permissions(path("new"), fs::Permissions::from_mode(0o750)).unwrap();
        claim(&path("new"), user).unwrap_err();
        symlink("/", path("link")).unwrap();
        claim(&path("link"), user).unwrap_err();
        fs::write(path("file"), "").unwrap();
        claim(&path("file"), user).unwrap_err();
    }

    #[test]
    fn a_root_directory_has_a_name_of_its_own() {
        let roots = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        assert_eq!(name(roots[0].path()), name(&roots[0].path().join(".")));
        assert_ne!(name(roots[0].path()), name(roots[1].path()));
    }
}
