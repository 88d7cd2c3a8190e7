//! What a container sees of files beside those of its image: its mounts, `/etc`, `/dev`, `/tmp`, and where it leaves its
//! last words.

mod aliases;
pub(super) mod beneath;
mod furnishing;
mod message;
mod mounts;
mod names;
mod views;

pub(super) use furnishing::{Furnishing, FurnishingError};
pub(super) use message::LastWords;
pub(super) use mounts::{Copies, MountsError, resolve};
pub(super) use names::Names;
pub(crate) use names::Naming;

use std::path::{Path, PathBuf};

use coracle_lifecycle::Mount;

/// The mount in which an absolute path of a container lies, the innermost one, and the rest of the path.
fn place<'m, 'p>(mounts: &'m [Mount], path: &'p str) -> Option<(&'m Mount, &'p Path)> {
    let holds = mounts.iter().filter(|mount| Path::new(path).starts_with(&mount.target));
    let mount = holds.max_by_key(|mount| mount.target.len())?;
    Some((mount, Path::new(path).strip_prefix(&mount.target).ok()?))
}

/// The file of a container at an absolute path, as a directory and the path in it.
fn open(root: &Path, mounts: &[Mount], path: &str) -> std::io::Result<(beneath::Beneath, PathBuf)> {
    match place(mounts, path) {
        None => Ok((beneath::Beneath::root(root)?, relative(path).to_owned())),
        Some((mount, rest)) => Ok((beneath::Beneath::volume(&mount.source)?, rest.to_owned())),
    }
}

fn relative(path: &str) -> &Path {
    Path::new(path.trim_start_matches('/'))
}

/// The absolute path that a path in a pod's manifest stands for.
fn normal(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}
