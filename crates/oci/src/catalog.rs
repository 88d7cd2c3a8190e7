use std::collections::HashMap;
use std::sync::Arc;

use coracle_lifecycle::{Digest, ImageContent, LocalImage};
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::disk::{Disk, Part, remove_aside};

/// The images that are here and whole, in memory, and how many users each part has.
///
/// A part lives while an image or a [`Hold`] has it, and its files go with the last of them.
pub(crate) struct Catalog {
    disk: Arc<Disk>,
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    images: HashMap<String, Entry>,
    users: HashMap<Part, usize>,
}

/// An image with all content that it needs.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) image: LocalImage,
    /// What its reference leads to: its manifest or the index before that.
    pub(crate) target: Digest,
    /// The demand of the image policy that it met when it was pulled.
    pub(crate) verified: Option<Digest>,
    /// The bytes of a bare artifact's program.
    pub(crate) module_size: u64,
    pub(crate) parts: Vec<Part>,
}

impl Entry {
    /// Whether what would be run of it is still here: one look at the disk, of microseconds.
    pub(crate) fn is_whole(&self, disk: &Disk) -> bool {
        match &self.image.content {
            ImageContent::Program(module) => disk.holds(&module.digest, self.module_size),
            ImageContent::Files(files) => files.directory.is_dir(),
        }
    }

    /// The part that is run, or that is given to containers.
    pub(crate) fn content(&self) -> Part {
        match &self.image.content {
            ImageContent::Program(module) => Part::Blob(module.digest.clone()),
            ImageContent::Files(files) => Part::Tree(files.chain.clone()),
        }
    }
}

/// Keeps parts from going while a pull counts on them.
pub(crate) struct Hold {
    catalog: Arc<Catalog>,
    parts: Vec<Part>,
}

impl Catalog {
    pub(crate) fn new(disk: Arc<Disk>) -> Self {
        Self { disk, state: RwLock::default() }
    }

    /// The image kept under `key`.
    pub(crate) fn find(&self, key: &str) -> Option<Entry> {
        self.read().images.get(key).cloned()
    }

    /// All entries with their keys.
    pub(crate) fn entries(&self) -> Vec<(String, Entry)> {
        self.read().images.iter().map(|(key, entry)| (key.clone(), entry.clone())).collect()
    }

    /// Keeps `entry` under `key`, in the place of what was there.
    pub(crate) fn insert(&self, key: String, entry: Entry) {
        let mut state = self.write();
        state.retain(&entry.parts);
        let before = state.images.insert(key, entry);
        self.release(state, &before.map(|entry| entry.parts).unwrap_or_default());
    }

    /// Drops what is kept under `key`.
    pub(crate) fn remove(&self, key: &str) {
        let mut state = self.write();
        let before = state.images.remove(key);
        self.release(state, &before.map(|entry| entry.parts).unwrap_or_default());
    }

    /// Keeps these parts, those here and those to come, until the hold is dropped.
    pub(crate) fn hold(self: &Arc<Self>, parts: Vec<Part>) -> Hold {
        self.write().retain(&parts);
        Hold { catalog: self.clone(), parts }
    }

    fn release(&self, mut state: RwLockWriteGuard<'_, State>, parts: &[Part]) {
        let unused = state.release(parts);
        // Out of the store while the lock is held, so that no pull can find them on their way out.
        let aside: Vec<_> = unused.iter().filter_map(|part| self.disk.set_aside(part)).collect();
        drop(state);
        for path in aside {
            if let Err(error) = remove_aside(&path) {
                tracing::warn!(path = %path.display(), %error, "an unused part stays until the next start");
            }
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read()
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write()
    }
}

impl State {
    fn retain(&mut self, parts: &[Part]) {
        for part in parts {
            *self.users.entry(part.clone()).or_default() += 1;
        }
    }

    /// The parts that nobody uses any more.
    fn release(&mut self, parts: &[Part]) -> Vec<Part> {
        let mut unused = Vec::new();
        for part in parts {
            if let Some(count) = self.users.get_mut(part) {
                *count -= 1;
                if *count == 0 {
                    self.users.remove(part);
                    unused.push(part.clone());
                }
            }
        }
        unused
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.catalog.release(self.catalog.write(), &self.parts);
    }
}
