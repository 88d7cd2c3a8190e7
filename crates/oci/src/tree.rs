use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps, UTIME_OMIT, futimens, linkat,
    mkdirat, openat, openat2, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;

/// A directory in which paths are paths of an image: whatever links lie on the way, none leads out of it. The system
/// itself resolves them so (`openat2(2)`, `RESOLVE_IN_ROOT`).
#[derive(Debug)]
pub(crate) struct Tree {
    root: OwnedFd,
}

/// How deep directories may lie in each other. Whoever walks through a tree has one open for each level.
pub(crate) const MOST_LEVELS: usize = 128;
/// The most often that the system is asked anew when other renames disturb it.
const TRIES: usize = 64;

impl Tree {
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { root: openat(CWD, directory, flags, Mode::empty())? })
    }

    /// Makes a directory, or lets one be that is there; anything else of this path goes.
    pub(crate) fn put_directory(&self, path: &[String], mode: u32) -> io::Result<()> {
        let Some((name, parents)) = path.split_last() else { return Ok(()) };
        let parent = self.directory(parents)?;
        if !is_directory(&parent, name)? {
            remove(&parent, name)?;
            self.make_directory(&parent, name, mode | 0o700)?;
        }
        let path = through(&parent, name);
        fs::set_permissions(path, Permissions::from_mode(mode | 0o700))
    }

    /// Makes an empty file in the place of whatever has this path. It shares its bytes with none.
    pub(crate) fn create(&self, path: &[String], mode: u32) -> io::Result<File> {
        let (parent, name) = self.vacate(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(&parent, name, flags, Mode::from_raw_mode(mode | 0o600))?.into())
    }

    /// Makes a symbolic link in the place of whatever has this path. One that is absolute, or climbs higher than the
    /// root, is written as the same from where it lies: there is no `/` of its own for it in a container's directory.
    pub(crate) fn put_symbolic_link(&self, path: &[String], target: &str) -> io::Result<()> {
        let (parent, name) = self.vacate(path)?;
        let target = relative(target, self.depth(&parent)?);
        Ok(symlinkat(target.as_str(), &parent, name)?)
    }

    /// Makes another name for a file in the place of whatever has this path. A symbolic link is made anew: where it is
    /// written from the root down, that is another text in another directory.
    pub(crate) fn put_hard_link(&self, path: &[String], target: &[String]) -> io::Result<()> {
        let Some((target_name, target_parents)) = target.split_last() else {
            return Err(Errno::ISDIR.into());
        };
        let target_parent = self.resolve(target_parents)?;
        let found = statat(&target_parent, target_name.as_str(), AtFlags::SYMLINK_NOFOLLOW)?;
        if path == target {
            return Ok(());
        }
        if FileType::from_raw_mode(found.st_mode) == FileType::Symlink {
            let text = fs::read_link(through(&target_parent, target_name))?;
            let text = text.to_str().ok_or(Errno::ILSEQ)?;
            return self.put_symbolic_link(path, &absolute(text, self.depth(&target_parent)?));
        }
        let (parent, name) = self.vacate(path)?;
        Ok(linkat(&target_parent, target_name.as_str(), &parent, name, AtFlags::empty())?)
    }

    /// Removes whatever has this path, and all below it. That there is nothing is fine.
    pub(crate) fn remove(&self, path: &[String]) -> io::Result<()> {
        let Some((name, parents)) = path.split_last() else { return Err(Errno::INVAL.into()) };
        match self.resolve(parents) {
            Ok(parent) => remove(&parent, name),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The names in a directory; none when this path has no directory of its own.
    pub(crate) fn names(&self, path: &[String]) -> io::Result<Vec<String>> {
        let directory = match path.split_last() {
            None => through(&self.root, "."),
            Some((name, parents)) => match self.resolve(parents) {
                Ok(parent) if is_directory(&parent, name)? => return listed(&through(&parent, name)),
                Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Vec::new()),
                Err(error) => return Err(error.into()),
            },
        };
        listed(&directory)
    }

    /// The directory of this path; what is missing of it is made.
    fn directory(&self, path: &[String]) -> io::Result<OwnedFd> {
        match (self.resolve(path), path.split_last()) {
            (Err(Errno::NOENT), Some((name, parents))) => {
                let parent = self.directory(parents)?;
                self.make_directory(&parent, name, 0o755)?;
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                Ok(openat(&parent, name.as_str(), flags, Mode::empty())?)
            }
            (resolved, _) => Ok(resolved?),
        }
    }

    /// Makes a directory where there is none. Links could lead a path of any length ever deeper.
    fn make_directory(&self, parent: &OwnedFd, name: &str, mode: u32) -> io::Result<()> {
        if self.depth(parent)? >= MOST_LEVELS {
            return Err(Errno::NAMETOOLONG.into());
        }
        Ok(mkdirat(parent, name, Mode::from_raw_mode(mode))?)
    }

    fn resolve(&self, path: &[String]) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { ".".to_owned() } else { path.join("/") };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..TRIES {
            match openat2(&self.root, path.as_str(), flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN) => {}
                resolved => return resolved,
            }
        }
        Err(Errno::AGAIN)
    }

    /// The directory and name of a path of which nothing is left.
    fn vacate<'a>(&self, path: &'a [String]) -> io::Result<(OwnedFd, &'a str)> {
        let Some((name, parents)) = path.split_last() else { return Err(Errno::EXIST.into()) };
        let parent = self.directory(parents)?;
        remove(&parent, name)?;
        Ok((parent, name))
    }

    /// How many directories lie between the root and this one.
    fn depth(&self, directory: &OwnedFd) -> io::Result<usize> {
        let [root, here] = [&self.root, directory].map(|fd| fs::read_link(descriptor(fd)));
        let (root, here) = (root?, here?);
        Ok(here.components().count().saturating_sub(root.components().count()))
    }
}

