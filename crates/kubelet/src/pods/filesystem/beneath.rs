use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, fstat, linkat, makedev, mkdirat, mknodat, open,
    openat, openat2, unlinkat,
};
use rustix::mount::{
    MountFlags, MountPropagationFlags, mount_bind, mount_bind_recursive, mount_change, mount_remount,
};

/// A directory that somebody else may write to while this node works in it: whatever links are there, no path leads out
/// of it.
pub(in crate::pods) struct Beneath {
    directory: OwnedFd,
    links: ResolveFlags,
}

const FIND: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

impl Beneath {
    /// A volume, at a path without links: one that leads out of it is an error.
    pub(in crate::pods) fn volume(path: &Path) -> io::Result<Self> {
        Self::new(path, ResolveFlags::BENEATH)
    }

    /// The root of a container, at a path without links, which is to its links what `/` is to the container.
    pub(super) fn root(path: &Path) -> io::Result<Self> {
        Self::new(path, ResolveFlags::IN_ROOT)
    }

    fn new(path: &Path, links: ResolveFlags) -> io::Result<Self> {
        // Who writes to a volume may have put a link in the place of the part that is mounted.
        let directory =
            openat2(CWD, path, FIND | OFlags::DIRECTORY, Mode::empty(), ResolveFlags::NO_SYMLINKS)?;
        Ok(Self { directory, links: links | ResolveFlags::NO_MAGICLINKS })
    }

    /// What is at a path, which is not opened: it may be anything.
    pub(in crate::pods) fn find(&self, path: &Path) -> io::Result<Found> {
        self.open(path, FIND, Mode::empty()).map(Found)
    }

    /// A file to be read. What is something else is not opened.
    pub(super) fn open_file(&self, path: &Path) -> io::Result<File> {
        if self.find(path)?.kind()? != FileType::RegularFile {
            return Err(io::Error::new(ErrorKind::InvalidInput, "it is no file"));
        }
        // What has become a pipe meanwhile is not waited for.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        Ok(self.open(path, flags, Mode::empty())?.into())
    }

