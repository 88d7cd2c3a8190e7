use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use coracle_lifecycle::Digest;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tempfile::{NamedTempFile, TempDir};

use crate::digest::{digest, digest_of};
use crate::spread::Sharing;
use crate::sum::hash_of;

/// No reference, and so no record of one, comes near this many bytes.
const RECORD_LIMIT: u64 = 64 * 1024;

/// The store's files. What is not whole lies under `unfinished` and is gone after the next open; everything else was
/// renamed into place once it was right. What a process before this one made is read again before it is used.
#[derive(Debug)]
pub(crate) struct Disk {
    blobs: PathBuf,
    trees: PathBuf,
    references: PathBuf,
    unfinished: PathBuf,
    /// What this process has made or read.
    proven: Mutex<HashSet<Part>>,
    /// Whoever reads a part again has this, so that it is done once.
    proving: Mutex<()>,
}

/// A piece of what the store keeps.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Part {
    /// The content of a digest.
    Blob(Digest),
    /// The files that layers make together, by their chain id.
    Tree(Digest),
}

/// Where a reference led when it was last pulled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) reference: String,
    /// The manifest or index it led to.
    pub(crate) target: Digest,
    /// The demand of the image policy that was met then.
    #[serde(default)]
    pub(crate) verified: Option<Digest>,
}