/// Gives a file the time of its last change.
pub(crate) fn set_modified(file: &File, seconds: i64) -> io::Result<()> {
    let unchanged = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    let modified = Timespec { tv_sec: seconds, tv_nsec: 0 };
    Ok(futimens(file, &Timestamps { last_access: unchanged, last_modification: modified })?)
}

/// Whether an error of a tree is the fault of who asked: a file in the way of a directory, a link to nothing, a loop.
/// All others are the disk's.
pub(crate) fn is_of_the_asker(error: &io::Error) -> bool {
    let asked = [
        Errno::NOENT,
        Errno::EXIST,
        Errno::NOTDIR,
        Errno::ISDIR,
        Errno::LOOP,
        Errno::NAMETOOLONG,
        Errno::INVAL,
        Errno::PERM,
        Errno::MLINK,
    ];
    Errno::from_io_error(error).is_some_and(|error| asked.contains(&error))
}

fn is_directory(parent: &OwnedFd, name: &str) -> io::Result<bool> {
    match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) => Ok(FileType::from_raw_mode(found.st_mode) == FileType::Directory),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn listed(directory: &Path) -> io::Result<Vec<String>> {
    let names = fs::read_dir(directory)?;
    names.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

fn remove(parent: &OwnedFd, name: &str) -> io::Result<()> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => fs::remove_dir_all(through(parent, name)),
        Err(error) => Err(error.into()),
    }
}