    /// What a file holds, up to `limit` bytes of it.
    pub(in crate::pods) fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        self.open_file(path)?.take(limit).read_to_end(&mut content)?;
        Ok(content)
    }

    /// Makes a directory and those above it; that they are there is fine.
    pub(in crate::pods) fn make_directory(&self, path: &Path, mode: u32) -> io::Result<()> {
        self.made_directory(path, mode).map(drop)
    }

    /// Whether there is a directory at a path.
    ///
    /// # Errors
    /// `NotADirectory` where there is something else.
    pub(super) fn find_directory(&self, path: &Path) -> io::Result<()> {
        self.directory(path).map(drop)
    }

    fn made_directory(&self, path: &Path, mode: u32) -> io::Result<OwnedFd> {
        match self.directory(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            found => return found,
        }
        let mut reached = PathBuf::new();
        let mut above = self.directory(&reached)?;
        for name in names(path)? {
            reached.push(name);
            above = match self.directory(&reached) {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    match mkdirat(&above, name, Mode::from_raw_mode(mode)) {
                        Ok(()) | Err(rustix::io::Errno::EXIST) => self.directory(&reached)?,
                        Err(error) => return Err(error.into()),
                    }
                }
                found => found?,
            }
        }
        Ok(above)
    }

    /// Writes a file in place of what is there, and the directories above it.
    pub(super) fn write(&self, path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
        let (above, name) = self.make_room(path)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        File::from(openat(above, name, flags, Mode::from_raw_mode(mode))?).write_all(content)
    }

    /// Makes an empty file and the directories above it; that it is there is fine.
    pub(in crate::pods) fn create(&self, path: &Path, mode: u32) -> io::Result<File> {
        let (above, name) = self.parent(path)?;
        let flags = OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::WRONLY | OFlags::CLOEXEC;
        Ok(File::from(openat(above, name, flags, Mode::from_raw_mode(mode))?))
    }

    /// Copies a file to a path, in place of what is there.
    pub(super) fn copy(&self, file: &Found, path: &Path, mode: u32) -> io::Result<()> {
        let mut source = File::open(file.magic_link())?;
        self.write(path, b"", 0o600)?;
        let mut target = self.create(path, 0o600)?;
        io::copy(&mut source, &mut target)?;
        target.set_permissions(Permissions::from_mode(mode))
    }

    /// Gives a file one more name, in place of what is there.
    pub(super) fn link(&self, file: &Found, path: &Path) -> io::Result<()> {
        let (above, name) = self.make_room(path)?;
        let source = file.magic_link();
        Ok(linkat(CWD, source, above, name, AtFlags::SYMLINK_FOLLOW)?)
    }

    /// Mounts a file at a path, in place of what is there: later changes of it are seen, whatever file system it is on.
    ///
    /// # Errors
    /// `PermissionDenied` when this process may not mount.
    pub(super) fn bind(&self, file: &Found, path: &Path, read_only: bool) -> io::Result<()> {
        self.write(path, b"", 0o600)?;
        self.bind_over(file, path, read_only)
    }

    /// Mounts a file over one that is there.
    ///
    /// # Errors
    /// `PermissionDenied` when this process may not mount.
    pub(super) fn bind_over(&self, file: &Found, path: &Path, read_only: bool) -> io::Result<()> {
        mount_bind(file.magic_link(), self.find_itself(path)?.magic_link())?;
        if read_only {
            // Now what is mounted is found there, and not what lies under it.
            mount_remount(self.find_itself(path)?.magic_link(), MountFlags::BIND | MountFlags::RDONLY, "")?;
        }
        Ok(())
    }

    /// Mounts this directory at another one, with what is mounted in it when `with_mounts`. What is mounted there then is
    /// seen nowhere else.
    ///
    /// # Errors
    /// `PermissionDenied` when this process may not mount.
    pub(super) fn show(&self, at: &Path, with_mounts: bool) -> io::Result<()> {
        let own = format!("/proc/self/fd/{}", self.directory.as_raw_fd());
        if with_mounts {
            mount_bind_recursive(own, at)?;
        } else {
            mount_bind(own, at)?;
        }
        Ok(mount_change(at, MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?)
    }

    /// What is at a path, a link itself and not what it leads to.
    pub(super) fn find_itself(&self, path: &Path) -> io::Result<Found> {
        self.open(path, FIND | OFlags::NOFOLLOW, Mode::empty()).map(Found)
    }

    /// Makes a character device that can be opened, where there is nothing.
    pub(super) fn make_device(&self, path: &Path, major: u32, minor: u32) -> io::Result<()> {
        let (above, name) = self.parent(path)?;
        let mode = Mode::from_raw_mode(0o666);
        mknodat(&above, name, FileType::CharacterDevice, mode, makedev(major, minor))?;
        // A file system may hold devices and not let anybody use them.
        let opened = self.open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty());
        if opened.is_err() {
            unlinkat(above, name, AtFlags::empty())?;
        }
        opened.map(drop)
    }

    fn make_room<'p>(&self, path: &'p Path) -> io::Result<(OwnedFd, &'p OsStr)> {
        let (above, name) = self.parent(path)?;
        match unlinkat(&above, name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok((above, name)),
            Err(error) => Err(error.into()),
        }
    }

    /// The directory that a path lies in, made when it is not there, and the name in it.
    fn parent<'p>(&self, path: &'p Path) -> io::Result<(OwnedFd, &'p OsStr)> {
        let name = path.file_name().ok_or(ErrorKind::InvalidInput)?;
        Ok((self.made_directory(path.parent().unwrap_or(Path::new("")), 0o755)?, name))
    }

    fn directory(&self, path: &Path) -> io::Result<OwnedFd> {
        self.open(path, FIND | OFlags::DIRECTORY, Mode::empty())
    }

    fn open(&self, path: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        loop {
            match openat2(&self.directory, path, flags, mode, self.links) {
                // Somebody renamed a directory meanwhile.
                Err(rustix::io::Errno::AGAIN) => {}
                opened => return Ok(opened?),
            }
        }
    }
}

/// The names that a relative path is made of.
fn names(path: &Path) -> io::Result<Vec<&OsStr>> {
    let name = |component: Component<'_>| match component {
        Component::Normal(_) => Ok(()),
        _ => Err(io::Error::from(ErrorKind::InvalidInput)),
    };
    path.components().try_for_each(name)?;
    Ok(path.iter().collect())
}

/// Something that was found, and stays what it is.
pub(in crate::pods) struct Found(OwnedFd);

impl Found {
    /// What is at a path of this node's own.
    pub(super) fn at(path: &Path) -> io::Result<Self> {
        Ok(Self(open(path, FIND, Mode::empty())?))
    }

