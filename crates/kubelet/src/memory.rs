use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock, statfs};
use thiserror::Error;
use tracing::{info, warn};

use crate::tree;

/// What `statfs(2)` says of a file system that lies in memory.
const TMPFS: i64 = 0x0102_1994;
/// How the names of nodes' directories begin, and how those of their locks end.
const PREFIX: &str = "coracle-";
const LOCK: &str = "lock";

/// There is nowhere to keep files in memory.
#[derive(Debug, Error)]
#[error("no file system in memory can be written to: none of /run, /run/user/<uid>, /dev/shm")]
pub(crate) struct NoMemory;

/// Directories in memory. They stay when the node ends, for the next one with the same root directory; a node that ends
/// for good leaves them to any other node of its user.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) directory: PathBuf,
    /// One on another file system, where this machine has one: who fills it takes no room from the first.
    pub(crate) scratch: Option<PathBuf>,
    /// Held while the node lives.
    _locks: Vec<File>,
}

impl Memory {
    /// Directories in memory that only this node's user can enter, always the same ones for the same root directory. What
    /// nodes left that live no more is removed.
    ///
    /// # Errors
    /// When this machine has no file system in memory that this user can write to.
    pub(crate) fn claim(root: &Path) -> Result<Self, NoMemory> {
        let user = rustix::process::geteuid().as_raw();
        let candidates = ["/run".to_owned(), format!("/run/user/{user}"), "/dev/shm".to_owned()];
        let usable: Vec<_> = candidates.iter().map(Path::new).filter(|parent| is_in_memory(parent)).collect();
        let made: Vec<_> =
            usable.iter().filter_map(|parent| Claimed::make(&parent.join(name(root)), user).ok()).collect();
        for taken in made.iter().filter(|made| made.lock.is_none()) {
            warn!(directory = %taken.directory.display(), "another process has this node's directory in memory");
        }
        for parent in usable {
            collect(parent, user);
        }
        Self::of(made)
    }

    fn of(made: Vec<Claimed>) -> Result<Self, NoMemory> {
        let first = made.first().ok_or(NoMemory)?;
        let directory = first.directory.clone();
        let other = made.iter().find(|other| other.device != first.device);
        let scratch = other.map(|other| other.directory.clone());
        Ok(Self { directory, scratch, _locks: made.into_iter().filter_map(|made| made.lock).collect() })
    }
}

/// One directory.
#[derive(Debug)]
struct Claimed {
    directory: PathBuf,
    /// The file system that it lies on.
    device: u64,
    /// `None` where another process holds it, such as the node before, which is about to end.
    lock: Option<File>,
}

impl Claimed {
    fn make(directory: &Path, user: u32) -> io::Result<Self> {
        // Before the directory, so that nobody takes it for one that was left.
        let lock = lock(&lock_file(directory))?;
        claim(directory, user)?;
        let device = fs::metadata(directory)?.dev();
        Ok(Self { directory: directory.to_owned(), device, lock })
    }
}

fn lock_file(directory: &Path) -> PathBuf {
    directory.with_extension(LOCK)
}

/// The lock of a directory, made when there is none; `None` while another process holds it.
fn lock(path: &Path) -> io::Result<Option<File>> {
    loop {
        let flags = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default();
        let mut options = OpenOptions::new();
        let file =
            options.write(true).create(true).truncate(false).mode(0o600).custom_flags(flags).open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            locked => locked?,
        }
        // Who collects what was left removes the file while holding its lock.
        let inode = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        if fs::symlink_metadata(path).map(inode).ok() == Some(inode(file.metadata()?)) {
            return Ok(Some(file));
        }
    }
}

/// Removes the directories whose nodes live no more.
fn collect(parent: &Path, user: u32) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_lock = entry.file_name().to_str().is_some_and(is_name_of_lock);
        let is_ours = entry.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.uid() == user);
        if is_lock && is_ours {
            match collect_one(&path) {
                Ok(true) => info!(path = %path.display(), "what a node left in memory is removed"),
                Ok(false) => {}
                Err(error) => warn!(path = %path.display(), %error, "what a node left in memory stays"),
            }
        }
    }
}