/// The path to an open directory.
fn descriptor(directory: &OwnedFd) -> PathBuf {
    let fd: BorrowedFd<'_> = std::os::fd::AsFd::as_fd(directory);
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// The path to a name in an open directory: only the name is still looked up.
fn through(directory: &OwnedFd, name: &str) -> PathBuf {
    descriptor(directory).join(name)
}

/// `target` as a link that lies `depth` directories below the root has to be written.
fn relative(target: &str, depth: usize) -> String {
    let up = "../".repeat(depth);
    if let Some(rest) = target.strip_prefix('/') {
        let rest = rest.split('/').filter(|name| !matches!(*name, "" | ".")).skip_while(|name| *name == "..");
        let rest: Vec<&str> = rest.collect();
        let whole = format!("{up}{}", rest.join("/"));
        return if whole.is_empty() { ".".to_owned() } else { whole };
    }
    let names: Vec<&str> = target.split('/').collect();
    let climbs = names.iter().take_while(|name| matches!(**name, "" | "." | "..")).collect::<Vec<_>>();
    let height = climbs.iter().filter(|name| ***name == "..").count();
    if height <= depth {
        return target.to_owned();
    }
    let whole = format!("{up}{}", names[climbs.len()..].join("/"));
    if whole.is_empty() { ".".to_owned() } else { whole }
}

/// The text of a link that lies `depth` directories below the root, from the root down when it climbs as high.
fn absolute(text: &str, depth: usize) -> String {
    let climb = "../".repeat(depth);
    text.strip_prefix(&*climb).map_or_else(|| text.to_owned(), |rest| format!("/{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(path: &str) -> Vec<String> {
        path.split('/').filter(|name| !name.is_empty()).map(str::to_owned).collect()
    }

    #[test]
    fn links_are_written_from_where_they_lie() {
        for (target, depth, expected) in [
            ("x", 0, "x"),
            ("../x", 1, "../x"),
            ("../../x", 1, "../x"),
            ("../../../etc/passwd", 0, "etc/passwd"),
            ("./../../x/../y", 1, "../x/../y"),
            ("..", 0, "."),
            ("/", 0, "."),
            ("/", 2, "../../"),
            ("/a/b", 0, "a/b"),
            ("/a//./b", 2, "../../a/b"),
            ("/../../a", 1, "../a"),
        ] {
            assert_eq!(relative(target, depth), expected, "{target} at {depth}");
        }
    }

    #[test]
    fn another_name_of_a_link_leads_to_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::open(folder.path()).unwrap();
        tree.put_symbolic_link(&names("a/b/absolute"), "/c").unwrap();
        tree.put_symbolic_link(&names("a/relative"), "b/d").unwrap();
        for (path, target, expected) in [
            ("high", "a/b/absolute", "c"),
            ("a/b/c/low", "a/b/absolute", "../../../c"),
            ("a/b/absolute", "a/b/absolute", "../../c"),
            ("e/f/other", "a/relative", "b/d"),
        ] {
            tree.put_hard_link(&names(path), &names(target)).unwrap();
            assert_eq!(fs::read_link(folder.path().join(path)).unwrap(), Path::new(expected), "{path}");
        }
    }

    #[test]
    fn no_link_leads_out() {
        let outside = tempfile::tempdir().unwrap();
        let inside = outside.path().join("root");
        fs::create_dir(&inside).unwrap();
        // As an archive could never have them made.
        std::os::unix::fs::symlink(outside.path(), inside.join("absolute")).unwrap();
        std::os::unix::fs::symlink("../..", inside.join("up")).unwrap();
        let tree = Tree::open(&inside).unwrap();
        tree.create(&names("absolute/file"), 0o644).unwrap_err();
        tree.create(&names("up/file"), 0o644).unwrap();
        tree.put_directory(&names("up/directory"), 0o755).unwrap();
        tree.put_hard_link(&names("up/link"), &names("up/file")).unwrap();
        tree.remove(&names("up/root")).unwrap();
        assert!(inside.join("file").is_file() && inside.join("link").is_file());
        assert!(inside.join("directory").is_dir());
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_in_the_way_goes_but_what_it_leads_to_stays() {
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::open(folder.path()).unwrap();
        tree.create(&names("d/kept"), 0o644).unwrap();
        tree.put_symbolic_link(&names("l"), "d").unwrap();
        tree.create(&names("l/through"), 0o644).unwrap();
        tree.put_directory(&names("l"), 0o755).unwrap();
        assert_eq!(tree.names(&names("l")).unwrap(), Vec::<String>::new());
        tree.create(&names("d"), 0o644).unwrap();
        assert!(folder.path().join("d").is_file());
        let mut left = tree.names(&[]).unwrap();
        left.sort();
        assert_eq!(left, ["d", "l"]);
    }

    #[test]
    fn links_of_deep_directories_know_their_depth() {
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::open(folder.path()).unwrap();
        tree.put_symbolic_link(&names("a/b/absolute"), "/c").unwrap();
        assert_eq!(fs::read_link(folder.path().join("a/b/absolute")).unwrap(), Path::new("../../c"));
    }
}