impl Disk {
    /// Makes the store's directories, for their owner alone, and removes what was left unfinished.
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        let disk = Self {
            blobs: directory.join("blobs").join("sha256"),
            trees: directory.join("trees"),
            references: directory.join("references"),
            unfinished: directory.join("unfinished"),
            proven: Mutex::default(),
            proving: Mutex::default(),
        };
        let folders = [&disk.blobs, &disk.trees, &disk.references, &disk.unfinished];
        for folder in [directory, &directory.join("blobs")].into_iter().chain(folders.map(PathBuf::as_path)) {
            make_private(folder)?;
        }
        for leftover in fs::read_dir(&disk.unfinished)? {
            let leftover = leftover?.path();
            Sharing::end_trial(&leftover)?;
            remove_aside(&leftover)?;
        }
        Ok(disk)
    }

    /// Where the content of `digest` lies when it is here.
    pub(crate) fn path(&self, digest: &Digest) -> PathBuf {
        self.blobs.join(digest.hex())
    }

    /// Whether `size` bytes of `digest` are here.
    pub(crate) fn holds(&self, digest: &Digest, size: u64) -> bool {
        self.path(digest).metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() == size)
    }

    /// Whether a part is right for all that this process knows: it has made it, or read it since.
    pub(crate) fn is_proven(&self, part: &Part) -> bool {
        self.proven.lock().contains(part)
    }

    /// Reads a part again, unless this process knows that it is right, and removes one that is damaged. Says whether
    /// it is here.
    pub(crate) fn prove(&self, part: &Part) -> bool {
        let _turn = self.proving.lock();
        if self.is_proven(part) {
            return true;
        }
        match self.is_right(part) {
            Ok(true) => {
                self.note_proven(part);
                return true;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return false,
            Ok(false) => tracing::warn!(?part, "damaged content of the image store is removed"),
            Err(error) => {
                tracing::warn!(?part, %error, "content of the image store cannot be read, and is removed");
            }
        }
        if let Some(Err(error)) = self.set_aside(part).map(|aside| remove_aside(&aside)) {
            tracing::warn!(?part, %error, "damaged content stays until the next start");
        }
        false
    }

    fn is_right(&self, part: &Part) -> io::Result<bool> {
        match part {
            Part::Blob(wanted) => Ok(digest(hash_of(File::open(self.path(wanted))?)?) == *wanted),
            Part::Tree(chain) => self.is_as_made(chain),
        }
    }

    fn note_proven(&self, part: &Part) {
        self.proven.lock().insert(part.clone());
    }

    /// The first four bytes of content that is here, zero where it is shorter.
    pub(crate) fn head(&self, digest: &Digest) -> io::Result<[u8; 4]> {
        let mut bytes = Vec::with_capacity(4);
        File::open(self.path(digest))?.take(4).read_to_end(&mut bytes)?;
        bytes.resize(4, 0);
        Ok([bytes[0], bytes[1], bytes[2], bytes[3]])
    }

    /// A new unfinished file; it is gone when it is dropped.
    pub(crate) fn unfinished(&self) -> io::Result<NamedTempFile> {
        NamedTempFile::new_in(&self.unfinished)
    }

    /// Makes `file`, whose content was verified, the content of `digest`.
    pub(crate) fn keep(&self, file: NamedTempFile, digest: &Digest) -> io::Result<()> {
        put(file, &self.path(digest))?;
        self.note_proven(&Part::Blob(digest.clone()));
        Ok(())
    }

    /// Writes small content, of which the digest was verified.
    pub(crate) fn keep_bytes(&self, bytes: &[u8], digest: &Digest) -> io::Result<()> {
        self.write(bytes, &self.path(digest))?;
        self.note_proven(&Part::Blob(digest.clone()));
        Ok(())
    }

    /// The content of `digest`, verified, if it is here and no longer than `limit` bytes.
    pub(crate) fn read(&self, digest: &Digest, limit: u64) -> io::Result<Vec<u8>> {
        let bytes = read_limited(&self.path(digest), limit)?;
        if digest_of(&bytes) == *digest {
            self.note_proven(&Part::Blob(digest.clone()));
            return Ok(bytes);
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, format!("{digest} is damaged")))
    }

    /// Where the files of a chain of layers lie when they are here: a directory with more of them in it.
    pub(crate) fn tree(&self, chain: &Digest) -> PathBuf {
        self.trees.join(chain.hex())
    }

    /// A new unfinished directory; it is gone when it is dropped.
    pub(crate) fn unfinished_directory(&self) -> io::Result<TempDir> {
        TempDir::new_in(&self.unfinished)
    }

    /// Makes a directory that is whole the files of a chain, unless they are here.
    pub(crate) fn keep_tree(&self, directory: TempDir, chain: &Digest) -> io::Result<()> {
        let (place, part) = (self.tree(chain), Part::Tree(chain.clone()));
        if self.facts(chain).is_none()
            && let Some(remains) = self.set_aside(&part)
        {
            remove_aside(&remains)?;
        }
        // Before it is there: nobody may look at it and find that it is not known to be right.
        self.note_proven(&part);
        match fs::rename(directory.path(), &place) {
            Ok(()) => {
                // What it was is gone from its old place; there is nothing to remove.
                let _ = directory.keep();
                sync_directory(&self.trees)
            }
            Err(_) if place.is_dir() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Takes a part out of the store at once; the path returned is still to be removed.
    pub(crate) fn set_aside(&self, part: &Part) -> Option<PathBuf> {
        let (place, digest, kind) = match part {
            Part::Blob(digest) => (self.path(digest), digest, "blob"),
            Part::Tree(digest) => (self.tree(digest), digest, "tree"),
        };
        let aside = self.unfinished.join(format!("{}.{kind}.removed", digest.hex()));
        self.proven.lock().remove(part);
        fs::rename(place, &aside).is_ok().then_some(aside)
    }

    /// All that is here.
    pub(crate) fn parts(&self) -> io::Result<Vec<Part>> {
        let blobs = digests(&self.blobs)?.into_iter().map(Part::Blob);
        Ok(blobs.chain(digests(&self.trees)?.into_iter().map(Part::Tree)).collect())
    }

    /// Writes where a reference leads; the record before is there until this one is.
    pub(crate) fn record(&self, record: &Record) -> io::Result<()> {
        self.write(&serde_json::to_vec(record)?, &self.record_path(&record.reference))
    }

    /// Removes the record of `reference`, if there is one.
    pub(crate) fn forget(&self, reference: &str) -> io::Result<()> {
        match fs::remove_file(self.record_path(reference)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => sync_directory(&self.references),
        }
    }

    /// All records that can be read; files that are none are removed.
    pub(crate) fn records(&self) -> io::Result<Vec<Record>> {
        let mut records = Vec::new();
        for entry in fs::read_dir(&self.references)? {
            let path = entry?.path();
            match self.read_record(&path) {
                Ok(record) => records.push(record),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "a damaged image record is removed");
                    fs::remove_file(&path)?;
                }
            }
        }
        Ok(records)
    }

    fn read_record(&self, path: &Path) -> io::Result<Record> {
        let record: Record = serde_json::from_slice(&read_limited(path, RECORD_LIMIT)?)?;
        if self.record_path(&record.reference) == path {
            return Ok(record);
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, "it is the record of another reference"))
    }

    fn record_path(&self, reference: &str) -> PathBuf {
        self.references.join(format!("{}.json", digest_of(reference.as_bytes()).hex()))
    }

    /// Writes a small file beside `path` and renames it.
    pub(crate) fn write(&self, bytes: &[u8], path: &Path) -> io::Result<()> {
        let mut file = self.unfinished()?;
        file.write_all(bytes)?;
        put(file, path)
    }
}

/// Removes what was set aside.
pub(crate) fn remove_aside(path: &Path) -> io::Result<()> {
    if path.symlink_metadata()?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

/// The names in a directory that are digests.
fn digests(directory: &Path) -> io::Result<Vec<Digest>> {
    let names = fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name()));
    let names: Vec<_> = names.collect::<io::Result<_>>()?;
    Ok(names.iter().filter_map(|name| Digest::parse(&format!("sha256:{}", name.to_str()?)).ok()).collect())
}

/// Renames `file` to `path` once it is on disk, and returns once the name is there too.
fn put(file: NamedTempFile, path: &Path) -> io::Result<()> {
    file.as_file().sync_all()?;
    file.persist(path)?;
    path.parent().map_or(Ok(()), sync_directory)
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(directory)?.sync_all() } else { Ok(()) }
}

/// A file, when it has no more than `limit` bytes.
pub(crate) fn read_limited(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it is longer than {limit} bytes")));
    }
    Ok(bytes)
}

#[cfg(unix)]
fn make_private(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700))
}

#[cfg(not(unix))]
fn make_private(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)
}
