//! What is mounted in the node's directories, such as the files of images over the roots of containers.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

/// Takes away what is mounted at `path` or in it, the innermost first. Nothing of what was mounted is touched; what still
/// uses it goes on to.
pub(super) fn unmount_below(path: &Path) -> io::Result<()> {
    // Without it there is nothing to find out, and nothing was mounted by this node.
    let Ok(table) = fs::read("/proc/self/mountinfo") else { return Ok(()) };
    // The table knows no links.
    let Ok(path) = fs::canonicalize(path) else { return Ok(()) };
    for mounted in
        mount_points(&table).filter(|place| place.starts_with(&path)).collect::<Vec<_>>().iter().rev()
    {
        match unmount(mounted, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            // Another was faster.
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
            Err(error) => {
                let why = format!("{} cannot be unmounted: {error}", mounted.display());
                return Err(io::Error::new(io::Error::from(error).kind(), why));
            }
        }
    }
    Ok(())
}

/// The mount points of a table as `proc_pid_mountinfo(5)` describes it, in the order in which they were mounted.
fn mount_points(table: &[u8]) -> impl Iterator<Item = PathBuf> {
    let lines = table.split(|byte| *byte == b'\n');
    let points = lines.filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    points.map(|point| OsString::from_vec(unescaped(point)).into())
}

/// Blanks and the like are written as a backslash and three octal digits.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, behind)) = rest.split_first() {
        let digits = behind.get(..3).filter(|_| *first == b'\\');
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        plain.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &behind[3..] } else { behind };
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read() {
        let table = b"36 35 98:0 /mnt1 /mnt/a\\040b rw,noatime master:1 - ext3 /dev/root rw\n\
            37 36 0:5 / /mnt/\\134/x rw - overlay overlay rw\n\n";
        let points: Vec<_> = mount_points(table).collect();
        assert_eq!(points, [Path::new("/mnt/a b"), Path::new("/mnt/\\/x")]);
    }

    #[test]
    fn where_nothing_is_mounted_nothing_happens() {
        let folder = tempfile::tempdir().unwrap();
        unmount_below(folder.path()).unwrap();
        unmount_below(&folder.path().join("missing")).unwrap();
    }
}
