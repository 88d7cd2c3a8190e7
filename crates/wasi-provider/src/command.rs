//! Which program a container runs: its command, found as a Linux runtime would find it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use coracle_lifecycle::{ContainerSpec, Digest, ImageModule, StartError};
use parking_lot::Mutex;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, open, openat, readlinkat, statat};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use crate::engine::hexadecimal;

/// Symbolic links on the way to a program, as many as Linux follows.
const MOST_LINKS: usize = 40;
/// Digests that are remembered; beyond that all are forgotten.
const MOST_DIGESTS: usize = 10_000;

/// Finds programs by their commands, and remembers their digests.
#[derive(Default)]
pub(crate) struct Commands {
    digests: Mutex<HashMap<Identity, Digest>>,
}

/// What tells a file, with its content, from all others.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Identity {
    place: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Commands {
    /// The program that this command line begins, in a container of this specification whose image has its files in `files`.
    /// It reads the disk.
    ///
    /// # Errors
    /// In the words of Linux runtimes: there is no command, or no such file.
    pub(crate) fn find(
        &self,
        spec: &ContainerSpec,
        files: &Path,
        command_line: &[String],
    ) -> Result<ImageModule, StartError> {
        let Some(command) = command_line.first() else {
            return Err(StartError::Invalid("no command specified".to_owned()));
        };
        let Found { path, file } = View::new(spec, files).find(command)?;
        let digest = self.digest(&file);
        let digest = digest.map_err(|error| StartError::Failed(format!("exec: {command:?}: {error}")))?;
        Ok(ImageModule { digest, path, name: command.clone() })
    }

    fn digest(&self, file: &File) -> io::Result<Digest> {
        let metadata = file.metadata()?;
        let identity = Identity {
            place: (metadata.dev(), metadata.ino()),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        };
        if let Some(digest) = self.digests.lock().get(&identity) {
            return Ok(digest.clone());
        }
        let digest = digest_of(file)?;
        let mut digests = self.digests.lock();
        if digests.len() >= MOST_DIGESTS {
            digests.clear();
        }
        digests.insert(identity, digest.clone());
        Ok(digest)
    }
}

fn digest_of(mut file: &File) -> io::Result<Digest> {
    let mut sum = Sha256::new();
    let mut buffer = vec![0; 128 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => sum.update(&buffer[..count]),
        }
    }
    Digest::parse(&format!("sha256:{}", hexadecimal(&sum.finalize()))).map_err(io::Error::other)
}

/// A program's file, open for reading.
#[derive(Debug)]
struct Found {
    path: PathBuf,
    file: File,
}

/// A directory of this machine, and where a container sees it.
struct Place<'a> {
    target: Vec<&'a str>,
    source: &'a Path,
}

/// What a container can find programs in: the image's files, and what is mounted over them.
struct View<'a> {
    places: Vec<Place<'a>>,
    directory: &'a str,
    search: String,
}

impl<'a> View<'a> {
    fn new(spec: &'a ContainerSpec, files: &'a Path) -> Self {
        let root = Place { target: Vec::new(), source: files };
        let mounts = spec.mounts.iter();
        let mounts =
            mounts.map(|mount| Place { target: names(&mount.target).collect(), source: &mount.source });
        let search = spec.environment().into_iter().find(|(name, _)| name == "PATH");
        Self {
            places: std::iter::once(root).chain(mounts).collect(),
            directory: spec.directory(),
            search: search.map(|(_, value)| value).unwrap_or_default(),
        }
    }