    pub(in crate::pods) fn kind(&self) -> io::Result<FileType> {
        Ok(FileType::from_raw_mode(fstat(&self.0)?.st_mode))
    }

    /// Where it lies: a path without links.
    pub(in crate::pods) fn path(&self) -> io::Result<PathBuf> {
        fs::read_link(self.magic_link())
    }

    fn magic_link(&self) -> String {
        format!("/proc/self/fd/{}", self.0.as_raw_fd())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_directory_is_found_by_no_link() {
        let scene = scene();
        assert!(Beneath::volume(&scene.path().join("in/inside")).is_err());
        assert!(Beneath::root(&scene.path().join("in/up")).is_err());
    }

    fn scene() -> tempfile::TempDir {
        let scene = tempfile::tempdir().unwrap();
        let path = |name: &str| scene.path().join(name);
        fs::create_dir_all(path("in/deep")).unwrap();
        fs::create_dir_all(path("out")).unwrap();
        fs::write(path("out/secret"), "secret").unwrap();
        fs::write(path("in/deep/file"), "own").unwrap();
        symlink("../out", path("in/up")).unwrap();
        symlink(path("out"), path("in/absolute")).unwrap();
        symlink("/deep", path("in/of-root")).unwrap();
        symlink("deep", path("in/inside")).unwrap();
        scene
    }

    #[test]
    fn no_link_leads_out_of_a_volume() {
        let scene = scene();
        let volume = Beneath::volume(&scene.path().join("in")).unwrap();
        for path in ["up/secret", "absolute/secret", "../out/secret", "of-root/file", "deep/../../out/secret"]
        {
            assert!(volume.read(Path::new(path), 10).is_err(), "{path}");
            assert!(volume.find(Path::new(path)).is_err(), "{path}");
        }
        for path in ["up/new", "absolute/new", "../new", "up/deep/new"] {
            volume.write(Path::new(path), b"x", 0o644).unwrap_err();
            volume.make_directory(Path::new(path), 0o755).unwrap_err();
        }
        assert_eq!(volume.read(Path::new("inside/file"), 2).unwrap(), b"ow");
        assert_eq!(fs::read_dir(scene.path().join("out")).unwrap().count(), 1);
    }

    #[test]
    fn links_of_a_root_stay_in_it() {
        let scene = scene();
        let root = Beneath::root(&scene.path().join("in")).unwrap();
        assert_eq!(root.read(Path::new("of-root/file"), 10).unwrap(), b"own");
        root.write(Path::new("of-root/new/file"), b"x", 0o644).unwrap();
        assert_eq!(fs::read(scene.path().join("in/deep/new/file")).unwrap(), b"x");
        for path in ["up/secret", "absolute/secret"] {
            assert!(root.read(Path::new(path), 10).is_err(), "{path}");
        }
    }

    #[test]
    fn a_file_takes_the_place_of_a_link_and_not_of_what_it_leads_to() {
        let scene = scene();
        let volume = Beneath::volume(&scene.path().join("in")).unwrap();
        volume.write(Path::new("up"), b"x", 0o644).unwrap();
        assert_eq!(fs::read(scene.path().join("in/up")).unwrap(), b"x");
        let file = volume.find(Path::new("deep/file")).unwrap();
        volume.link(&file, Path::new("absolute")).unwrap();
        fs::write(scene.path().join("in/absolute"), "changed").unwrap();
        assert_eq!(fs::read(scene.path().join("in/deep/file")).unwrap(), b"changed");
        assert_eq!(file.path().unwrap(), fs::canonicalize(scene.path().join("in/deep/file")).unwrap());
        assert_eq!(fs::read(scene.path().join("out/secret")).unwrap(), b"secret");
    }

    #[test]
    fn what_is_no_file_is_not_read() {
        let scene = scene();
        let path = scene.path().join("in/pipe");
        let mode = Mode::from_raw_mode(0o600);
        mknodat(CWD, &path, FileType::Fifo, mode, 0).unwrap();
        let volume = Beneath::volume(&scene.path().join("in")).unwrap();
        volume.read(Path::new("pipe"), 10).unwrap_err();
        volume.read(Path::new("deep"), 10).unwrap_err();
        assert_eq!(volume.find(Path::new("pipe")).unwrap().kind().unwrap(), FileType::Fifo);
    }
}
