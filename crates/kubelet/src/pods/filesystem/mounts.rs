use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::path::{Component, Path, PathBuf};

use coracle_lifecycle::Mount;
use coracle_lifecycle::environment::{Variables, expand};
use coracle_lifecycle::projection;
use k8s_openapi::api::core::v1::{Container, Pod, Volume, VolumeMount};
use rustix::fs::FileType;
use thiserror::Error;

use super::beneath::{Beneath, Found};
use super::normal;
use super::views::View;
use crate::pods::volumes::{self, UnknownVolume};
use crate::pods::{Context, disk};

/// Why a container cannot be given one of its mounts. The messages are the kubelet's where it has them.
#[derive(Debug, Error)]
pub(in crate::pods) enum MountsError {
    #[error("missing value for {0}")]
    MissingVariable(String),
    #[error("error SubPath `{0}` must not be an absolute path")]
    AbsoluteSubPath(String),
    #[error("unable to provision SubPath `{0}`: must not contain '..'")]
    BackStep(String),
    #[error("failed to prepare subPath for volumeMount {mount:?} of container {container:?}: {source}")]
    SubPath { mount: String, container: String, source: io::Error },
    #[error("volumeMount {0:?}: nothing can be mounted at /")]
    OverRoot(String),
    #[error(
        "volumeMount {0:?}: it is neither a directory nor a file, and a WebAssembly program can be given no other"
    )]
    Kind(String),
    #[error(transparent)]
    Volume(#[from] UnknownVolume),
}

/// How a container is given its volumes.
#[derive(Default)]
pub(in crate::pods) struct Mounts {
    /// What the runtime mounts.
    pub(in crate::pods) directories: Vec<Mount>,
    /// Directories that are copied to where they are mounted from.
    pub(super) copies: Vec<(Found, PathBuf)>,
    /// Files that are put into the root file system or into what is mounted there.
    pub(super) files: Vec<FileMount>,
    /// What the container sees in the place of directories that it only reads, but for single files.
    pub(super) views: Vec<View>,
    /// The directories of `directories` that hold what the node put there.
    kept: Vec<PathBuf>,
}

/// A single file of a volume.
pub(super) struct FileMount {
    pub(super) volume: String,
    pub(super) file: Found,
    pub(super) target: String,
    pub(super) read_only: bool,
}

/// What is in a volume.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// What Kubernetes tells, made anew when it changes. Some of it must not lie on a disk.
    Content { is_private: bool },
    /// The files of an image.
    Image,
    /// Files of programs or of this machine.
    Files,
}

impl Kind {
    fn of(volume: &Volume) -> Self {
        if projection::is_content(volume) {
            Self::Content { is_private: projection::needs_privacy(volume) }
        } else if volume.image.is_some() {
            Self::Image
        } else {
            Self::Files
        }
    }
}

/// A mount of a container, with its variables resolved.
struct Wanted {
    container: String,
    name: String,
    volume: PathBuf,
    kind: Kind,
    sub_path: PathBuf,
    target: String,
    read_only: bool,
}

/// Where directories that have to be copied are copied to, and others shown.
#[derive(Clone)]
pub(in crate::pods) struct Copies {
    pub(in crate::pods) directory: PathBuf,
    /// For what must not lie on a disk.
    pub(in crate::pods) in_memory: PathBuf,
    /// Where views of directories are mounted.
    pub(in crate::pods) views: PathBuf,
}

/// Finds out how a container is given each of its mounts.
pub(in crate::pods) async fn resolve(
    context: &Context,
    pod: &Pod,
    declared: &Container,
    variables: &Variables,
    copies: &Copies,
) -> Result<Mounts, MountsError> {
    let copies = copies.clone();
    let wanted = declared.volume_mounts.iter().flatten();
    let wanted = wanted.map(|mount| want(context, pod, declared, mount, variables));
    let wanted = wanted.collect::<Result<Vec<_>, _>>()?;
    let read_only_root =
        declared.security_context.as_ref().and_then(|context| context.read_only_root_filesystem);
    let found = disk::off_thread(move || {
        let mut mounts = Mounts::default();
        let added = wanted.iter().try_for_each(|wanted| mounts.add(wanted, &copies));
        mounts.plan_views(read_only_root == Some(true), &copies.views);
        Ok(added.map(|()| mounts))
    });
    let unfound =
        |source| MountsError::SubPath { mount: String::new(), container: declared.name.clone(), source };
    found.await.map_err(unfound)?
}

