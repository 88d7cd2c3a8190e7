//! Trees of files that programs made: as deep, wide and linked as they like. Whatever they are, walking one takes a bounded
//! number of descriptors and a bounded amount of memory, and goes by no link.

use std::collections::HashSet;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, RawMode, RenameFlags, Statx, StatxAttributes, StatxFlags,
    openat, renameat_with, statx, unlinkat,
};
use rustix::io::Errno;

/// How many directories are open at a time.
const DEEPEST: usize = 200;
/// Of so many files with several names it is remembered that they were counted.
const MOST_LINKED: usize = 1 << 17;
/// What a file counts by: see `statx(2)`.
const BLOCK: u64 = 512;

/// The bytes that all below a directory takes up, as `du` counts; what vanishes meanwhile takes up nothing, and what is
/// mounted there is somebody else's. `u64::MAX` for a tree that is deeper than any that is made in earnest.
///
/// # Errors
/// When it is no directory that can be read.
pub(crate) fn used(directory: &Path) -> io::Result<u64> {
    let (mut used, mut seen) = (0_u64, HashSet::new());
    let mut open = vec![Dir::new(open_directory(CWD, directory)?)?];
    while let Some(directory) = open.last_mut() {
        let Some(name) = next(directory) else {
            open.pop();
            continue;
        };
        let Some(found) = directory.fd().ok().and_then(|above| look(above, &name)) else { continue };
        used = used.saturating_add(if is_first(&found, &mut seen) { found.stx_blocks * BLOCK } else { 0 });
        if is_directory(&found) && open.len() == DEEPEST {
            return Ok(u64::MAX);
        }
        if is_directory(&found) {
            open.extend(open.last().and_then(|above| enter(above, &name).ok()));
        }
    }
    Ok(used)
}

/// Removes a tree. That it does not exist is fine.
///
/// # Errors
/// When something of it cannot be removed, such as a mount; the rest may be gone.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    if !found.is_dir() {
        return fs::remove_file(path);
    }
    loop {
        let removed = empty(path)?;
        match fs::remove_dir(path) {
            // What was too deep lies there now.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty && removed > 0 => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            removed => return removed,
        }
    }
}

