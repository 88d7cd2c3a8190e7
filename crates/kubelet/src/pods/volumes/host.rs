//! Paths of this machine that pods are given: those below the prefixes that the operator allows, and never the node's own.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::HostPathVolumeSource;
use rustix::fs::FileType;
use thiserror::Error;

use crate::pods::filesystem::beneath::{Beneath, Found};

/// Why a pod is not given a path of this machine.
#[derive(Debug, Error)]
pub(crate) enum HostPathError {
    #[error("hostPath {0:?} is not allowed on this node: see --allowed-host-path")]
    NotAllowed(String),
    #[error("hostPath {0:?} is not allowed: this node keeps its own files there")]
    Own(String),
    #[error("hostPath type check failed: {path} is not {kind}")]
    Kind { path: String, kind: &'static str },
    #[error("hostPath type {0:?} is not known")]
    UnknownKind(String),
    #[error("hostPath {path:?}: {source}")]
    Io { path: String, source: io::Error },
}

/// The paths of this machine that pods may ask for.
pub(crate) struct HostPaths {
    /// Without links, the longest first.
    allowed: Vec<PathBuf>,
    /// The node's own directories, without links.
    own: Vec<PathBuf>,
}

impl HostPaths {
    /// The paths below `allowed` that are not, and do not hold, one of `own`. Prefixes that do not exist are left out.
    pub(crate) fn new(allowed: &[PathBuf], own: &[PathBuf]) -> Self {
        let real =
            |paths: &[PathBuf]| paths.iter().filter_map(|path| path.canonicalize().ok()).collect::<Vec<_>>();
        let mut allowed = real(allowed);
        allowed.sort_by_key(|prefix| std::cmp::Reverse(prefix.as_os_str().len()));
        Self { allowed, own: real(own) }
    }

    /// The node's own directories.
    pub(crate) fn own(&self) -> &[PathBuf] {
        &self.own
    }

    /// Where a path that is as its source says really lies; made, when the source says so.
    pub(crate) fn find(&self, source: &HostPathVolumeSource) -> Result<PathBuf, HostPathError> {
        let path = Path::new(&source.path);
        let not_allowed = || HostPathError::NotAllowed(source.path.clone());
        let (prefix, rest) = self.allowed(path).ok_or_else(not_allowed)?;
        let failed = |error: io::Error| match error.kind() {
            ErrorKind::CrossesDevices => not_allowed(),
            _ => HostPathError::Io { path: source.path.clone(), source: error },
        };
        let prefix = Beneath::volume(prefix).map_err(failed)?;
        let kind = source.type_.as_deref().unwrap_or_default();
        make(&prefix, rest, kind).map_err(failed)?;
        let found = match prefix.find(rest) {
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            found => Some(found.map_err(failed)?),
        };
        check(&source.path, kind, found.as_ref())?;
        let place = found.ok_or_else(|| failed(ErrorKind::NotFound.into()))?.path().map_err(failed)?;
        let is_own = self.own.iter().any(|own| own.starts_with(&place) || place.starts_with(own));
        if is_own { Err(HostPathError::Own(source.path.clone())) } else { Ok(place) }
    }

    fn allowed<'p>(&self, path: &'p Path) -> Option<(&Path, &'p Path)> {
        let has_backstep = path.components().any(|component| component.as_os_str() == "..");
        let mut prefixes = self.allowed.iter().filter(|_| !has_backstep);
        prefixes.find_map(|prefix| Some((prefix.as_path(), path.strip_prefix(prefix).ok()?)))
    }
}

/// Without a type a directory is made where nothing is, as container runtimes do.
fn make(prefix: &Beneath, path: &Path, kind: &str) -> io::Result<()> {
    let is_missing = || prefix.find(path).is_err_and(|error| error.kind() == ErrorKind::NotFound);
    match kind {
        "" | "DirectoryOrCreate" if is_missing() => prefix.make_directory(path, 0o755),
        "FileOrCreate" if is_missing() => prefix.create(path, 0o644).map(|_: File| ()),
        _ => Ok(()),
    }
}