    /// The file that `command` names: by a path, or by a name that is looked for where `PATH` says.
    fn find(&self, command: &str) -> Result<Found, StartError> {
        let refused = |why: &str| StartError::Command(format!("exec: {command:?}: {why}"));
        if command.contains('/') {
            let path = format!("{}/{command}", if command.starts_with('/') { "" } else { self.directory });
            return self.file(&path).map_err(|error| match error {
                Errno::NOENT | Errno::NOTDIR => {
                    refused(&format!("stat {command}: no such file or directory"))
                }
                Errno::ISDIR => refused("is a directory"),
                Errno::LOOP => refused("too many levels of symbolic links"),
                error => refused(&io::Error::from(error).to_string()),
            });
        }
        let folders = self.search.split(':').filter(|folder| folder.starts_with('/') && !command.is_empty());
        let found = folders.map(|folder| self.file(&format!("{folder}/{command}"))).find_map(Result::ok);
        found.ok_or_else(|| refused("executable file not found in $PATH"))
    }

    /// The file of this path, links followed as the container would follow them.
    fn file(&self, path: &str) -> Result<Found, Errno> {
        let mut here: Vec<String> = Vec::new();
        let mut ahead: Vec<String> = names(path).map(str::to_owned).collect();
        ahead.reverse();
        let mut links = 0;
        while let Some(name) = ahead.pop() {
            if name == ".." {
                here.pop();
                continue;
            }
            here.push(name);
            if let Some(link) = self.link(&here)? {
                links += 1;
                if links > MOST_LINKS {
                    return Err(Errno::LOOP);
                }
                here.pop();
                if link.starts_with('/') {
                    here.clear();
                }
                ahead.extend(names(&link).map(str::to_owned).collect::<Vec<_>>().into_iter().rev());
            }
        }
        let (source, names) = self.place(&here);
        let file = opened(source, names, OFlags::RDONLY | OFlags::NONBLOCK)?;
        let kind = FileType::from_raw_mode(statat(&file, "", AtFlags::EMPTY_PATH)?.st_mode);
        match kind {
            FileType::RegularFile => Ok(Found {
                path: names.iter().fold(source.to_owned(), |path, name| path.join(name)),
                file: file.into(),
            }),
            FileType::Directory => Err(Errno::ISDIR),
            _ => Err(Errno::ACCESS),
        }
    }

    /// Where a path leads whose last name is a symbolic link.
    fn link(&self, path: &[String]) -> Result<Option<String>, Errno> {
        let (source, names) = self.place(path);
        if names.is_empty() {
            return Ok(None);
        }
        let file = opened(source, names, OFlags::PATH)?;
        let kind = FileType::from_raw_mode(statat(&file, "", AtFlags::EMPTY_PATH)?.st_mode);
        if kind != FileType::Symlink {
            return Ok(None);
        }
        let target = readlinkat(&file, "", Vec::new())?;
        target.into_string().map(Some).map_err(|_| Errno::NOENT)
    }

    /// Where a path lies on this machine: the innermost place, and the names within it.
    fn place<'p>(&self, path: &'p [String]) -> (&'a Path, &'p [String]) {
        let fits = |place: &&Place<'_>| {
            place.target.len() <= path.len() && place.target.iter().zip(path).all(|(one, other)| one == other)
        };
        let place = self.places.iter().filter(fits).max_by_key(|place| place.target.len());
        place.map_or((Path::new("/"), &[][..]), |place| (place.source, &path[place.target.len()..]))
    }
}

/// Opens a path name by name and follows no link, whoever changes it meanwhile.
fn opened(source: &Path, names: &[String], last: OFlags) -> Result<OwnedFd, Errno> {
    let through = OFlags::PATH | OFlags::CLOEXEC;
    let mut here = openat(CWD, source, through | OFlags::DIRECTORY, Mode::empty())?;
    for (index, name) in names.iter().enumerate() {
        let flags = if index + 1 == names.len() { last | OFlags::CLOEXEC } else { through };
        here = openat(&here, name.as_str(), flags | OFlags::NOFOLLOW, Mode::empty())?;
    }
    if names.is_empty() { open(source, last | OFlags::CLOEXEC, Mode::empty()) } else { Ok(here) }
}

fn names(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|name| !matches!(*name, "" | "."))
}

#[cfg(test)]
#[path = "command_tests.rs"]
mod tests;
