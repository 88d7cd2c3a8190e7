use std::io::{self, Read};
use std::mem;

use tar::{EntryType, Header};
use thiserror::Error;

use crate::tree::MOST_LEVELS;

/// The most bytes of what stands before a member to extend its header: paths and attributes.
const EXTENSION_LIMIT: u64 = 1024 * 1024;
/// The longest path of a member, and the longest name in it: what Linux takes.
const PATH_LIMIT: usize = 4096;
const NAME_LIMIT: usize = 255;
/// How much of a name an error message repeats.
const NAME_SHOWN: usize = 100;
const SPARSE: &str = "sparse files are not supported";

/// Why an archive cannot be read on.
#[derive(Debug, Error)]
pub(crate) enum ArchiveError {
    /// The stream ended with an error: of the disk, or because what is compressed is damaged.
    #[error("it cannot be read: {0}")]
    Read(#[source] io::Error),
    #[error("{0}")]
    Malformed(String),
}

/// A member of an archive. Its path has no `.`, no `..` and no empty name in it; that of the root is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) path: Vec<String>,
    pub(crate) kind: Kind,
    /// The permission bits alone.
    pub(crate) mode: u32,
    /// Seconds since 1970.
    pub(crate) modified: i64,
}

/// What a member is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    /// Of so many bytes.
    File(u64),
    /// To any text at all.
    SymbolicLink(String),
    /// To another member.
    HardLink(Vec<String>),
    /// A device or FIFO, which no guest could open.
    Special,
}

/// What stood before a member to extend its header.
#[derive(Debug, Default)]
struct Extension {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    modified: Option<i64>,
}

/// Shows each member, with its content, in the order of the archive. Nothing of it is believed to be short: what would
/// lie in memory has limits.
pub(crate) fn for_each<E: From<ArchiveError>>(
    source: impl Read,
    mut visit: impl FnMut(Member, &mut dyn Read) -> Result<(), E>,
) -> Result<(), E> {
    let mut archive = tar::Archive::new(source);
    let mut extension = Extension::default();
    // Raw, because the library would read extensions of any length into memory.
    for entry in archive.entries().map_err(damaged)?.raw(true) {
        let mut entry = entry.map_err(damaged)?;
        match entry.header().entry_type() {
            EntryType::XGlobalHeader => {}
            EntryType::XHeader => extension.take(&bounded(&mut entry)?)?,
            EntryType::GNULongName => extension.path = Some(until_nul(bounded(&mut entry)?)),
            EntryType::GNULongLink => extension.link = Some(until_nul(bounded(&mut entry)?)),
            _ => {
                let member = member(entry.header(), mem::take(&mut extension))?;
                visit(member, &mut entry)?;
            }
        }
    }
    Ok(())
}

/// The library tells what is malformed as it tells errors of the stream; only the system's have a number.
fn damaged(error: io::Error) -> ArchiveError {
    if error.raw_os_error().is_some() {
        ArchiveError::Read(error)
    } else {
        malformed(format!("the archive is damaged: {}", shown(error.to_string().as_bytes())))
    }
}

fn malformed(why: impl Into<String>) -> ArchiveError {
    ArchiveError::Malformed(why.into())
}

fn bounded(entry: &mut impl Read) -> Result<Vec<u8>, ArchiveError> {
    let mut bytes = Vec::new();
    entry.take(EXTENSION_LIMIT + 1).read_to_end(&mut bytes).map_err(damaged)?;
    if bytes.len() as u64 > EXTENSION_LIMIT {
        return Err(malformed(format!("a header is longer than {EXTENSION_LIMIT} bytes")));
    }
    Ok(bytes)
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    bytes.truncate(end);
    bytes
}

