//! What a directory holds, in one digest.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use coracle_lifecycle::Digest;
use sha2::{Digest as _, Sha256};

use crate::digest::digest_of;

const BUFFER: usize = 128 * 1024;
/// Of so many files the content's hash is remembered; others are read again.
const MOST_KNOWN: usize = 65_536;

type Hash = [u8; 32];

/// Sums directories, and remembers the files that it has seen by their inodes: chains of layers share most of theirs. It must
/// not outlive a change of one of these files.
#[derive(Default)]
pub(crate) struct Sums {
    known: HashMap<u64, Hash>,
}

impl Sums {
    /// Takes note of a file of which the content went through `hasher`.
    pub(crate) fn note(&mut self, file: &File, hasher: Sha256) -> io::Result<()> {
        self.remember(file.metadata()?.ino(), hasher.finalize().into());
        Ok(())
    }

    fn remember(&mut self, inode: u64, hash: Hash) {
        if self.known.len() < MOST_KNOWN || self.known.contains_key(&inode) {
            self.known.insert(inode, hash);
        }
    }

    /// The digest of all names below `directory`, of what they are, may and hold. Times and owners say nothing of an image.
    pub(crate) fn of(&mut self, directory: &Path) -> io::Result<Digest> {
        let mut total = Hash::default();
        self.add(directory, directory, &mut total)?;
        Ok(digest_of(&total))
    }

    /// Adds what is in `directory` to `total`, in any order.
    fn add(&mut self, root: &Path, directory: &Path, total: &mut Hash) -> io::Result<()> {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let (path, metadata) = (entry.path(), entry.metadata()?);
            let name = path.strip_prefix(root).unwrap_or(&path).as_os_str().as_bytes();
            let mut hasher = Sha256::new();
            hasher.update((name.len() as u64).to_le_bytes());
            hasher.update(name);
            hasher.update(metadata.permissions().mode().to_le_bytes());
            if metadata.is_dir() {
                self.add(root, &path, total)?;
            } else if metadata.is_symlink() {
                hasher.update(fs::read_link(&path)?.as_os_str().as_bytes());
            } else {
                hasher.update(self.content(&path, metadata.ino())?);
            }
            let hash: Hash = hasher.finalize().into();
            total.iter_mut().zip(hash).for_each(|(sum, byte)| *sum ^= byte);
        }
        Ok(())
    }

    fn content(&mut self, path: &Path, inode: u64) -> io::Result<Hash> {
        if let Some(known) = self.known.get(&inode) {
            return Ok(*known);
        }
        let hash = hash_of(File::open(path)?)?.finalize().into();
        self.remember(inode, hash);
        Ok(hash)
    }
}

/// The hash of a file's content, read from where it stands to its end.
pub(crate) fn hash_of(mut file: File) -> io::Result<Sha256> {
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0; BUFFER]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher),
            count => hasher.update(&buffer[..count]),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn sample() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("d")).unwrap();
        fs::write(folder.path().join("d/one"), "one").unwrap();
        fs::write(folder.path().join("two"), "two").unwrap();
        symlink("d/one", folder.path().join("link")).unwrap();
        folder
    }

    fn sum(folder: &Path) -> Digest {
        Sums::default().of(folder).unwrap()
    }

    #[test]
    fn the_same_files_have_the_same_sum_and_any_change_another() {
        let expected = sum(sample().path());
        assert_eq!(sum(sample().path()), expected);
        let changes: [fn(&Path); 8] = [
            |folder| fs::write(folder.join("d/one"), "0ne").unwrap(),
            |folder| fs::write(folder.join("two"), "").unwrap(),
            |folder| fs::remove_file(folder.join("two")).unwrap(),
            |folder| fs::write(folder.join("three"), "").unwrap(),
            |folder| fs::rename(folder.join("two"), folder.join("d/two")).unwrap(),
            |folder| fs::set_permissions(folder.join("d"), fs::Permissions::from_mode(0o700)).unwrap(),
            |folder| fs::create_dir(folder.join("e")).unwrap(),
            |folder| {
                fs::remove_file(folder.join("link")).unwrap();
                symlink("d/one/", folder.join("link")).unwrap();
            },
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let folder = sample();
            change(folder.path());
            assert_ne!(sum(folder.path()), expected, "{number}");
        }
    }

    #[test]
    fn files_that_are_known_are_not_read() {
        let folder = sample();
        let mut sums = Sums::default();
        let path = folder.path().join("two");
        sums.note(&File::open(&path).unwrap(), Sha256::new_with_prefix("two")).unwrap();
        fs::write(path, "other").unwrap();
        assert_eq!(sums.of(folder.path()).unwrap(), sum(sample().path()));
    }
}