/// Removes all in a directory but what lies too deep, which it brings to the top. Gives how many entries went from where
/// they were.
fn empty(path: &Path) -> io::Result<u64> {
    let top = open_directory(CWD, path)?;
    let (mut open, mut names) = (vec![Dir::new(open_directory(&top, c".")?)?], Vec::<CString>::new());
    let mut removed = 0;
    loop {
        let depth = open.len();
        let Some(directory) = open.last_mut() else { return Ok(removed) };
        let Some(name) = next(directory) else {
            open.pop();
            if let (Some(above), Some(name)) = (open.last_mut(), names.pop()) {
                removed += u64::from(close(above, &name)?);
            }
            continue;
        };
        match unlinkat(directory.fd()?, &name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => removed += 1,
            // Linux says the former of a directory, POSIX the latter.
            Err(Errno::ISDIR | Errno::PERM) if depth == DEEPEST => {
                bring_up(directory, &name, &top)?;
                removed += 1;
            }
            Err(Errno::ISDIR | Errno::PERM) => {
                let below = enter(directory, &name)?;
                open.push(below);
                names.push(name);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Removes a directory all of whose entries were seen. Where a file system has hidden some of them, because others went
/// meanwhile, it stays, and the next turn sees them.
fn close(above: &mut Dir, name: &CString) -> io::Result<bool> {
    match unlinkat(above.fd()?, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::NOTEMPTY) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn bring_up(directory: &Dir, name: &CString, top: &OwnedFd) -> io::Result<()> {
    for number in 0_u64.. {
        match renameat_with(directory.fd()?, name, top, format!("{number}"), RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            moved => return Ok(moved?),
        }
    }
    Ok(())
}

/// The next entry but the directory itself and the one above it.
fn next(directory: &mut Dir) -> Option<CString> {
    loop {
        let entry = directory.read()?.ok()?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            return Some(entry.file_name().to_owned());
        }
    }
}

fn enter(above: &Dir, name: &CString) -> io::Result<Dir> {
    Ok(Dir::new(open_directory(above.fd()?, name.as_c_str())?)?)
}

fn open_directory(above: impl AsFd, name: impl rustix::path::Arg) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(above, name, flags, Mode::empty())?)
}

/// What an entry is, where it is no mount.
fn look(above: impl AsFd, name: &CString) -> Option<Statx> {
    let wanted = StatxFlags::TYPE | StatxFlags::NLINK | StatxFlags::INO | StatxFlags::BLOCKS;
    let found = statx(above, name, AtFlags::SYMLINK_NOFOLLOW, wanted).ok()?;
    (!found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)).then_some(found)
}

fn is_directory(found: &Statx) -> bool {
    FileType::from_raw_mode(RawMode::from(found.stx_mode)) == FileType::Directory
}

/// Whether a file is met under the first of its names.
fn is_first(found: &Statx, seen: &mut HashSet<(u32, u32, u64)>) -> bool {
    let is_single = found.stx_nlink == 1 || is_directory(found) || seen.len() == MOST_LINKED;
    is_single || seen.insert((found.stx_dev_major, found.stx_dev_minor, found.stx_ino))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_is_below_counts_once_and_what_links_lead_to_does_not() {
        let scene = tempfile::tempdir().unwrap();
        let volume = scene.path().join("v");
        fs::create_dir_all(volume.join("deep/er")).unwrap();
        fs::write(scene.path().join("outside"), vec![1; 1 << 20]).unwrap();
        symlink("../outside", volume.join("link")).unwrap();
        symlink("..", volume.join("up")).unwrap();
        symlink(".", volume.join("deep/round")).unwrap();
        let before = used(&volume).unwrap();
        assert!(before < 1 << 16, "{before}");
        fs::write(volume.join("deep/er/file"), vec![1; 1 << 20]).unwrap();
        fs::hard_link(volume.join("deep/er/file"), volume.join("again")).unwrap();
        let after = used(&volume).unwrap();
        assert!((1 << 20..(1 << 20) + (1 << 16) + before).contains(&after), "{after}");
    }

    /// As a guest makes it: no path that it ever names is long.
    fn nest(directory: &Path, levels: usize) {
        let path = |name: &str| directory.join(name);
        fs::create_dir(path("nest")).unwrap();
        fs::write(path("nest/file"), "x").unwrap();
        for _ in 0..levels {
            fs::rename(path("nest"), path("before")).unwrap();
            fs::create_dir(path("nest")).unwrap();
            fs::rename(path("before"), path("nest/d")).unwrap();
        }
    }

    #[test]
    fn a_tree_of_any_depth_is_counted_as_too_much_and_removed() {
        let scene = tempfile::tempdir().unwrap();
        let tree = scene.path().join("tree");
        for levels in [DEEPEST - 2, DEEPEST - 1, DEEPEST, 10_000] {
            fs::create_dir(&tree).unwrap();
            nest(&tree, levels);
            assert_eq!(used(&tree).unwrap() == u64::MAX, levels >= DEEPEST - 1, "{levels}");
            remove(&tree).unwrap();
            assert!(!tree.exists(), "{levels}");
        }
    }

    #[test]
    fn what_links_lead_to_stays() {
        let scene = tempfile::tempdir().unwrap();
        let path = |name: &str| scene.path().join(name);
        fs::create_dir_all(path("tree/deep")).unwrap();
        fs::create_dir(path("outside")).unwrap();
        fs::write(path("outside/file"), "x").unwrap();
        symlink("../../outside", path("tree/deep/link")).unwrap();
        symlink("tree", path("link")).unwrap();
        remove(&path("link")).unwrap();
        assert!(path("tree").exists());
        remove(&path("tree")).unwrap();
        remove(&path("tree")).unwrap();
        assert!(path("outside/file").exists() && !path("tree").exists());
    }

    /// More names than one call of the system's gives, some of which go while others are read.
    #[test]
    fn a_wide_tree_is_counted_and_removed() {
        let scene = tempfile::tempdir().unwrap();
        let tree = scene.path().join("tree");
        fs::create_dir(&tree).unwrap();
        (0..5_000).for_each(|number| fs::write(tree.join(format!("{number:0>100}")), "x").unwrap());
        assert!(used(&tree).unwrap() >= 5_000 * 512);
        remove(&tree).unwrap();
        assert!(!tree.exists());
    }
}