impl Extension {
    /// Takes the records of a PAX header (<https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html>).
    fn take(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        for (key, value) in records(bytes)? {
            let text = || std::str::from_utf8(value).unwrap_or_default();
            match key {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => {
                    let size = text().parse();
                    self.size = Some(size.map_err(|_| malformed("a member has an impossible size"))?);
                }
                b"mtime" => {
                    let seconds = text().split('.').next().unwrap_or_default();
                    self.modified = seconds.parse().ok();
                }
                key if key.starts_with(b"GNU.sparse.") => {
                    return Err(malformed(SPARSE));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The key and value of a record in a PAX header.
type Record<'a> = (&'a [u8], &'a [u8]);

/// The records of a PAX header. The library's own reader stops at line breaks within a value, which the
/// attributes of real files have.
fn records(mut rest: &[u8]) -> Result<Vec<Record<'_>>, ArchiveError> {
    let damaged = || malformed("a PAX header is damaged");
    let mut records = Vec::new();
    while !rest.is_empty() {
        let space = rest.iter().position(|byte| *byte == b' ').ok_or_else(damaged)?;
        let length = std::str::from_utf8(&rest[..space]).ok().and_then(|text| text.parse().ok());
        let length: usize = length.ok_or_else(damaged)?;
        let record = rest.get(space + 1..length).and_then(|record| record.strip_suffix(b"\n"));
        let record = record.ok_or_else(damaged)?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(damaged)?;
        records.push((&record[..equals], &record[equals + 1..]));
        rest = &rest[length..];
    }
    Ok(records)
}

fn member(header: &Header, extension: Extension) -> Result<Member, ArchiveError> {
    let raw_path = extension.path.unwrap_or_else(|| header.path_bytes().into_owned());
    let path = components(&raw_path)?;
    let size = header.entry_size().map_err(damaged)?;
    if extension.size.is_some_and(|longer| longer != size) {
        return Err(malformed(format!("{} is too large for its header", shown(&raw_path))));
    }
    let link = || {
        let of_header = || header.link_name_bytes().map(std::borrow::Cow::into_owned);
        let link = extension.link.or_else(of_header).filter(|link| !link.is_empty());
        link.ok_or_else(|| malformed(format!("{} is a link to nothing", shown(&raw_path))))
    };
    let kind = match header.entry_type() {
        EntryType::Directory => Kind::Directory,
        // As archives older than the type of a directory have it.
        EntryType::Regular if raw_path.ends_with(b"/") => Kind::Directory,
        EntryType::Regular | EntryType::Continuous => Kind::File(size),
        EntryType::Symlink => Kind::SymbolicLink(target(&link()?)?),
        EntryType::Link => Kind::HardLink(components(&link()?)?),
        EntryType::Char | EntryType::Block | EntryType::Fifo => Kind::Special,
        EntryType::GNUSparse => return Err(malformed(SPARSE)),
        other => {
            let kind = char::from(other.as_byte()).escape_debug().to_string();
            return Err(malformed(format!("{} is of the unknown type {kind}", shown(&raw_path))));
        }
    };
    let of_header = || header.mtime().ok().and_then(|seconds| i64::try_from(seconds).ok());
    let modified = extension.modified.or_else(of_header).unwrap_or_default();
    Ok(Member { path, kind, mode: header.mode().unwrap_or(0o644) & 0o777, modified })
}

/// The names of a path. An absolute one is one from the image's root, as all tools read it.
fn components(path: &[u8]) -> Result<Vec<String>, ArchiveError> {
    let text = target(path)?;
    let mut names = Vec::new();
    for name in text.split('/') {
        match name {
            "" | "." => {}
            ".." => return Err(malformed(format!("the path {} leads out of it", shown(path)))),
            name if name.len() > NAME_LIMIT => {
                return Err(malformed(format!("the name {} is too long", shown(name.as_bytes()))));
            }
            name => names.push(name.to_owned()),
        }
    }
    if names.len() > MOST_LEVELS {
        return Err(malformed(format!("the path {} is too deep", shown(path))));
    }
    Ok(names)
}

/// A path as a guest could read it.
fn target(path: &[u8]) -> Result<String, ArchiveError> {
    if path.len() > PATH_LIMIT || path.contains(&0) {
        return Err(malformed(format!("the path {} is no path", shown(path))));
    }
    let text = String::from_utf8(path.to_vec());
    text.map_err(|_| malformed(format!("the path {} is not UTF-8, which WASI asks for", shown(path))))
}

/// A name from outside, safe to print.
pub(crate) fn shown(name: &[u8]) -> String {
    format!("\"{}\"", name[..name.len().min(NAME_SHOWN)].escape_ascii())
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
