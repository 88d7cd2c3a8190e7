//! Directories that a container only reads, in which single files are mounted for it alone.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use coracle_lifecycle::Mount;
use rustix::fs::FileType;
use rustix::mount::{MountFlags, mount_remount};

use super::beneath::Beneath;
use super::furnishing::{FurnishingError, failed};
use super::mounts::FileMount;
use super::{place, relative};
use crate::pods::disk::private_directory;

/// A directory as one container sees it: mounted once more where nobody else looks, with files mounted over its own, and the
/// rest read-only by the kernel's word, so that the runtime may let the container write to those files.
pub(super) struct View {
    pub(super) files: Vec<FileMount>,
    shown: Shown,
    /// Where the container sees it, and where it is mounted.
    target: String,
    at: PathBuf,
}

/// What a view shows.
enum Shown {
    /// A directory that is mounted. In one that the node fills, it may make what a file is mounted over.
    Mounted { source: PathBuf, is_kept: bool },
    /// A directory of the container's root.
    OfRoot,
}

impl View {
    /// The views that these files need, which are taken from `files`. What the runtime mounts is the view then.
    pub(super) fn plan(
        directories: &mut Vec<Mount>,
        kept: &[PathBuf],
        files: &mut Vec<FileMount>,
        read_only_root: bool,
        at: &Path,
    ) -> Vec<Self> {
        let mut views: Vec<Self> = Vec::new();
        let mounted = directories.clone();
        for file in std::mem::take(files) {
            let view = match place(&mounted, &file.target) {
                Some((outer, _)) if outer.read_only => {
                    let source = outer.source.clone();
                    let is_kept = kept.contains(&source);
                    Some((outer.target.clone(), Shown::Mounted { source, is_kept }))
                }
                None if read_only_root && !file.read_only => Some((above(&file.target), Shown::OfRoot)),
                _ => None,
            };
            let Some((target, shown)) = view else {
                files.push(file);
                continue;
            };
            let position = views.iter().position(|view| view.target == target).unwrap_or_else(|| {
                let at = at.join(views.len().to_string());
                views.push(Self { files: Vec::new(), shown, target, at });
                views.len() - 1
            });
            views[position].files.push(file);
        }
        for view in &views {
            view.add_to(directories);
        }
        views
    }

    fn add_to(&self, directories: &mut Vec<Mount>) {
        let (source, target, read_only) = (self.at.clone(), self.target.clone(), self.is_read_only());
        directories.retain(|mount| mount.target != target);
        directories.push(Mount { source, target, read_only });
    }

    /// What the container would see without it, of what is mounted.
    pub(super) fn without(views: &[Self], directories: &[Mount]) -> Vec<Mount> {
        let laid = directories.iter().filter_map(|mount| {
            let Some(view) = views.iter().find(|view| view.at == mount.source) else {
                return Some(mount.clone());
            };
            match &view.shown {
                Shown::Mounted { source, .. } => {
                    Some(Mount { source: source.clone(), target: mount.target.clone(), read_only: true })
                }
                Shown::OfRoot => None,
            }
        });
        laid.collect()
    }

    fn is_read_only(&self) -> bool {
        self.files.iter().all(|file| file.read_only)
    }

    /// Makes it, for a container with this root.
    pub(super) fn make(&self, root: &Beneath) -> Result<(), FurnishingError> {
        let shown = self.open(root)?;
        self.files.iter().try_for_each(|file| self.make_room(&shown, file))?;
        self.mount(&shown).map_err(|error| match (error.kind(), self.files.first()) {
            (ErrorKind::PermissionDenied, Some(FileMount { volume, target, .. })) => {
                FurnishingError::NeedsMount { volume: volume.clone(), path: target.clone() }
            }
            _ => failed(&self.target, error),
        })
    }

    fn open(&self, root: &Beneath) -> Result<Beneath, FurnishingError> {
        let opened = match &self.shown {
            Shown::Mounted { source, .. } => Beneath::volume(source),
            Shown::OfRoot if self.target == "/" => {
                let (volume, path) =
                    self.files.first().map(|file| (file.volume.clone(), file.target.clone())).unzip();
                let (volume, path) = (volume.unwrap_or_default(), path.unwrap_or_default());
                return Err(FurnishingError::Top { volume, path });
            }
            Shown::OfRoot => root
                .make_directory(relative(&self.target), 0o755)
                .and_then(|()| root.find(relative(&self.target))?.path())
                .and_then(|path| Beneath::volume(&path)),
        };
        opened.map_err(|source| failed(&self.target, source))
    }

    /// There has to be a file where one is mounted.
    fn make_room(&self, shown: &Beneath, file: &FileMount) -> Result<(), FurnishingError> {
        let (volume, path) = (file.volume.clone(), file.target.clone());
        let may_make = !matches!(self.shown, Shown::Mounted { is_kept: false, .. });
        match shown.find_itself(self.place(file)).and_then(|found| found.kind()) {
            Ok(FileType::RegularFile) => Ok(()),
            Ok(_) => Err(FurnishingError::NoFile { volume, path }),
            Err(error) if error.kind() == ErrorKind::NotFound && may_make => {
                shown.create(self.place(file), 0o444).map(drop).map_err(|source| failed(&path, source))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(FurnishingError::ReadOnly { volume, path })
            }
            Err(source) => Err(failed(&path, source)),
        }
    }

    fn mount(&self, shown: &Beneath) -> io::Result<()> {
        private_directory(&self.at)?;
        // What is mounted in a directory of somebody else's would stay writable.
        let with_mounts = matches!(self.shown, Shown::OfRoot) || self.is_read_only();
        shown.show(&self.at, with_mounts)?;
        let view = Beneath::volume(&self.at)?;
        for file in &self.files {
            view.bind_over(&file.file, self.place(file), file.read_only)?;
        }
        Ok(mount_remount(&self.at, MountFlags::BIND | MountFlags::RDONLY, "")?)
    }