fn check(path: &str, kind: &str, found: Option<&Found>) -> Result<(), HostPathError> {
    let found = found.and_then(|found| found.kind().ok());
    let wanted = match kind {
        "" => return Ok(()),
        "Directory" | "DirectoryOrCreate" => (FileType::Directory, "a directory"),
        "File" | "FileOrCreate" => (FileType::RegularFile, "a file"),
        "Socket" => (FileType::Socket, "a socket file"),
        "CharDevice" => (FileType::CharacterDevice, "a character device"),
        "BlockDevice" => (FileType::BlockDevice, "a block device"),
        other => return Err(HostPathError::UnknownKind(other.to_owned())),
    };
    if found == Some(wanted.0) {
        return Ok(());
    }
    Err(HostPathError::Kind { path: path.to_owned(), kind: wanted.1 })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    struct Scene {
        folder: tempfile::TempDir,
        paths: HostPaths,
    }

    fn scene() -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["open/deep", "open/node", "other", "opener"] {
            fs::create_dir_all(path(name)).unwrap();
        }
        fs::write(path("open/file"), "").unwrap();
        symlink("../other", path("open/up")).unwrap();
        symlink(path("other"), path("open/absolute")).unwrap();
        symlink("deep", path("open/inside")).unwrap();
        symlink("node", path("open/hidden")).unwrap();
        let paths = HostPaths::new(&[path("open"), path("missing")], &[path("open/node")]);
        Scene { folder, paths }
    }

    impl Scene {
        fn find(&self, path: &str, kind: &str) -> Result<PathBuf, String> {
            let path = self.folder.path().canonicalize().unwrap().join(path);
            let type_ = Some(kind.to_owned());
            let source = HostPathVolumeSource { path: path.display().to_string(), type_ };
            self.paths.find(&source).map_err(|error| error.to_string())
        }
    }

    #[test]
    fn only_what_lies_below_a_prefix_is_given() {
        let scene = scene();
        let real = scene.folder.path().canonicalize().unwrap();
        assert_eq!(scene.find("open/deep", ""), Ok(real.join("open/deep")));
        assert_eq!(scene.find("open/inside", "Directory"), Ok(real.join("open/deep")));
        for path in ["other", "opener", "open/../other", "open/up", "open/absolute", "missing", ""] {
            assert!(scene.find(path, "").unwrap_err().contains("--allowed-host-path"), "{path}");
        }
        assert!(HostPaths::new(&[], &[]).allowed(Path::new("/etc")).is_none());
    }

    #[test]
    fn the_nodes_own_files_are_never_given() {
        let scene = scene();
        for path in ["open/node", "open/hidden", "open/node/pods", "open"] {
            assert!(scene.find(path, "").unwrap_err().contains("its own files"), "{path}");
        }
    }

    #[test]
    fn types_are_checked_and_what_may_be_made_is() {
        let scene = scene();
        let error = |path: &str, kind: &str, expected: &str| {
            let error = scene.find(path, kind).unwrap_err();
            assert!(
                error.starts_with("hostPath type check failed: ") && error.ends_with(expected),
                "{error}"
            );
        };
        error("open/file", "Directory", "/open/file is not a directory");
        error("open/file", "DirectoryOrCreate", "is not a directory");
        error("open/deep", "File", "is not a file");
        error("open/deep", "FileOrCreate", "is not a file");
        error("open/none", "Directory", "is not a directory");
        error("open/none", "File", "is not a file");
        error("open/file", "Socket", "is not a socket file");
        error("open/file", "CharDevice", "is not a character device");
        error("open/file", "BlockDevice", "is not a block device");
        assert!(scene.find("open/made/by/type", "DirectoryOrCreate").unwrap().is_dir());
        assert!(scene.find("open/made/file", "FileOrCreate").unwrap().is_file());
        assert!(scene.find("open/without/type", "").unwrap().is_dir());
        assert!(scene.find("open/file", "").unwrap().is_file());
    }
}