/// Whether there was something to remove. The lock is removed last.
fn collect_one(path: &Path) -> io::Result<bool> {
    let Some(_held) = lock(path)? else { return Ok(false) };
    // Programs may have made any tree there.
    tree::remove(&path.with_extension(""))?;
    fs::remove_file(path).map(|()| true)
}

fn is_name_of_lock(name: &str) -> bool {
    let digits = name.strip_prefix(PREFIX).and_then(|name| name.strip_suffix(&format!(".{LOCK}")));
    digits.is_some_and(|digits| digits.len() == 16 && digits.chars().all(|digit| digit.is_ascii_hexdigit()))
}

fn is_in_memory(directory: &Path) -> bool {
    #[expect(clippy::useless_conversion, reason = "the field is of another type on other machines")]
    statfs(directory).is_ok_and(|found| i64::try_from(found.f_type).is_ok_and(|kind| kind == TMPFS))
}

fn name(root: &Path) -> String {
    let root = fs::canonicalize(root).unwrap_or_else(|_| root.to_owned());
    let mut hasher = DefaultHasher::new();
    root.hash(&mut hasher);
    format!("{PREFIX}{:016x}", hasher.finish())
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
    fn what_dead_nodes_left_is_removed_and_what_living_ones_have_is_not() {
        let parent = tempfile::tempdir().unwrap();
        let user = rustix::process::geteuid().as_raw();
        let path = |number: u8| parent.path().join(format!("coracle-{number:016x}"));
        let alive = Claimed::make(&path(1), user).unwrap();
        drop(Claimed::make(&path(2), user).unwrap());
        fs::create_dir_all(path(2).join("uid/token")).unwrap();
        fs::create_dir_all(path(3)).unwrap();
        for name in ["other.lock", "coracle-x.lock"] {
            fs::write(parent.path().join(name), "").unwrap();
        }
        collect(parent.path(), user);
        let left = |number: u8| path(number).exists();
        assert_eq!([left(1), left(2), left(3)], [true, false, true], "what has no lock may be anybody's");
        assert!(!lock_file(&path(2)).exists() && lock_file(&path(1)).exists());
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 5);
        drop(alive);
        collect(parent.path(), user + 1);
        assert!(left(1), "that of another user");
        collect(parent.path(), user);
        assert!(!left(1));
    }

    #[test]
    fn a_node_shares_its_directory_with_the_one_before_and_locks_it() {
        let parent = tempfile::tempdir().unwrap();
        let user = rustix::process::geteuid().as_raw();
        let directory = parent.path().join("coracle-0123456789abcdef");
        let before = Claimed::make(&directory, user).unwrap();
        assert!(Claimed::make(&directory, user).unwrap().lock.is_none());
        drop(before);
        assert!(Claimed::make(&directory, user).unwrap().lock.is_some());
    }

    #[test]
    fn what_programs_may_fill_lies_elsewhere_or_nowhere_in_memory() {
        let claimed = |name: &str, device| Claimed { directory: name.into(), device, lock: None };
        let made =
            Memory::of(vec![claimed("/run/a", 1), claimed("/run/user/a", 1), claimed("/dev/shm/a", 2)]);
        let made = made.unwrap();
        assert_eq!((made.directory, made.scratch), ("/run/a".into(), Some("/dev/shm/a".into())));
        assert_eq!(Memory::of(vec![claimed("/dev/shm/a", 2)]).unwrap().scratch, None);
        Memory::of(Vec::new()).unwrap_err();
    }

    #[test]
    fn a_root_directory_has_a_name_of_its_own() {
        let roots = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        assert_eq!(name(roots[0].path()), name(&roots[0].path().join(".")));
        assert_ne!(name(roots[0].path()), name(roots[1].path()));
    }
}
