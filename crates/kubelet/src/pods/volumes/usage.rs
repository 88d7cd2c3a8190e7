//! How much is in the volumes of a pod, and what becomes of a pod that puts in too much.

use std::collections::HashSet;
use std::fs;
use std::future::pending;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use coracle_lifecycle::{Eviction, Wish, quantity};
use k8s_openapi::api::core::v1::Pod;
use tokio::time::sleep;

use super::{place, volumes};
use crate::pods::{Context, disk};

/// How often volumes are measured.
const INTERVAL: Duration = Duration::from_secs(5);
/// What a pod is given to end: nothing it does helps any more.
const GRACE: Duration = Duration::from_secs(1);
/// What a file counts by: see `stat(2)`.
const BLOCK: u64 = 512;

/// A volume that may not hold more than so many bytes.
struct Bounded {
    name: String,
    place: PathBuf,
    limit: u64,
    /// The same as it was written.
    text: String,
}

/// Waits until one of the pod's volumes holds more than it may.
pub(in crate::pods) async fn exceeded(context: &Context, pod: &Pod) -> Eviction {
    let bounded = bounded(context, pod);
    if bounded.is_empty() {
        return pending().await;
    }
    loop {
        sleep(INTERVAL).await;
        for volume in &bounded {
            let place = volume.place.clone();
            let used = disk::off_thread(move || Ok(used(&fs::canonicalize(place)?))).await;
            if used.is_ok_and(|used| used > volume.limit) {
                let (name, limit) = (&volume.name, &volume.text);
                let message = format!("Usage of EmptyDir volume {name:?} exceeds the limit {limit:?}. ");
                return Eviction::by_usage(message, Some(GRACE));
            }
        }
    }
}

fn bounded(context: &Context, pod: &Pod) -> Vec<Bounded> {
    let uid = pod.identity().uid;
    let bounded = volumes(pod).filter_map(|volume| {
        let text = volume.empty_dir.as_ref()?.size_limit.as_ref()?;
        let limit = quantity::whole(text).ok().filter(|limit| *limit > 0)?;
        let place = place(&context.layout, &uid, volume);
        Some(Bounded { name: volume.name.clone(), place, limit, text: text.0.clone() })
    });
    bounded.collect()
}

/// The bytes that all below a directory takes up, as `du` counts; what vanishes meanwhile takes up nothing.
fn used(directory: &Path) -> u64 {
    let (mut used, mut left, mut seen) = (0, vec![directory.to_owned()], HashSet::new());
    while let Some(directory) = left.pop() {
        let Ok(entries) = fs::read_dir(directory) else { continue };
        for entry in entries.flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            let is_first = metadata.nlink() == 1 || seen.insert((metadata.dev(), metadata.ino()));
            used += if is_first { metadata.blocks() * BLOCK } else { 0 };
            if metadata.is_dir() {
                left.push(entry.path());
            }
        }
    }
    used
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_is_below_counts_once_and_what_links_lead_to_does_not() {
        let scene = tempfile::tempdir().unwrap();
        let volume = scene.path().join("v");
        fs::create_dir_all(volume.join("deep/er")).unwrap();
        fs::write(scene.path().join("outside"), vec![1; 1 << 20]).unwrap();
        symlink("../outside", volume.join("link")).unwrap();
        let before = used(&volume);
        assert!(before < 1 << 16, "{before}");
        fs::write(volume.join("deep/er/file"), vec![1; 1 << 20]).unwrap();
        fs::hard_link(volume.join("deep/er/file"), volume.join("again")).unwrap();
        let after = used(&volume);
        assert!((1 << 20..(1 << 20) + (1 << 16) + before).contains(&after), "{after}");
    }
}
