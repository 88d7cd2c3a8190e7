//! The files of images: one directory for each chain of layers, with all files that the chain makes. What a chain has
//! from the one below it are further names of the same files, so each layer is kept once.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use coracle_lifecycle::Digest;
use serde::{Deserialize, Serialize};

use crate::disk::{Disk, read_limited};
use crate::spread::{Way, spread};
use crate::sum::Sums;
use crate::tree::Tree;
use crate::unpack::{Budget, UnpackError, Wanted, unpack};

const FILES: &str = "files";
const FACTS: &str = "facts.json";
const FACTS_LIMIT: u64 = 64 * 1024;

/// What is known of a tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Facts {
    /// The bytes of its files, those of the chain below counted too.
    pub(crate) bytes: u64,
    /// How many names are in it.
    pub(crate) entries: u64,
    /// What all of it sums up to.
    sum: String,
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

    /// Whether the files of a chain are what they were when they were made. All of them are read.
    pub(crate) fn is_as_made(&self, chain: &Digest) -> io::Result<bool> {
        let Some(facts) = self.facts(chain) else { return Ok(false) };
        Ok(Sums::default().of(&self.files(chain))?.as_str() == facts.sum)
    }

    /// Makes the files of a chain, unless they are here. They get their name when all of them are right.
    pub(crate) fn grow(
        &self,
        Chain { chain, below }: &Chain<'_>,
        wanted: Wanted<'_>,
        budget: &mut Budget,
        sums: &mut Sums,
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
        bytes += unpack(wanted, &Tree::open(&files)?, budget, sums)?;
        let entries = entries.saturating_sub(budget.entries);
        let known = below.and_then(|below| self.facts(below)).map_or(0, |facts| facts.entries);
        let sum = sums.of(&files)?.to_string();
        let facts = Facts { bytes, entries: known.saturating_add(entries), sum };
        fs::write(draft.path().join(FACTS), serde_json::to_vec(&facts).map_err(io::Error::from)?)?;
        Ok(self.keep_tree(draft, chain)?)
    }
}
