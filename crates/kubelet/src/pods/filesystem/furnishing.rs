use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use coracle_lifecycle::Mount;
use thiserror::Error;

use super::aliases::aliases;
use super::beneath::{Beneath, Found};
use super::mounts::{FileMount, Mounts};
use super::views::View;
use super::{open, place, relative};
use crate::pods::disk;

/// The devices that every container has, by name and number.
const DEVICES: [(&str, u32); 5] = [("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)];
const MEMORY_DEVICES: u32 = 1;

/// Why the root file system of a container could not be furnished.
#[derive(Debug, Error)]
pub(in crate::pods) enum FurnishingError {
    #[error("cannot make {path} in the container: {source}")]
    Path { path: String, source: io::Error },
    #[error(
        "volumeMount {volume:?}: the file is on another file system and cannot be shared for writing: mount its directory"
    )]
    OtherFileSystem { volume: String },
    #[error("volumeMount {volume:?}: {path} lies in a mount that is read-only and has no such file")]
    ReadOnly { volume: String, path: String },
    #[error("volumeMount {volume:?}: a file cannot be mounted over {path}, which is none")]
    NoFile { volume: String, path: String },
    #[error(
        "error mounting {0:?}: not a directory: are you trying to mount a directory onto a file (or vice-versa)?"
    )]
    NoDirectory(String),
    #[error(
        "volumeMount {volume:?}: {path} lies where the container only reads: to mount a file there the node needs the right to mount"
    )]
    NeedsMount { volume: String, path: String },
    #[error(
        "volumeMount {volume:?}: {path} cannot be written at the top of a read-only root file system: mount its directory"
    )]
    Top { volume: String, path: String },
}

impl FurnishingError {
    /// Whether the container's own files are in the way of a mount, which container runtimes find out when they start it.
    pub(in crate::pods) fn is_of_container(&self) -> bool {
        matches!(self, Self::NoFile { .. } | Self::NoDirectory(_))
    }
}

/// What the node puts into the root file system of a container before it starts.
pub(in crate::pods) struct Furnishing {
    pub(in crate::pods) root: PathBuf,
    /// Files by their absolute path, such as `/etc/hosts`: not where something is mounted.
    pub(in crate::pods) files: Vec<(String, String)>,
    pub(in crate::pods) working_directory: Option<String>,
    pub(in crate::pods) mounts: Mounts,
    /// The directories of this node's own, in which it may make mount points whoever reads them.
    pub(in crate::pods) own: Vec<PathBuf>,
}

impl Furnishing {
    /// Puts all there. Gives the mounts that are to be found at one more path each.
    pub(in crate::pods) fn put(&self) -> Result<Vec<Mount>, FurnishingError> {
        let root = Beneath::root(&self.root).map_err(|source| failed("/", source))?;
        for (from, to) in &self.mounts.copies {
            disk::remove(to).map_err(|source| failed(&to.display().to_string(), source))?;
            copy_directory(from, to).map_err(|source| failed(&to.display().to_string(), source))?;
        }
        make(&root, "/tmp", 0o1777)?;
        make_devices(&root)?;
        self.put_files(&root)?;
        let laid = View::without(&self.mounts.views, &self.mounts.directories);
        self.make_mount_points(&root, &laid)?;
        for file in &self.mounts.files {
            self.put_file(file, &laid)?;
        }
        self.mounts.views.iter().try_for_each(|view| view.make(&root))?;
        if let Some(directory) = &self.working_directory {
            // A program that has no use for it starts all the same.
            let _ = root.make_directory(relative(directory), 0o755);
        }
        Ok(aliases(&root, &self.mounts.directories))
    }

    fn put_files(&self, root: &Beneath) -> Result<(), FurnishingError> {
        let mut own = self.files.iter().filter(|(path, _)| !self.is_mounted(path));
        own.try_for_each(|(path, content)| {
            root.write(relative(path), content.as_bytes(), 0o644).map_err(|source| failed(path, source))
        })
    }

