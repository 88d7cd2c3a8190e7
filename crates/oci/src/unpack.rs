use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::fs::File;
use std::hash::BuildHasher;
use std::io::{self, Read, Write};

use coracle_lifecycle::Digest;
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::archive::{ArchiveError, Kind, Member, for_each, shown};
use crate::layer::{Archive, WINDOW};
use crate::sum::Sums;
use crate::tree::{Tree, is_of_the_asker, set_modified};

const BUFFER: usize = 128 * 1024;
/// What a name of something that is to go begins with
/// (<https://github.com/opencontainers/image-spec/blob/main/layer.md#whiteouts>).
const WHITEOUT: &str = ".wh.";
const OPAQUE: &str = ".wh..wh..opq";
/// Notes of one storage driver to itself.
const NOTES: &str = ".wh..wh.";

/// Why a layer cannot be unpacked.
#[derive(Debug, Error)]
pub(crate) enum UnpackError {
    #[error("{0}")]
    Malformed(String),
    #[error("{0}")]
    TooLarge(String),
    #[error("its content has the digest {actual}, the image's configuration promised {expected}")]
    OtherContent { expected: Digest, actual: Digest },
    #[error("{0}")]
    Disk(#[from] io::Error),
    #[error("nobody waits for it any more")]
    Abandoned,
}

impl From<ArchiveError> for UnpackError {
    fn from(error: ArchiveError) -> Self {
        match error {
            ArchiveError::Read(error) => Self::Disk(error),
            ArchiveError::Malformed(why) => Self::Malformed(why),
        }
    }
}

/// What may still be unpacked of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Budget {
    /// Bytes of all archives together.
    pub(crate) bytes: u64,
    /// Files, directories and links.
    pub(crate) entries: u64,
}

impl Budget {
    /// Counts so many entries.
    pub(crate) fn take(&mut self, entries: u64) -> Result<(), UnpackError> {
        let left = self.entries.checked_sub(entries);
        self.entries =
            left.ok_or_else(|| UnpackError::TooLarge("the image has too many files".to_owned()))?;
        Ok(())
    }
}

/// A layer, and who wants it.
pub(crate) struct Wanted<'a> {
    /// Its bytes, verified.
    pub(crate) file: File,
    /// The digest of its archive.
    pub(crate) diff: &'a Digest,
    /// Whether anybody still waits.
    pub(crate) is_awaited: &'a dyn Fn() -> bool,
}

/// Lays a layer over what is in `tree`, takes note of its files in `sums`, and says how many bytes they have. What is there
/// after an error is of no use.
pub(crate) fn unpack(
    wanted: Wanted<'_>,
    tree: &Tree,
    budget: &mut Budget,
    sums: &mut Sums,
) -> Result<u64, UnpackError> {
    let mut archive = Archive::open(wanted.file, budget.bytes)?;
    let limit = archive.limit();
    let mut overlay = Overlay::new(tree, budget, sums);
    let applied = for_each(&mut archive, |member, content| {
        if (wanted.is_awaited)() { overlay.apply(&member, content) } else { Err(UnpackError::Abandoned) }
    });
    let bytes = overlay.bytes;
    // What stands behind the archive's end belongs to its digest too.
    let applied = applied.and_then(|()| Ok(io::copy(&mut archive, &mut io::sink()).map(drop)?));
    let end = archive.finish()?;
    if end.is_too_large {
        return Err(UnpackError::TooLarge(format!("it unpacks to more than {limit} bytes")));
    }
    if end.is_beyond_window {
        let why = format!("it is compressed with a window of more than {WINDOW} bytes");
        return Err(UnpackError::TooLarge(why));
    }
    applied.map_err(of_the_stream)?;
    if end.digest == *wanted.diff {
        return Ok(bytes);
    }
    Err(UnpackError::OtherContent { expected: wanted.diff.clone(), actual: end.digest })
}

/// An error without a number of the system's comes from what is compressed.
fn of_the_stream(error: UnpackError) -> UnpackError {
    match error {
        UnpackError::Disk(cause) if cause.raw_os_error().is_none() => {
            UnpackError::Malformed(format!("it is damaged: {}", shown(cause.to_string().as_bytes())))
        }
        other => other,
    }
}

