use std::collections::HashMap;
use std::fs;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use coracle_lifecycle::{Digest, LocalImage};

use crate::disk::Disk;

/// The images that are here and whole, in memory, and how many users each blob has.
///
/// A blob lives while an image or a [`Hold`] has it, and its file goes with the last of them.
pub(crate) struct Catalog {
    disk: Arc<Disk>,
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    images: HashMap<String, Entry>,
    users: HashMap<Digest, usize>,
}

/// An image with all content that it needs.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) image: LocalImage,
    /// What its reference leads to: its manifest or the index before that.
    pub(crate) target: Digest,
    pub(crate) module_size: u64,
    pub(crate) blobs: Vec<Digest>,
}

/// Keeps blobs from going while a pull counts on them.
pub(crate) struct Hold {
    catalog: Arc<Catalog>,
    blobs: Vec<Digest>,
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
        state.retain(&entry.blobs);
        let before = state.images.insert(key, entry);
        self.release(state, &before.map(|entry| entry.blobs).unwrap_or_default());
    }

    /// Drops what is kept under `key`.
    pub(crate) fn remove(&self, key: &str) {
        let mut state = self.write();
        let before = state.images.remove(key);
        self.release(state, &before.map(|entry| entry.blobs).unwrap_or_default());
    }

    /// Keeps these blobs, those here and those to come, until the hold is dropped.
    pub(crate) fn hold(self: &Arc<Self>, blobs: Vec<Digest>) -> Hold {
        self.write().retain(&blobs);
        Hold { catalog: self.clone(), blobs }
    }

    fn release(&self, mut state: RwLockWriteGuard<'_, State>, blobs: &[Digest]) {
        let unused = state.release(blobs);
        // Out of the store while the lock is held, so that no pull can find them on their way out.
        let aside: Vec<_> = unused.iter().filter_map(|digest| self.disk.set_aside(digest)).collect();
        drop(state);
        for path in aside {
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "an unused blob stays until the next start");
            }
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn retain(&mut self, blobs: &[Digest]) {
        for blob in blobs {
            *self.users.entry(blob.clone()).or_default() += 1;
        }
    }

    /// The blobs that nobody uses any more.
    fn release(&mut self, blobs: &[Digest]) -> Vec<Digest> {
        let mut unused = Vec::new();
        for blob in blobs {
            if let Some(count) = self.users.get_mut(blob) {
                *count -= 1;
                if *count == 0 {
                    self.users.remove(blob);
                    unused.push(blob.clone());
                }
            }
        }
        unused
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.catalog.release(self.catalog.write(), &self.blobs);
    }
}
