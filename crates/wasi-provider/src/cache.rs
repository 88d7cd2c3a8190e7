//! Compiled code on disk, by the digest of the program and the key of the engine.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use coracle_lifecycle::Digest;
use tempfile::{NamedTempFile, TempPath};
use tracing::warn;

/// The compiled programs of one engine. Whoever can write here can run native code as this user: mode 0700.
pub(crate) struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// The cache for an engine with this key, made when missing.
    pub(crate) fn open(folder: &Path, key: &str) -> io::Result<Self> {
        let folder = folder.join(key);
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        Ok(Self { folder })
    }

    /// Where the compiled form of a program lies, if it does.
    pub(crate) fn path(&self, module: &Digest) -> PathBuf {
        self.folder.join(format!("{}.cwasm", module.hex()))
    }

    /// An empty file beside the others, to become one of them by [`Cache::keep`].
    pub(crate) fn draft(&self) -> io::Result<TempPath> {
        Ok(NamedTempFile::new_in(&self.folder)?.into_temp_path())
    }

    /// Makes a draft that is whole and on disk the compiled form of a program.
    pub(crate) fn keep(&self, draft: TempPath, module: &Digest) -> io::Result<()> {
        draft.persist(self.path(module))?;
        File::open(&self.folder)?.sync_all()
    }

    /// Drops the compiled form of a program; what is loaded stays usable.
    pub(crate) fn forget(&self, module: &Digest) {
        match fs::remove_file(self.path(module)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                warn!(path = %self.path(module).display(), %error, "compiled code cannot be removed");
            }
            _ => {}
        }
    }
}

/// Removes what engines of other keys left, and drafts that were never kept.
pub(crate) fn sweep(folder: &Path, keys: &[String]) -> io::Result<()> {
    for entry in fs::read_dir(folder)?.flatten() {
        let name = entry.file_name();
        let is_key = name.len() == 64 && name.as_encoded_bytes().iter().all(u8::is_ascii_hexdigit);
        if is_key && !keys.iter().any(|key| name == key.as_str()) {
            fs::remove_dir_all(entry.path())?;
        } else if is_key {
            remove_drafts(&entry.path())?;
        }
    }
    Ok(())
}

fn remove_drafts(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)?.flatten() {
        if entry.path().extension().is_none_or(|extension| extension != "cwasm") {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_cache_is_its_owners_alone_and_is_swept() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = ("a".repeat(64), "b".repeat(64));
        let digest = Digest::parse(&format!("sha256:{}", "0".repeat(64))).unwrap();
        for key in [&old, &new] {
            let cache = Cache::open(folder.path(), key).unwrap();
            cache.keep(cache.draft().unwrap(), &digest).unwrap();
            cache.draft().unwrap().keep().unwrap();
        }
        sweep(folder.path(), std::slice::from_ref(&new)).unwrap();
        assert!(!folder.path().join(&old).exists());
        let left: Vec<_> = fs::read_dir(folder.path().join(&new)).unwrap().map(|entry| entry.unwrap().path()).collect();
        let cache = Cache::open(folder.path(), &new).unwrap();
        assert_eq!(left, [cache.path(&digest)]);
        assert_eq!(fs::metadata(&cache.folder).unwrap().permissions().mode() & 0o777, 0o700);
        cache.forget(&digest);
        cache.forget(&digest);
        assert!(!cache.path(&digest).exists());
    }
}
