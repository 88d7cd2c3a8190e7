//! The files of images: one directory for each chain of layers, with all files that the chain makes. What a chain has
//! from the one below it are further names of the same files, so each layer is kept once.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use coracle_lifecycle::Digest;
use rustix::fs::{AtFlags, Mode, OFlags, openat, statat, syncfs};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::disk::{Disk, read_limited};
use crate::spread::{Way, spread};
use crate::tree::Tree;
use crate::unpack::{Budget, UnpackError, Wanted, unpack};

const FILES: &str = "files";
const FACTS: &str = "facts.json";
/// Its presence says that all of the tree has reached the disk.
const DURABLE: &str = "durable";
const FACTS_LIMIT: u64 = 64 * 1024;
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// What is known of a tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Facts {
    /// The bytes of its files, those of the chain below counted too.
    pub(crate) bytes: u64,
    /// How many names are in it.
    pub(crate) entries: u64,
    /// The boot of the machine that it was made in.
    boot: String,
}

/// A chain of layers to be made from the chain below and its own layer.
pub(crate) struct Chain<'a> {
    pub(crate) chain: &'a Digest,
    pub(crate) below: Option<&'a Digest>,
}

impl Disk {
    /// The files of a chain, whether they are here or not.
    pub(crate) fn files(&self, chain: &Digest) -> PathBuf {
        self.tree(chain).join(FILES)
    }

    /// What is known of the files of a chain; `None` when they are not here.
    pub(crate) fn facts(&self, chain: &Digest) -> Option<Facts> {
        let bytes = read_limited(&self.tree(chain).join(FACTS), FACTS_LIMIT).ok()?;
        serde_json::from_slice(&bytes).ok().filter(|_| self.files(chain).is_dir())
    }

    /// Whether the files of a chain can be trusted: they are on disk, or the machine has not been down since.
    pub(crate) fn is_sound(&self, chain: &Digest) -> bool {
        let is_of_now = || self.facts(chain).is_some_and(|facts| facts.boot == boot());
        self.tree(chain).join(DURABLE).exists() || is_of_now()
    }

    /// Makes the files of a chain, unless they are here. They get their name when all of them are right.
    pub(crate) fn grow(
        &self,
        Chain { chain, below }: &Chain<'_>,
        wanted: Wanted<'_>,
        budget: &mut Budget,
    ) -> Result<(), UnpackError> {
        let draft = self.unfinished_directory()?;
        let files = draft.path().join(FILES);
        fs::create_dir(&files)?;
        fs::set_permissions(&files, Permissions::from_mode(0o755))?;
        let before = below.and_then(|below| Some((self.files(below), self.facts(below)?)));
        let mut bytes = 0;
        if let Some((source, facts)) = before {
            budget.take(facts.entries)?;
            budget.bytes = budget.bytes.saturating_sub(facts.bytes);
            spread(&source, &files, Way::Link)?;
            bytes = facts.bytes;
        }
        let entries = budget.entries;
        bytes += unpack(wanted, &Tree::open(&files)?, budget)?;
        let entries = entries.saturating_sub(budget.entries);
        let known = below.and_then(|below| self.facts(below)).map_or(0, |facts| facts.entries);
        let facts = Facts { bytes, entries: known.saturating_add(entries), boot: boot() };
        fs::write(draft.path().join(FACTS), serde_json::to_vec(&facts).map_err(io::Error::from)?)?;
        Ok(self.keep_tree(draft, chain)?)
    }

    /// Sees to it that the files of these chains are on disk, and notes it with those that are still here then.
    pub(crate) fn make_durable(&self, chains: &[Digest]) -> io::Result<()> {
        // Open before, so that no note goes to a tree that takes the place of one of these meanwhile.
        let trees = chains.iter().filter_map(|chain| File::open(self.tree(chain)).ok());
        let is_fleeting = |tree: &File| statat(tree, DURABLE, AtFlags::empty()).is_err();
        let fleeting: Vec<File> = trees.filter(is_fleeting).collect();
        let Some(first) = fleeting.first() else { return Ok(()) };
        syncfs(first)?;
        fleeting.iter().try_for_each(|tree| {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
            match openat(tree, DURABLE, flags, Mode::from_raw_mode(0o600)) {
                Ok(_) | Err(Errno::NOENT) => Ok(()),
                Err(error) => Err(error.into()),
            }
        })
    }
}

/// What tells this boot of the machine from all others.
fn boot() -> String {
    fs::read_to_string(Path::new(BOOT)).unwrap_or_default().trim().to_owned()
}