    fn is_mounted(&self, path: &str) -> bool {
        let directories = self.mounts.directories.iter().map(|mount| &mount.target);
        let of_views = self.mounts.views.iter().flat_map(|view| &view.files);
        let files = self.mounts.files.iter().chain(of_views).map(|file| &file.target);
        directories.chain(files).any(|target| target == path)
    }

    /// So that who lists a directory sees what is mounted in it. What is mounted is found without that, so it may fail, but
    /// not for a file that is there.
    fn make_mount_points(&self, root: &Beneath, mounts: &[Mount]) -> Result<(), FurnishingError> {
        for mount in mounts {
            let around = mounts.iter().filter(|other| is_inside(&mount.target, &other.target));
            let made = match around.max_by_key(|other| other.target.len()) {
                None => root.make_directory(relative(&mount.target), 0o755),
                Some(outer) => Beneath::volume(&outer.source).and_then(|volume| {
                    let path = relative(&mount.target[outer.target.len()..]);
                    if self.may_change(outer) {
                        volume.make_directory(path, 0o755)
                    } else {
                        volume.find_directory(path)
                    }
                }),
            };
            if made.is_err_and(|error| error.kind() == ErrorKind::NotADirectory) {
                return Err(FurnishingError::NoDirectory(mount.target.clone()));
            }
        }
        Ok(())
    }

    fn may_change(&self, mount: &Mount) -> bool {
        !mount.read_only || self.own.iter().any(|directory| mount.source.starts_with(directory))
    }

    fn put_file(&self, mount: &FileMount, mounts: &[Mount]) -> Result<(), FurnishingError> {
        let failed = |source: io::Error| match source.kind() {
            ErrorKind::NotADirectory => FurnishingError::NoDirectory(mount.target.clone()),
            ErrorKind::IsADirectory => {
                FurnishingError::NoFile { volume: mount.volume.clone(), path: mount.target.clone() }
            }
            _ => failed(&mount.target, source),
        };
        // What a container only reads, nothing is put into on its behalf.
        if place(mounts, &mount.target).is_some_and(|(outer, _)| outer.read_only) {
            let (volume, path) = (mount.volume.clone(), mount.target.clone());
            return Err(FurnishingError::ReadOnly { volume, path });
        }
        let (place, path) = open(&self.root, mounts, &mount.target).map_err(failed)?;
        match place.bind(&mount.file, &path, mount.read_only) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
            bound => return bound.map_err(failed),
        }
        if mount.read_only {
            return place.copy(&mount.file, &path, 0o444).map_err(failed);
        }
        place.link(&mount.file, &path).map_err(|source| match source.kind() {
            ErrorKind::CrossesDevices => FurnishingError::OtherFileSystem { volume: mount.volume.clone() },
            _ => failed(source),
        })
    }
}

/// Whether a path lies below another one.
fn is_inside(path: &str, outer: &str) -> bool {
    path != outer && Path::new(path).starts_with(outer)
}

pub(super) fn failed(path: &str, source: io::Error) -> FurnishingError {
    FurnishingError::Path { path: path.to_owned(), source }
}

fn make(root: &Beneath, path: &str, mode: u32) -> Result<(), FurnishingError> {
    root.make_directory(relative(path), mode).map_err(|source| failed(path, source))
}

/// Who may not make devices has something for what is thrown away, and no others.
fn make_devices(root: &Beneath) -> Result<(), FurnishingError> {
    make(root, "/dev", 0o755)?;
    for (name, number) in DEVICES {
        let path = Path::new("dev").join(name);
        if root.find(&path).is_ok() {
            continue;
        }
        match root.make_device(&path, MEMORY_DEVICES, number) {
            Err(_) if name == "null" => discard(root, &path),
            _ => Ok(()),
        }
        .map_err(|source| failed("/dev/null", source))?;
    }
    Ok(())
}