fn want(
    context: &Context,
    pod: &Pod,
    declared: &Container,
    mount: &VolumeMount,
    variables: &Variables,
) -> Result<Wanted, MountsError> {
    let target = normal(&mount.mount_path);
    if target == "/" {
        return Err(MountsError::OverRoot(mount.name.clone()));
    }
    let (volume, place) = volumes::find(context, pod, &mount.name)?;
    let kind = Kind::of(volume);
    Ok(Wanted {
        container: declared.name.clone(),
        name: mount.name.clone(),
        volume: place,
        kind,
        sub_path: sub_path(mount, variables)?,
        target,
        read_only: mount.read_only.unwrap_or(false) || kind != Kind::Files,
    })
}

fn sub_path(mount: &VolumeMount, variables: &Variables) -> Result<PathBuf, MountsError> {
    let path = match mount.sub_path_expr.as_deref().filter(|path| !path.is_empty()) {
        Some(path) => expanded(path, variables)?,
        None => mount.sub_path.clone().unwrap_or_default(),
    };
    if Path::new(&path).is_absolute() {
        return Err(MountsError::AbsoluteSubPath(path));
    }
    if path.split('/').any(|part| part == "..") {
        return Err(MountsError::BackStep(path));
    }
    Ok(Path::new(&path).components().filter(|component| matches!(component, Component::Normal(_))).collect())
}

fn expanded(path: &str, variables: &Variables) -> Result<String, MountsError> {
    let missing = RefCell::new(BTreeSet::new());
    let path = expand(path, |name| {
        let value = variables.get(name).filter(|value| !value.is_empty());
        if value.is_none() {
            missing.borrow_mut().insert(name.to_owned());
        }
        value
    });
    let missing = missing.into_inner();
    if missing.is_empty() {
        return Ok(path);
    }
    Err(MountsError::MissingVariable(missing.into_iter().collect::<Vec<_>>().join(", ")))
}

impl Mounts {
    /// Plans a view for each directory that is read-only and in which a file is to be mounted all the same, or written.
    fn plan_views(&mut self, read_only_root: bool, directory: &Path) {
        let (kept, directories) = (&self.kept, &mut self.directories);
        self.views = View::plan(directories, kept, &mut self.files, read_only_root, directory);
    }

    fn add(&mut self, wanted: &Wanted, copies: &Copies) -> Result<(), MountsError> {
        let unfound = |source| MountsError::SubPath {
            mount: wanted.name.clone(),
            container: wanted.container.clone(),
            source,
        };
        let found = wanted.find().map_err(unfound)?;
        let Wanted { name, target, read_only, .. } = wanted;
        match (found.kind().map_err(unfound)?, wanted.kind) {
            // The files behind a part of a volume go when the volume changes.
            (FileType::Directory, Kind::Content { is_private })
                if !wanted.sub_path.as_os_str().is_empty() =>
            {
                let copies = if is_private { &copies.in_memory } else { &copies.directory };
                let copy = copies.join(self.copies.len().to_string());
                self.copies.push((found, copy.clone()));
                self.kept.push(copy.clone());
                self.directories.push(Mount { source: copy, target: target.clone(), read_only: true });
            }
            (FileType::Directory, _) => {
                let source = found.path().map_err(unfound)?;
                self.kept.extend((wanted.kind != Kind::Files).then(|| source.clone()));
                self.directories.push(Mount { source, target: target.clone(), read_only: *read_only });
            }
            (FileType::RegularFile, _) => self.files.push(FileMount {
                volume: name.clone(),
                file: found,
                target: target.clone(),
                read_only: *read_only,
            }),
            _ => return Err(MountsError::Kind(name.clone())),
        }
        Ok(())
    }
}

