use std::collections::{BTreeSet, HashMap};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use coracle_lifecycle::{Checkpoint, PodIdentity, PodUid};
use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
use tracing::warn;

use super::mounts::unmount_below;
use crate::{Layout, tree};

/// Does file work where it blocks no other task.
pub(super) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// Makes a directory and its parents that only this node's user can enter. That it exists is fine.
pub(super) fn private_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Makes a private directory for directories that have nothing to do with each other, where the file system can be told so:
/// ext4 then spreads them, and does not look for a free inode among all those that went within the last minutes.
fn private_directory_of_strangers(path: &Path) -> io::Result<()> {
    private_directory(path)?;
    let directory = File::open(path)?;
    // A hint, which few file systems know.
    let _ = ioctl_getflags(&directory).and_then(|flags| ioctl_setflags(&directory, flags | IFlags::TOPDIR));
    Ok(())
}

/// Writes a checkpoint beside the old one and renames it, so that a reader sees one or the other. One worker at a time does
/// so for a pod.
pub(super) fn save(layout: &Layout, checkpoint: &Checkpoint) -> io::Result<()> {
    let directory = layout.pod(&checkpoint.pod.uid);
    private_directory(&directory)?;
    let (path, next) = (layout.checkpoint(&checkpoint.pod.uid), directory.join("checkpoint.json.next"));
    let written = fs::write(&next, serde_json::to_vec(checkpoint)?).and_then(|()| fs::rename(&next, path));
    if written.is_err() {
        // What was written for nothing may be what filled the disk.
        let _ = fs::remove_file(&next);
    }
    written
}

/// All checkpoints under the root directory. A pod whose checkpoint cannot be read, or of which there is only something in
/// memory, counts as one that has none.
pub(super) fn load_all(layout: &Layout) -> io::Result<Vec<(PodUid, Option<Checkpoint>)>> {
    private_directory_of_strangers(&layout.pods())?;
    let mut uids = named_in(&layout.pods())?;
    for directory in layout.in_memory_directories() {
        uids.extend(named_in(directory)?);
    }
    let found = uids.into_iter().map(|uid| {
        let checkpoint = load(&layout.checkpoint(&uid));
        if let Err(error) = &checkpoint {
            warn!(%uid, %error, "the checkpoint of a pod cannot be read");
        }
        (uid, checkpoint.ok())
    });
    Ok(found.collect())
}

/// The pods that have a directory in this one.
fn named_in(directory: &Path) -> io::Result<BTreeSet<PodUid>> {
    let mut uids = BTreeSet::new();
    for entry in fs::read_dir(directory)? {
        uids.extend(entry?.file_name().into_string().ok().map(PodUid::new));
    }
    Ok(uids)
}

/// One checkpoint.
pub(super) fn load(path: &Path) -> io::Result<Checkpoint> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

/// Removes a directory and all in it. That it does not exist is fine. What is mounted in it is not touched, but taken
/// from there first.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    unmount_below(path)?;
    tree::remove(path).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

/// Removes a pod's volumes and root file systems; its logs and its checkpoint stay.
pub(super) fn remove_runs(layout: &Layout, uid: &PodUid) -> io::Result<()> {
    // What is mounted over a file of a volume for one container keeps the file from being removed.
    remove(&layout.containers(uid))?;
    layout.all_in_memory(uid).try_for_each(|volumes| remove(&volumes))?;
    remove(&layout.volumes(uid))
}

/// Removes the logs of a container's runs before the last one before `attempt`, as the kubelet keeps one dead run.
pub(super) fn prune_logs(directory: &Path, attempt: u32) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let number =
            name.to_str().and_then(|name| name.split_once('.')).and_then(|(number, _)| number.parse().ok());
        if number.is_some_and(|number: u32| number + 1 < attempt) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Removes all that is left of a pod that is gone from the API server, logs too.
pub(super) async fn forget(layout: &Layout, pod: PodIdentity) {
    let mut paths = vec![layout.pod_logs(&pod), layout.pod(&pod.uid)];
    paths.extend(layout.all_in_memory(&pod.uid));
    remove_all(paths).await;
}

/// Removes all that an earlier agent left of pods that are gone; `logs` are the directories of theirs.
pub(super) async fn forget_left(layout: &Layout, left: Vec<PodUid>, logs: Vec<PathBuf>) {
    let in_memory = left.iter().flat_map(|uid| layout.all_in_memory(uid));
    let directories = left.iter().map(|uid| layout.pod(uid));
    remove_all(logs.into_iter().chain(directories).chain(in_memory).collect()).await;
}

/// The directories of pods' logs under the root directory, each with the UID that its name ends with.
pub(super) fn logs(layout: &Layout) -> io::Result<HashMap<PodUid, PathBuf>> {
    private_directory_of_strangers(&layout.logs())?;
    let mut found = HashMap::new();
    for entry in fs::read_dir(layout.logs())? {
        let entry = entry?;
        let name = entry.file_name();
        if let Some((_, uid)) = name.to_str().and_then(|name| name.rsplit_once('_')) {
            found.insert(PodUid::new(uid), entry.path());
        }
    }
    Ok(found)
}

async fn remove_all(paths: Vec<PathBuf>) {
    let removed = off_thread(move || {
        for error in paths.iter().filter_map(|path| remove(path).err()) {
            warn!(%error, "what is left of a pod cannot be removed");
        }
        Ok(())
    });
    if let Err(error) = removed.await {
        warn!(%error, "what is left of pods cannot be removed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_runs_that_are_over_only_the_last_one_keeps_its_logs() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["0.log", "2.log", "2.log.20260101-000000.gz", "3.log", "notes"] {
            fs::write(directory.path().join(name), "").unwrap();
        }
        prune_logs(directory.path(), 4).unwrap();
        let entries = fs::read_dir(directory.path()).unwrap();
        let mut left: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["3.log", "notes"]);
    }
}