/// A layer on its way over a tree.
struct Overlay<'a> {
    tree: &'a Tree,
    budget: &'a mut Budget,
    sums: &'a mut Sums,
    /// Hashes of the paths that this layer has made: a whiteout means those below it only. Hashes, so that a hundred
    /// thousand paths take little memory; nobody can foresee them.
    made: HashSet<u64>,
    hashing: RandomState,
    buffer: Vec<u8>,
    bytes: u64,
}

impl<'a> Overlay<'a> {
    fn new(tree: &'a Tree, budget: &'a mut Budget, sums: &'a mut Sums) -> Self {
        let (made, hashing) = (HashSet::new(), RandomState::new());
        Self { tree, budget, sums, made, hashing, buffer: vec![0; BUFFER], bytes: 0 }
    }

    fn apply(&mut self, member: &Member, content: &mut dyn Read) -> Result<(), UnpackError> {
        self.budget.take(1)?;
        let Some((name, parents)) = member.path.split_last() else { return Ok(()) };
        if name == OPAQUE {
            return self.clear(parents);
        }
        if name.starts_with(NOTES) {
            return Ok(());
        }
        match name.strip_prefix(WHITEOUT) {
            Some("" | "." | "..") => {
                Err(UnpackError::Malformed(format!("{} hides no file", shown(name.as_bytes()))))
            }
            Some(hidden) => {
                let path: Vec<String> = parents.iter().cloned().chain([hidden.to_owned()]).collect();
                self.hide(&path)
            }
            None => self.put(member, content),
        }
    }

    fn put(&mut self, member: &Member, content: &mut dyn Read) -> Result<(), UnpackError> {
        let path = &member.path;
        let made = match &member.kind {
            Kind::Directory => self.tree.put_directory(path, member.mode),
            Kind::SymbolicLink(target) => self.tree.put_symbolic_link(path, target),
            Kind::HardLink(target) => self.tree.put_hard_link(path, target),
            Kind::Special => self.tree.remove(path),
            Kind::File(size) => {
                let file = self.tree.create(path, member.mode).map_err(|error| at(path, error))?;
                self.fill((file, member.modified), *size, content).map_err(|error| match error {
                    UnpackError::Malformed(why) => UnpackError::Malformed(format!("{}: {why}", joined(path))),
                    other => other,
                })?;
                Ok(())
            }
        };
        made.map_err(|error| at(path, error))?;
        for length in 1..=path.len() {
            self.made.insert(self.hashing.hash_one(&path[..length]));
        }
        Ok(())
    }

    fn fill(
        &mut self,
        (mut file, modified): (File, i64),
        size: u64,
        content: &mut dyn Read,
    ) -> Result<(), UnpackError> {
        let (mut left, mut hasher) = (size, Sha256::new());
        while left > 0 {
            let room = usize::try_from(left).unwrap_or(BUFFER).min(BUFFER);
            let count = content.read(&mut self.buffer[..room])?;
            if count == 0 {
                return Err(UnpackError::Malformed("it is cut off".to_owned()));
            }
            file.write_all(&self.buffer[..count])?;
            hasher.update(&self.buffer[..count]);
            left -= count as u64;
        }
        self.bytes = self.bytes.saturating_add(size);
        self.sums.note(&file, hasher)?;
        Ok(set_modified(&file, modified)?)
    }

    /// Hides what layers below have of this path.
    fn hide(&mut self, path: &[String]) -> Result<(), UnpackError> {
        if self.is_made(path) {
            return self.clear(path);
        }
        self.tree.remove(path).map_err(|error| at(path, error))
    }

    /// Hides all that layers below have in this directory.
    fn clear(&mut self, path: &[String]) -> Result<(), UnpackError> {
        for name in self.tree.names(path).map_err(|error| at(path, error))? {
            let below: Vec<String> = path.iter().cloned().chain([name]).collect();
            self.hide(&below)?;
        }
        Ok(())
    }

    fn is_made(&self, path: &[String]) -> bool {
        self.made.contains(&self.hashing.hash_one(path))
    }
}

fn joined(path: &[String]) -> String {
    shown(path.join("/").as_bytes())
}

fn at(path: &[String], error: io::Error) -> UnpackError {
    if is_of_the_asker(&error) {
        UnpackError::Malformed(format!("{} cannot be made: {error}", joined(path)))
    } else {
        UnpackError::Disk(error)
    }
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;
