//! Compiled code on disk, by the digest of the program and the key of the engine.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use coracle_lifecycle::Digest;
use sha2::{Digest as _, Sha256};
use tempfile::{NamedTempFile, TempPath};
use tracing::warn;

use crate::engine::hexadecimal;

const CODE: &str = "cwasm";
const CHECKSUM: &str = "sha256";

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

    /// The compiled form of a program, if it is here and as it was written; what is damaged is thrown away.
    pub(crate) fn find(&self, module: &Digest) -> io::Result<Option<PathBuf>> {
        let path = self.path(module, CODE);
        let expected = match fs::read_to_string(self.path(module, CHECKSUM)) {
            Ok(expected) => expected,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        match checksum(&path) {
            Ok(found) if found == expected => Ok(Some(path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Ok(_) => {
                warn!(path = %path.display(), "damaged compiled code is thrown away");
                self.forget(module);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// An empty file beside the others, to become one of them by [`Cache::keep`].
    pub(crate) fn draft(&self) -> io::Result<TempPath> {
        Ok(NamedTempFile::new_in(&self.folder)?.into_temp_path())
    }

    /// Makes a draft that is whole and on disk the compiled form of a program.
    pub(crate) fn keep(&self, draft: TempPath, module: &Digest) -> io::Result<()> {
        let mut checksum_file = NamedTempFile::new_in(&self.folder)?;
        checksum_file.write_all(checksum(&draft)?.as_bytes())?;
        checksum_file.as_file().sync_all()?;
        checksum_file.persist(self.path(module, CHECKSUM))?;
        draft.persist(self.path(module, CODE))?;
        File::open(&self.folder)?.sync_all()
    }

    /// Drops the compiled form of a program; what is loaded stays usable.
    pub(crate) fn forget(&self, module: &Digest) {
        for path in [CODE, CHECKSUM].map(|extension| self.path(module, extension)) {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    warn!(path = %path.display(), %error, "compiled code cannot be removed");
                }
                _ => {}
            }
        }
    }

    fn path(&self, module: &Digest, extension: &str) -> PathBuf {
        self.folder.join(module.hex()).with_extension(extension)
    }
}

/// The engine itself trusts the code it loads: a flipped bit would run.
fn checksum(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut sum = Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hexadecimal(&sum.finalize())),
            count => sum.update(&buffer[..count]),
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
        if entry.path().extension().is_none_or(|extension| extension != CODE && extension != CHECKSUM) {
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
        let cache = Cache::open(folder.path(), &new).unwrap();
        assert_eq!(fs::read_dir(&cache.folder).unwrap().count(), 2, "code and checksum");
        assert_eq!(cache.find(&digest).unwrap(), Some(cache.path(&digest, CODE)));
        assert_eq!(fs::metadata(&cache.folder).unwrap().permissions().mode() & 0o777, 0o700);
        cache.forget(&digest);
        cache.forget(&digest);
        assert_eq!(cache.find(&digest).unwrap(), None);
        assert_eq!(fs::read_dir(&cache.folder).unwrap().count(), 0);
    }
}