/// Where no device can be used, such as in the files of an image, the machine's own is mounted. Who may not do that either has
/// a file.
fn discard(root: &Beneath, path: &Path) -> io::Result<()> {
    let bound = Found::at(Path::new("/dev/null")).and_then(|null| root.bind(&null, path, false));
    bound.or_else(|_| root.write(path, b"", 0o666))
}

/// Copies files and directories, and what links lead to as far as it is in the same directory.
fn copy_directory(from: &Found, to: &Path) -> io::Result<()> {
    disk::private_directory(to)?;
    let (source, target) = (from.path()?, Beneath::volume(to)?);
    let volume = Beneath::volume(&source)?;
    for entry in std::fs::read_dir(&source)? {
        let name = entry?.file_name();
        let found = volume.find(Path::new(&name))?;
        if found.kind()? == rustix::fs::FileType::Directory {
            copy_directory(&found, &to.join(&name))?;
        } else {
            target.copy(&found, Path::new(&name), 0o444)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    struct Scene {
        folder: tempfile::TempDir,
        furnishing: Furnishing,
    }

    fn scene() -> Scene {
        let folder = tempfile::tempdir().unwrap();
        for name in ["root/etc", "work", "foreign", "outside"] {
            fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        let furnishing = Furnishing {
            root: folder.path().join("root"),
            files: vec![("/etc/hosts".to_owned(), "hosts".to_owned())],
            working_directory: None,
            mounts: Mounts::default(),
            own: Vec::new(),
        };
        Scene { folder, furnishing }
    }

    impl Scene {
        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().canonicalize().unwrap().join(name)
        }

        fn mount(&mut self, source: &str, target: &str, read_only: bool) {
            let mount = Mount { source: self.path(source), target: target.to_owned(), read_only };
            self.furnishing.mounts.directories.push(mount);
        }

        fn file(&mut self, source: &str, target: &str, read_only: bool) {
            let file = Found::at(&self.path(source)).unwrap();
            let (volume, target) = ("v".to_owned(), target.to_owned());
            self.furnishing.mounts.files.push(FileMount { volume, file, target, read_only });
        }
    }

    impl Drop for Scene {
        fn drop(&mut self) {
            disk::remove(&self.path("root")).unwrap();
            disk::remove(&self.path("outside")).unwrap();
        }
    }

    #[test]
    fn what_every_container_has() {
        let mut scene = scene();
        scene.furnishing.working_directory = Some("/app/data".to_owned());
        scene.furnishing.put().unwrap();
        assert_eq!(fs::read(scene.path("root/etc/hosts")).unwrap(), b"hosts");
        assert_eq!(fs::metadata(scene.path("root/tmp")).unwrap().mode() & 0o1000, 0o1000);
        fs::write(scene.path("root/dev/null"), "gone").unwrap();
        assert!(scene.path("root/app/data").is_dir());
    }

    #[test]
    fn mount_points_are_seen_where_the_node_may_make_them() {
        let mut scene = scene();
        scene.mount("work", "/data", false);
        scene.mount("outside", "/data/deep/er", false);
        scene.mount("foreign", "/foreign", true);
        scene.mount("outside", "/foreign/deep", false);
        scene.mount("outside", "/var/run/here", true);
        scene.furnishing.put().unwrap();
        for place in ["root/data", "work/deep/er", "root/foreign", "root/var/run/here"] {
            assert!(scene.path(place).is_dir(), "{place}");
        }
        assert!(!scene.path("foreign/deep").exists());
        scene.furnishing.own = vec![scene.path("foreign")];
        scene.furnishing.put().unwrap();
        assert!(scene.path("foreign/deep").exists());
    }

    #[test]
    fn single_files_are_the_same_file_or_cannot_change_it() {
        let mut scene = scene();
        fs::write(scene.path("work/file"), "text").unwrap();
        scene.mount("outside", "/mounted", false);
        scene.file("work/file", "/etc/copy", true);
        scene.file("work/file", "/same", false);
        scene.file("work/file", "/mounted/deep/same", false);
        scene.file("work/file", "/etc/hosts", true);
        scene.furnishing.put().unwrap();
        let inode = |name: &str| fs::metadata(scene.path(name)).unwrap().ino();
        assert_eq!(fs::read(scene.path("root/etc/copy")).unwrap(), b"text");
        // What may mount makes this fail, what may not has made a copy.
        let _ = fs::write(scene.path("root/etc/copy"), "other");
        assert_eq!(fs::read(scene.path("work/file")).unwrap(), b"text");
        assert_eq!([inode("root/same"), inode("outside/deep/same")], [inode("work/file"); 2]);
        assert_eq!(fs::read(scene.path("root/etc/hosts")).unwrap(), b"text", "the pod's own");
    }

    #[test]
    fn files_are_in_the_way_of_directories_and_directories_of_files() {
        for target in ["/etc/app.conf", "/etc/app.conf/deep", "/data/file", "/foreign/file"] {
            let mut scene = scene();
            for file in ["root/etc/app.conf", "work/file", "foreign/file"] {
                fs::write(scene.path(file), "text").unwrap();
            }
            scene.mount("work", "/data", false);
            scene.mount("foreign", "/foreign", true);
            scene.mount("outside", target, false);
            let error = scene.furnishing.put().unwrap_err();
            assert!(error.is_of_container());
            let expected = format!(
                "error mounting {target:?}: not a directory: are you trying to mount a directory onto a file (or \
                 vice-versa)?"
            );
            assert_eq!(error.to_string(), expected);
        }
        let mut scene = scene();
        fs::write(scene.path("work/file"), "text").unwrap();
        fs::create_dir(scene.path("root/etc/full.d")).unwrap();
        scene.file("work/file", "/etc/full.d", true);
        let error = scene.furnishing.put().unwrap_err();
        assert!(error.is_of_container(), "{error}");
        assert!(scene.path("root/etc/full.d").is_dir());
    }

    #[test]
    fn nothing_is_put_into_what_a_container_only_reads() {
        let mut scene = scene();
        for name in ["work/file", "foreign/file"] {
            fs::write(scene.path(name), name).unwrap();
        }
        scene.mount("foreign", "/foreign", true);
        scene.file("work/file", "/foreign/file", true);
        let error = scene.furnishing.put().unwrap_err().to_string();
        let expected =
            "volumeMount \"v\": /foreign/file lies in a mount that is read-only and has no such file";
        assert_eq!(error, expected);
        assert_eq!(fs::read(scene.path("foreign/file")).unwrap(), b"foreign/file");
    }

    #[test]
    fn no_link_of_an_image_or_a_volume_leads_the_node_out_of_the_container() {
        let mut scene = scene();
        fs::remove_dir(scene.path("root/etc")).unwrap();
        symlink(scene.path("outside"), scene.path("root/etc")).unwrap();
        symlink("../outside", scene.path("root/dev")).unwrap();
        symlink("../outside", scene.path("work/up")).unwrap();
        scene.mount("work", "/data", false);
        scene.mount("foreign", "/data/up/deep", false);
        // Where the image leads out of itself its files cannot be made; whatever comes of that, nothing is outside.
        let _ = scene.furnishing.put();
        fs::write(scene.path("work/file"), "text").unwrap();
        scene.file("work/file", "/data/up/file", true);
        scene.furnishing.put().unwrap_err();
        assert_eq!(fs::read_dir(scene.path("outside")).unwrap().count(), 0);
    }

    #[test]
    fn parts_of_content_are_copied_with_what_is_in_them() {
        let mut scene = scene();
        fs::create_dir_all(scene.path("work/..0/part/deep")).unwrap();
        fs::write(scene.path("work/..0/part/deep/file"), "text").unwrap();
        let from = Found::at(&scene.path("work/..0/part")).unwrap();
        scene.furnishing.mounts.copies.push((from, scene.path("copies/0")));
        scene.furnishing.put().unwrap();
        assert_eq!(fs::read(scene.path("copies/0/deep/file")).unwrap(), b"text");
    }
}