    /// Where a file lies in it.
    fn place<'f>(&self, file: &'f FileMount) -> &'f Path {
        relative(file.target.strip_prefix(&self.target).unwrap_or(&file.target))
    }
}

/// The directory in which an absolute path lies.
fn above(path: &str) -> String {
    Path::new(path).parent().unwrap_or(Path::new("/")).display().to_string()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::super::beneath::Found;
    use super::*;
    use crate::pods::disk;

    struct Scene {
        folder: tempfile::TempDir,
        directories: Vec<Mount>,
        files: Vec<FileMount>,
    }

    impl Scene {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            for name in ["root/etc/app", "volume", "other"] {
                fs::create_dir_all(folder.path().join(name)).unwrap();
            }
            for name in ["root/etc/app/of-image", "volume/file", "other/own", "other/given"] {
                fs::write(folder.path().join(name), name).unwrap();
            }
            Self { folder, directories: Vec::new(), files: Vec::new() }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().canonicalize().unwrap().join(name)
        }

        fn mount(&mut self, source: &str, target: &str) {
            let mount = Mount { source: self.path(source), target: target.to_owned(), read_only: true };
            self.directories.push(mount);
        }

        fn file(&mut self, source: &str, target: &str, read_only: bool) {
            let file = Found::at(&self.path(source)).unwrap();
            let (volume, target) = ("v".to_owned(), target.to_owned());
            self.files.push(FileMount { volume, file, target, read_only });
        }

        /// What the container is given, or that this process may not mount.
        fn make(&mut self, kept: &[&str], read_only_root: bool) -> Result<(), FurnishingError> {
            let kept: Vec<_> = kept.iter().map(|name| self.path(name)).collect();
            let at = self.path("views");
            let views = View::plan(&mut self.directories, &kept, &mut self.files, read_only_root, &at);
            let root = Beneath::root(&self.path("root")).unwrap();
            views.iter().try_for_each(|view| view.make(&root))
        }
    }

    impl Drop for Scene {
        fn drop(&mut self) {
            disk::remove(&self.path("views")).unwrap();
        }
    }

    /// Whether this process may mount. Who may not is told so.
    fn may(made: Result<(), FurnishingError>) -> bool {
        match made {
            Err(FurnishingError::NeedsMount { volume, .. }) => volume != "v",
            made => {
                made.unwrap();
                true
            }
        }
    }

    #[test]
    fn a_file_is_written_where_the_rest_is_read() {
        let mut scene = Scene::new();
        scene.file("volume/file", "/etc/app/data", false);
        scene.file("volume/file", "/etc/app/of-image", true);
        if may(scene.make(&[], true)) {
            let [view] = scene.directories.as_slice() else { panic!("one view") };
            assert_eq!((view.target.as_str(), view.read_only), ("/etc/app", false));
            fs::write(view.source.join("data"), "written").unwrap();
            assert_eq!(fs::read(scene.path("volume/file")).unwrap(), b"written");
            assert_eq!(fs::read(view.source.join("of-image")).unwrap(), b"root/etc/app/of-image");
            for path in ["of-image", "new"] {
                fs::write(view.source.join(path), "x").unwrap_err();
            }
            assert_eq!(fs::read(scene.path("root/etc/app/data")).unwrap(), b"");
        }
        assert_eq!(scene.files.len(), 1, "what is only read is put into the root");
    }

    #[test]
    fn a_file_is_mounted_in_what_is_read_and_seen_by_this_container_alone() {
        let mut scene = Scene::new();
        scene.mount("other", "/data");
        scene.file("volume/file", "/data/own", true);
        if may(scene.make(&[], false)) {
            let [view] = scene.directories.as_slice() else { panic!("one view") };
            assert_eq!((view.target.as_str(), view.read_only), ("/data", true));
            assert_eq!(fs::read(view.source.join("own")).unwrap(), b"volume/file");
            assert_eq!(fs::read(view.source.join("given")).unwrap(), b"other/given");
            fs::write(scene.path("other/given"), "changed").unwrap();
            assert_eq!(fs::read(view.source.join("given")).unwrap(), b"changed");
        }
        assert_eq!(fs::read(scene.path("other/own")).unwrap(), b"other/own");
    }

    #[test]
    fn room_for_a_file_is_made_only_where_the_node_fills_the_directory() {
        let error = |target: &str, kept: &[&str], read_only_root: bool| {
            let mut scene = Scene::new();
            symlink("own", scene.path("other/link")).unwrap();
            scene.mount("other", "/data");
            scene.file("volume/file", target, read_only_root);
            let made = scene.make(kept, false);
            (made.err().map(|error| error.to_string()).unwrap_or_default(), scene.path("other/new").exists())
        };
        let (said, is_there) = error("/data/new", &[], true);
        assert!(
            said.ends_with("lies in a mount that is read-only and has no such file") && !is_there,
            "{said}"
        );
        let (said, is_there) = error("/data/new", &["other"], true);
        assert!((said.is_empty() || said.contains("the right to mount")) && is_there, "{said}");
        let (said, _) = error("/data/link", &["other"], true);
        assert_eq!(said, "volumeMount \"v\": a file cannot be mounted over /data/link, which is none");
    }

    #[test]
    fn nothing_is_written_at_the_top_of_what_is_read() {
        let mut scene = Scene::new();
        scene.file("volume/file", "/data", false);
        let said = scene.make(&[], true).unwrap_err().to_string();
        assert!(said.contains("/data cannot be written at the top of a read-only root"), "{said}");
    }
}