impl Wanted {
    /// What is to be mounted. A part of a volume that is not there becomes a directory, as the kubelet makes it.
    fn find(&self) -> io::Result<Found> {
        if self.sub_path.as_os_str().is_empty() {
            return Found::at(&self.volume);
        }
        let volume = Beneath::volume(&self.volume)?;
        match volume.find(&self.sub_path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.kind != Kind::Image => {
                volume.make_directory(&self.sub_path, 0o755)?;
                volume.find(&self.sub_path)
            }
            found => found,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use serde_json::{Value, json};

    use super::*;

    fn path_of(mount: Value) -> Result<PathBuf, String> {
        let mut mount = mount;
        mount["name"] = json!("v");
        mount["mountPath"] = json!("/v");
        let mut variables = Variables::default();
        variables.set("POD", "web".to_owned());
        variables.set("EMPTY", String::new());
        sub_path(&serde_json::from_value(mount).unwrap(), &variables).map_err(|error| error.to_string())
    }

    #[test]
    fn sub_paths_stay_in_their_volume_and_know_the_variables() {
        let path = |path: &str| Ok(PathBuf::from(path));
        assert_eq!(path_of(json!({})), path(""));
        assert_eq!(path_of(json!({ "subPath": "a//b/./c" })), path("a/b/c"));
        assert_eq!(path_of(json!({ "subPath": "$(POD)" })), path("$(POD)"));
        assert_eq!(path_of(json!({ "subPathExpr": "logs/$(POD)" })), path("logs/web"));
        let error = |mount: Value, expected: &str| assert_eq!(path_of(mount), Err(expected.to_owned()));
        error(json!({ "subPathExpr": "$(B)/$(A)/$(EMPTY)" }), "missing value for A, B, EMPTY");
        error(json!({ "subPath": "/etc" }), "error SubPath `/etc` must not be an absolute path");
        error(
            json!({ "subPath": "a/../.." }),
            "unable to provision SubPath `a/../..`: must not contain '..'",
        );
    }

    #[test]
    fn mount_paths_are_absolute_and_plain() {
        let pairs = [("/a/b/", "/a/b"), ("a//b", "/a/b"), ("/a/./../b", "/b"), ("/..", "/"), ("/", "/")];
        for (path, expected) in pairs {
            assert_eq!(normal(path), expected, "{path}");
        }
    }

    fn add(volume: &Path, sub_path: &str, kind: Kind, read_only: bool) -> Result<Mounts, String> {
        let wanted = Wanted {
            container: "c".to_owned(),
            name: "v".to_owned(),
            volume: volume.to_owned(),
            kind,
            sub_path: sub_path.into(),
            target: "/v".to_owned(),
            read_only,
        };
        let mut mounts = Mounts::default();
        let copies =
            Copies { directory: "/copies".into(), in_memory: "/memory".into(), views: "/views".into() };
        mounts.add(&wanted, &copies).map(|()| mounts).map_err(|error| error.to_string())
    }

    #[test]
    fn parts_of_volumes_are_found_without_leaving_them() {
        let scene = tempfile::tempdir().unwrap();
        let volume = scene.path().join("v");
        fs::create_dir_all(volume.join("deep")).unwrap();
        fs::write(volume.join("deep/file"), "").unwrap();
        symlink("..", volume.join("up")).unwrap();
        symlink("/etc", volume.join("etc")).unwrap();
        let source =
            |path: &str| add(&volume, path, Kind::Files, false).unwrap().directories[0].source.clone();
        let real = fs::canonicalize(&volume).unwrap();
        assert_eq!(source(""), real);
        assert_eq!(source("deep"), real.join("deep"));
        assert_eq!(source("new/one"), real.join("new/one"));
        assert!(volume.join("new/one").is_dir());
        for path in ["up", "up/other", "etc", "etc/passwd"] {
            let error = add(&volume, path, Kind::Files, false).err().unwrap();
            assert!(error.starts_with("failed to prepare subPath for volumeMount \"v\""), "{error}");
        }
        assert!(!scene.path().join("other").exists());
        let file = add(&volume, "deep/file", Kind::Files, true).unwrap();
        assert!(file.directories.is_empty() && file.files[0].read_only);
        assert!(!add(&volume, "deep/file", Kind::Files, false).unwrap().files[0].read_only);
        let copied = add(&volume, "deep", Kind::Content { is_private: false }, true).unwrap();
        assert_eq!(
            (copied.copies.len(), copied.directories[0].source.as_path()),
            (1, Path::new("/copies/0"))
        );
        let private = add(&volume, "deep", Kind::Content { is_private: true }, true).unwrap();
        assert_eq!(private.directories[0].source.as_path(), Path::new("/memory/0"));
        assert!(add(&volume, "missing", Kind::Image, true).is_err() && !volume.join("missing").exists());
    }
}
