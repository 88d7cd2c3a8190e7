//! How much pods have put on the disk and into memory, and what becomes of a pod that has put too much there.

use std::fs;
use std::future::pending;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use coracle_lifecycle::storage::{StorageUse, measured_volumes, measures_containers, overuse};
use coracle_lifecycle::{Eviction, Wish};
use k8s_openapi::api::core::v1::Pod;
use tokio::time::{Instant, sleep};

use super::place;
use crate::pods::{Context, disk};
use crate::{Layout, tree};

/// How often a pod is measured, but never more than a twentieth of the time is spent on it.
const INTERVAL: Duration = Duration::from_secs(5);
const SHARE: u32 = 20;

/// Waits until a pod uses more of the node's disk and memory than it may. What may be measured of it never changes.
pub(in crate::pods) async fn exceeded(context: &Context, pod: Arc<Pod>) -> Eviction {
    let (uid, is_measured) =
        (pod.identity().uid, !measured_volumes(&pod).is_empty() || measures_containers(&pod));
    // The pod as it is now would be kept as long as it runs, beside what it has become by then.
    drop(pod);
    if !is_measured {
        return pending().await;
    }
    let mut wait = INTERVAL;
    loop {
        sleep(wait).await;
        let Some(pod) = context.directory.pod(&uid) else { continue };
        let began = Instant::now();
        let (layout, measured) = (context.layout.clone(), Arc::clone(&pod));
        let used = disk::off_thread(move || Ok(measure(&layout, &measured))).await.unwrap_or_default();
        let node = context.node.borrow().clone();
        let status = node.as_ref().and_then(|node| node.status.as_ref());
        if let Some(eviction) = overuse(&pod, &used, status.and_then(|status| status.allocatable.as_ref())) {
            return eviction;
        }
        wait = INTERVAL.max(began.elapsed() * SHARE);
    }
}

/// What cannot be read takes up nothing: it may just not be there yet.
fn measure(layout: &Layout, pod: &Pod) -> StorageUse {
    let uid = pod.identity().uid;
    let of_volume = |place: &Path| fs::canonicalize(place).and_then(|place| tree::used(&place));
    let volumes = measured_volumes(pod)
        .into_iter()
        .map(|volume| (volume.name.clone(), of_volume(&place(layout, &uid, volume)).unwrap_or_default()));
    let volumes = volumes.collect();
    if !measures_containers(pod) {
        return StorageUse { volumes, ..StorageUse::default() };
    }
    let initial = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    let names = pod.containers().iter().chain(initial).map(|container| container.name.clone());
    let containers = names.map(|name| {
        let written = written(&layout.containers(&uid).join(&name)).unwrap_or_default();
        let logs = tree::used(&layout.pod_logs(&pod.identity()).join(&name)).unwrap_or_default();
        (name, written.saturating_add(logs))
    });
    StorageUse { volumes, containers: containers.collect() }
}

/// What a container has written to its root file system. Where that is mounted over the files of an image, only the changes
/// lie beside it.
fn written(runs: &Path) -> io::Result<u64> {
    let mut written = 0_u64;
    for entry in fs::read_dir(runs)? {
        let path = entry?.path();
        let is_root = path.extension().is_none();
        let changes = path.with_extension("changes");
        if is_root {
            let place = if changes.exists() { changes } else { path };
            written = written.saturating_add(tree::used(&place).unwrap_or_default());
        }
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_container_has_written_its_changes_and_its_log() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::new(root.path());
        let limit = json!({ "limits": { "ephemeral-storage": "1Mi" } });
        let containers = json!([{ "name": "a", "resources": limit }, { "name": "b" }]);
        let volumes = json!([{ "name": "v", "emptyDir": {} }]);
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": "p", "namespace": "n", "uid": "u" },
            "spec": { "containers": containers, "volumes": volumes },
        }))
        .unwrap();
        let containers = layout.containers(&pod.identity().uid);
        let kibibytes = |path: &Path, count: usize| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, vec![1; count << 10]).unwrap();
        };
        kibibytes(&containers.join("a/0/of-the-image"), 4096);
        kibibytes(&containers.join("a/0.changes/own"), 128);
        kibibytes(&containers.join("a/0.copies/given"), 4096);
        kibibytes(&layout.log(&pod.identity(), "a", 0), 64);
        kibibytes(&containers.join("b/3/own"), 256);
        kibibytes(&layout.volume(&pod.identity().uid, "empty-dir", "v").join("file"), 512);
        let used = measure(&layout, &pod);
        let about = |used: u64, kibibytes: u64| (kibibytes..kibibytes + 20).contains(&(used >> 10));
        assert!(about(used.containers["a"], 192) && about(used.containers["b"], 256), "{used:?}");
        assert!(about(used.volumes["v"], 512), "{used:?}");
    }
}
