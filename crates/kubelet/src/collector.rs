//! Lets images go that nobody needs, when the disk is full or they are old.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use coracle_lifecycle::{
    CollectionRules, Digest, Fill, HeldImage, ImageError, Images, LocalImage, Provider, collect,
    full_reference,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use rustix::fs::statvfs;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tracing::{info, warn};

use crate::access::Access;
use crate::clock::now;
use crate::events::Recorder;
use crate::pods::PodDirectory;

/// How often it is looked after what images are used and how full the disk is.
const PERIOD: Duration = Duration::from_secs(10);
/// How often it is told at most that not enough can go.
const COMPLAINTS: Duration = Duration::from_mins(5);

/// Removes images by the kubelet's rules.
pub(crate) struct Collector {
    pub(crate) images: Arc<dyn Images>,
    pub(crate) provider: Arc<dyn Provider>,
    pub(crate) directory: PodDirectory,
    pub(crate) recorder: Recorder,
    pub(crate) access: Access,
    pub(crate) root_dir: PathBuf,
    pub(crate) rules: CollectionRules,
}

/// What the node remembers of an image.
#[derive(Clone, Copy)]
struct Memory {
    found: Timestamp,
    used: Timestamp,
}

impl Collector {
    /// Goes on until it is dropped.
    pub(crate) async fn run(self) {
        let mut known = HashMap::new();
        let mut complained: Option<Instant> = None;
        // Not before the pods are known that use them.
        let mut ticks = interval_at(Instant::now() + PERIOD, PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let Err(why) = self.turn(&mut known).await else { continue };
            if complained.is_none_or(|told| told.elapsed() >= COMPLAINTS) {
                complained = Some(Instant::now());
                warn!(why, "images cannot be collected");
                self.recorder.images_not_collected(&why);
            }
        }
    }

    async fn turn(&self, known: &mut HashMap<Digest, Memory>) -> Result<(), String> {
        let local = self.images.list().await.map_err(|error| error.to_string())?;
        let held = held(&local, &Used::of(&self.directory), known, now());
        let fill = self.fill().map_err(|error| format!("the disk cannot be asked: {error}"))?;
        let collection = collect(&held, fill, self.rules, now());
        for digest in &collection.aged {
            self.remove(&local, digest, "it was not used for long").await?;
        }
        let mut freed = 0;
        for (digest, size) in &collection.candidates {
            if freed >= collection.wanted {
                break;
            }
            self.remove(&local, digest, "the disk is full").await?;
            freed += size;
        }
        if freed < collection.wanted {
            return Err(format!(
                "Failed to garbage collect required amount of images. Attempted to free {} bytes, but only found {freed} \
                 bytes eligible to free.",
                collection.wanted
            ));
        }
        Ok(())
    }

    fn fill(&self) -> rustix::io::Result<Fill> {
        let found = statvfs(&self.root_dir)?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        Ok(Fill { capacity: bytes(found.f_blocks), available: bytes(found.f_bavail) })
    }

    async fn remove(&self, local: &[LocalImage], digest: &Digest, why: &str) -> Result<(), String> {
        info!(image = %digest, why, "an image is removed");
        self.images.remove(digest).await.map_err(|error: ImageError| error.to_string())?;
        self.access.forget(digest);
        let is_gone = |image: &&LocalImage| image.digest == *digest;
        let programs = |image: &LocalImage| image.program().map(|program| program.digest.clone());
        let left: HashSet<Digest> =
            local.iter().filter(|image| !is_gone(image)).filter_map(programs).collect();
        let unused: HashSet<Digest> = local.iter().filter(is_gone).filter_map(programs).collect();
        unused.difference(&left).for_each(|program| self.provider.forget(program));
        Ok(())
    }
}

/// The images that pods use which are not at their end.
#[derive(Default)]
struct Used {
    /// `imageID`s of containers.
    ids: HashSet<String>,
    /// References, completed, of pods.
    references: HashSet<String>,
}

impl Used {
    fn of(directory: &PodDirectory) -> Self {
        let mut used = Self::default();
        for view in directory.list() {
            used.add(&view.pod, &view.status.borrow());
        }
        used
    }

    fn add(&mut self, pod: &Pod, status: &PodStatus) {
        if matches!(status.phase.as_deref(), Some("Failed" | "Succeeded")) {
            return;
        }
        let statuses = [
            &status.init_container_statuses,
            &status.container_statuses,
            &status.ephemeral_container_statuses,
        ];
        self.ids.extend(statuses.into_iter().flatten().flatten().map(|status| status.image_id.clone()));
        let Some(spec) = &pod.spec else { return };
        let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        let debuggers =
            spec.ephemeral_containers.iter().flatten().filter_map(|container| container.image.as_deref());
        let mounted =
            spec.volumes.iter().flatten().filter_map(|volume| volume.image.as_ref()?.reference.as_deref());
        let references =
            containers.filter_map(|container| container.image.as_deref()).chain(mounted).chain(debuggers);
        self.references.extend(references.map(full_reference));
    }

    fn has(&self, image: &LocalImage) -> bool {
        self.ids.contains(&image.repo_digest) || self.references.contains(&image.reference)
    }
}

/// The images, each once, with what is remembered of them; what is gone is forgotten.
fn held(
    local: &[LocalImage],
    used: &Used,
    known: &mut HashMap<Digest, Memory>,
    now: Timestamp,
) -> Vec<HeldImage> {
    let mut held: HashMap<Digest, HeldImage> = HashMap::new();
    for image in local {
        let memory = known.entry(image.digest.clone()).or_insert(Memory { found: now, used: now });
        let is_in_use = used.has(image);
        if is_in_use {
            memory.used = now;
        }
        let entry = held.entry(image.digest.clone()).or_insert_with(|| HeldImage {
            digest: image.digest.clone(),
            size: image.size,
            found: memory.found,
            used: memory.used,
            is_in_use,
        });
        entry.is_in_use |= is_in_use;
        entry.used = memory.used;
    }
    known.retain(|digest, _| held.contains_key(digest));
    held.into_values().collect()
}

#[cfg(test)]
#[path = "collector_tests.rs"]
mod tests;
