//! Empty directories, on the disk or in memory.

use std::ffi::CString;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

use coracle_lifecycle::storage::memory_bound;
use coracle_lifecycle::{PodUid, Wish, projection};
use k8s_openapi::api::core::v1::{Pod, Volume};
use rustix::mount::{MountFlags, mount};
use tracing::warn;

use super::{Cause, Directory, Work, link, place};
use crate::Layout;
use crate::pods::Context;
use crate::pods::disk::private_directory;

/// A file system in memory has room for this more than the limit of its volume, so that it is seen when that is exceeded.
const OVER: u64 = 64 << 10;
/// It has room for one file for each so many bytes: files without content take up memory too.
const BYTES_PER_FILE: u64 = 1024;
const LEAST_FILES: u64 = 1024;

/// The work that makes a volume, or finds it as it is.
pub(super) fn work(context: &Context, pod: &Pod, volume: &Volume) -> Result<Work, Cause> {
    let (layout, uid, group) = (&context.layout, pod.identity().uid, projection::group(pod));
    if !is_in_memory(volume)? {
        let directory = Directory::of(layout, &uid, volume, false);
        return Ok(Box::new(move || Ok(give(directory.make()?, group)?)));
    }
    let (layout, volume, bound) = (layout.clone(), volume.clone(), bound(context, pod, volume));
    Ok(Box::new(move || Ok(give(&make_in_memory(&layout, &uid, &volume, bound)?, group)?)))
}

/// Gives a directory to a group, as far as this user may.
fn give(directory: &Path, group: Option<u32>) -> io::Result<()> {
    if group.is_none() {
        return Ok(());
    }
    match chown(directory, None, group) {
        Err(error) if error.kind() != ErrorKind::PermissionDenied => Err(error),
        _ => Ok(()),
    }
}

/// Whether an empty directory is to lie in memory.
fn is_in_memory(volume: &Volume) -> Result<bool, Cause> {
    let medium = volume.empty_dir.as_ref().and_then(|source| source.medium.as_deref()).unwrap_or_default();
    match medium {
        "" => Ok(false),
        "Memory" => Ok(true),
        other => Err(Cause::Medium(other.to_owned())),
    }
}

fn bound(context: &Context, pod: &Pod, volume: &Volume) -> Option<u64> {
    let node = context.node.borrow().clone();
    let status = node.as_ref().and_then(|node| node.status.as_ref());
    memory_bound(pod, volume, status.and_then(|status| status.allocatable.as_ref()))
}

/// A volume in memory is a file system of its own, so that who fills it takes no room from anything else. Where this process
/// may not mount, it lies in memory where no secrets do, and where there is no other it lies on the disk.
fn make_in_memory(layout: &Layout, uid: &PodUid, volume: &Volume, bound: Option<u64>) -> io::Result<PathBuf> {
    let place = place(layout, uid, volume);
    let is_link = fs::symlink_metadata(&place).is_ok_and(|found| found.is_symlink());
    if !is_link {
        private_directory(&place)?;
        match mount_memory(&place, bound) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
            mounted => return mounted.map(|()| place),
        }
    }
    match layout.scratch_volumes(uid) {
        // What an earlier agent has put on the disk stays there.
        Some(scratch) if is_link || fs::remove_dir(&place).is_ok() => {
            link(&place, &scratch.join(&volume.name))?;
        }
        _ => warn!(volume = volume.name, pod = %uid, "a volume of medium Memory lies on the disk"),
    }
    Ok(place)
}

/// That it is mounted already is fine: it outlives the agent.
fn mount_memory(place: &Path, bound: Option<u64>) -> io::Result<()> {
    let device = |path: &Path| fs::metadata(path).map(|found| found.dev());
    if place.parent().map(device).transpose()? != Some(device(place)?) {
        return Ok(());
    }
    let options = CString::new(options(bound))?;
    Ok(mount("tmpfs", place, "tmpfs", MountFlags::NODEV | MountFlags::NOSUID, options.as_c_str())?)
}

/// Without a bound that of the kernel holds: half of the machine's memory.
fn options(bound: Option<u64>) -> String {
    let size = bound.map(|bytes| {
        let files = (bytes / BYTES_PER_FILE).max(LEAST_FILES);
        format!(",size={},nr_inodes={files}", bytes.saturating_add(OVER))
    });
    format!("mode=0700{}", size.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pods::disk;

    fn volume(medium: &str) -> Volume {
        serde_json::from_value(json!({ "name": "v", "emptyDir": { "medium": medium } })).unwrap()
    }

    #[test]
    fn scratch_space_is_on_the_disk_or_in_memory() {
        let lies = |medium: &str| is_in_memory(&volume(medium)).map_err(|cause| cause.to_string());
        assert_eq!([lies(""), lies("Memory")], [Ok(false), Ok(true)]);
        let named = "an emptyDir of medium \"HugePages\" is not supported by this node";
        assert_eq!(lies("HugePages"), Err(named.to_owned()));
    }

    #[test]
    fn memory_has_room_for_its_limit_and_for_files() {
        assert_eq!(options(None), "mode=0700");
        assert_eq!(options(Some(1 << 30)), "mode=0700,size=1073807360,nr_inodes=1048576");
        assert_eq!(options(Some(4096)), "mode=0700,size=69632,nr_inodes=1024");
    }

    /// Where this process may mount it is a file system of its own, else it lies apart from secrets.
    #[test]
    fn a_volume_in_memory_takes_no_room_from_secrets() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().canonicalize().unwrap().join(name);
        let layout = Layout::new(path("root")).in_memory(Some(path("memory")));
        let layout = layout.scratch_in_memory(Some(path("scratch")));
        let uid = PodUid::new("u");
        let made = make_in_memory(&layout, &uid, &volume("Memory"), Some(1 << 20)).unwrap();
        fs::write(made.join("file"), "kept").unwrap();
        assert_eq!(make_in_memory(&layout, &uid, &volume("Memory"), Some(1 << 20)).unwrap(), made);
        assert_eq!(fs::read(made.join("file")).unwrap(), b"kept");
        let lies = made.canonicalize().unwrap();
        if lies == made {
            assert_ne!(fs::metadata(&made).unwrap().dev(), fs::metadata(&root).unwrap().dev());
            let filled = fs::write(made.join("large"), vec![0; 2 << 20]);
            assert_eq!(filled.unwrap_err().kind(), ErrorKind::StorageFull);
        } else {
            assert_eq!(lies, path("scratch/u/v"));
        }
        disk::remove_runs(&layout, &uid).unwrap();
        assert!(!lies.exists() && !made.exists());
    }
}
