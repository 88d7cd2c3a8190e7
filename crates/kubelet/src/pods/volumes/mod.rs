//! The volumes of pods: what is in them, and where they lie.

mod content;
mod empty;
mod host;
mod images;
mod usage;
mod writer;

use std::borrow::Cow;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coracle_lifecycle::projection::{self, ProjectionError};
use coracle_lifecycle::{Notice, PodUid, Wish};
use futures::future::join_all;
use k8s_openapi::api::core::v1::{Pod, Volume};
use thiserror::Error;

use super::Context;
use super::certificates::CertificateError;
use super::disk::{self, private_directory};
use super::objects::FetchError;
use super::tokens::TokenError;
use crate::Layout;

pub(crate) use host::{HostPathError, HostPaths};
pub(super) use images::{Laid, provide as provide_images};
pub(super) use usage::exceeded;

/// Why a volume could not be made. The message is the one of the kubelet's `FailedMount` event.
#[derive(Debug, Error)]
#[error("MountVolume.SetUp failed for volume {volume:?} : {cause}")]
pub(super) struct MountError {
    volume: String,
    cause: Cause,
}

#[derive(Debug, Error)]
enum Cause {
    #[error("{0} volumes are not supported by this node yet")]
    UnsupportedKind(String),
    #[error("an emptyDir of medium {0:?} is not supported by this node")]
    Medium(String),
    #[error(transparent)]
    Projection(#[from] ProjectionError),
    #[error(transparent)]
    Objects(#[from] FetchError),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    Certificate(#[from] Arc<CertificateError>),
    #[error(transparent)]
    HostPath(#[from] HostPathError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A container mounts a volume that its pod does not have, or cannot have any more.
#[derive(Debug, Error)]
pub(super) enum UnknownVolume {
    #[error("no volume is called {0:?}")]
    Undeclared(String),
    #[error("volume {name:?} is not there: {source}")]
    Missing { name: String, source: io::Error },
    #[error(transparent)]
    HostPath(#[from] HostPathError),
}

/// Makes all volumes of a pod that are used; what is there already is made anew.
///
/// # Errors
/// The first that failed. Of the others people are told.
pub(super) async fn mount(context: &Context, pod: &Pod) -> Result<(), MountError> {
    make(context, pod, |_| true).await
}

/// Makes the files of those volumes anew that hold Kubernetes' own content.
///
/// # Errors
/// As [`mount`].
pub(super) async fn refresh(context: &Context, pod: &Pod) -> Result<(), MountError> {
    make(context, pod, projection::is_content).await
}

/// What is left to do for a volume when all that it needs from elsewhere is here: file work.
type Work = Box<dyn FnOnce() -> Result<(), Cause> + Send>;

/// What the volumes need is asked for at once; the file work is done in one piece, because a start waits for all of it.
async fn make(context: &Context, pod: &Pod, is_wanted: impl Fn(&Volume) -> bool) -> Result<(), MountError> {
    let used = pod.used_volumes();
    let wanted = volumes(pod).filter(|volume| used.contains(&volume.name) && is_wanted(volume));
    let works = wanted.map(async |volume| (volume.name.clone(), work(context, pod, volume).await));
    let works = join_all(works).await;
    let Some(first) = works.first().map(|(volume, _)| volume.clone()) else { return Ok(()) };
    let supply = context.supplies.of(&pod.identity());
    let done = disk::off_thread(move || {
        let make = |(volume, work): (String, Result<Work, Cause>)| {
            let made = work.and_then(|work| supply.write(work));
            made.err().map(|cause| MountError { volume, cause })
        };
        Ok(works.into_iter().filter_map(make).collect::<Vec<_>>())
    });
    let mut failed =
        done.await.map_err(|error| MountError { volume: first, cause: error.into() })?.into_iter();
    let first = failed.next();
    for other in failed {
        context.recorder.pod(pod, Notice::failed_mount(other.to_string()));
    }
    first.map_or(Ok(()), Err)
}

async fn work(context: &Context, pod: &Pod, volume: &Volume) -> Result<Work, Cause> {
    if projection::is_content(volume) {
        content::work(context, pod, volume).await
    } else if let Some(path) = volume.host_path.clone() {
        let paths = Arc::clone(&context.host_paths);
        Ok(Box::new(move || Ok(paths.find(&path).map(drop)?)))
    } else if volume.image.is_some() {
        // It comes with the image of the first container that mounts it.
        Ok(Box::new(|| Ok(())))
    } else if plugin(volume) == "emptyDir" {
        empty::work(context, pod, volume)
    } else {
        Err(Cause::UnsupportedKind(plugin(volume).into_owned()))
    }
}

fn volumes(pod: &Pod) -> impl Iterator<Item = &Volume> {
    pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten())
}

/// A volume of a pod, and where it lies: a path without links.
pub(super) fn find<'p>(
    context: &Context,
    pod: &'p Pod,
    name: &str,
) -> Result<(&'p Volume, PathBuf), UnknownVolume> {
    let found = volumes(pod).find(|volume| volume.name == name);
    let volume = found.ok_or_else(|| UnknownVolume::Undeclared(name.to_owned()))?;
    if let Some(path) = &volume.host_path {
        return Ok((volume, context.host_paths.find(path)?));
    }
    let place = place(&context.layout, &pod.identity().uid, volume);
    let place = if volume.image.is_some() { images::files(&place) } else { place };
    let missing = |source| UnknownVolume::Missing { name: name.to_owned(), source };
    Ok((volume, place.canonicalize().map_err(missing)?))
}

/// The kind of a volume as its field in the API is called. One without any source is an `emptyDir`.
fn plugin(volume: &Volume) -> Cow<'static, str> {
    let usual = [
        ("configMap", volume.config_map.is_some()),
        ("downwardAPI", volume.downward_api.is_some()),
        ("emptyDir", volume.empty_dir.is_some()),
        ("hostPath", volume.host_path.is_some()),
        ("image", volume.image.is_some()),
        ("projected", volume.projected.is_some()),
        ("secret", volume.secret.is_some()),
    ];
    if let Some((name, _)) = usual.into_iter().find(|(_, is_it)| *is_it) {
        return name.into();
    }
    // One that this node refuses, which is seldom: looking for its name this way is slow.
    let fields = serde_json::to_value(volume).unwrap_or_default();
    let kind = fields.as_object().and_then(|fields| fields.keys().find(|key| *key != "name").cloned());
    kind.map_or("emptyDir".into(), Cow::Owned)
}

/// Where a volume lies, or a link to where it lies in memory. The kinds are named as in a kubelet's directory.
fn place(layout: &Layout, uid: &PodUid, volume: &Volume) -> PathBuf {
    let plugin = plugin(volume);
    let plugin = match &*plugin {
        "configMap" => "configmap",
        "downwardAPI" => "downward-api",
        "emptyDir" => "empty-dir",
        other => other,
    };
    layout.volume(uid, plugin, &volume.name)
}

/// The directory of a volume that is to be made.
struct Directory {
    /// Where it lies, or a link to it.
    place: PathBuf,
    in_memory: Option<PathBuf>,
}

impl Directory {
    /// That of a volume: in memory, where that is wanted and can be had.
    fn of(layout: &Layout, uid: &PodUid, volume: &Volume, in_memory: bool) -> Self {
        let memory = layout.memory_volumes(uid).filter(|_| in_memory);
        let in_memory = memory.map(|memory| memory.join(&volume.name));
        Self { place: place(layout, uid, volume), in_memory }
    }

    /// Makes it, and the link to it; that they are there is fine.
    fn make(&self) -> io::Result<&Path> {
        match &self.in_memory {
            Some(target) => link(&self.place, target)?,
            None => private_directory(&self.place)?,
        }
        Ok(&self.place)
    }
}

/// Makes a directory elsewhere and a link to it at the place of a volume.
fn link(place: &Path, target: &Path) -> io::Result<()> {
    private_directory(target)?;
    place.parent().map_or(Ok(()), private_directory)?;
    if fs::read_link(place).ok().as_deref() != Some(target) {
        symlink(target, place)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn the_kind_of_a_volume_is_its_field() {
        let kind = |json: Value| plugin(&serde_json::from_value(json).unwrap());
        assert_eq!(kind(json!({ "name": "v", "hostPath": { "path": "/x" } })), "hostPath");
        assert_eq!(kind(json!({ "name": "v", "emptyDir": {} })), "emptyDir");
        for unknown in [
            "awsElasticBlockStore",
            "azureDisk",
            "azureFile",
            "cephfs",
            "cinder",
            "csi",
            "ephemeral",
            "fc",
            "flexVolume",
            "flocker",
            "gcePersistentDisk",
            "gitRepo",
            "glusterfs",
            "iscsi",
            "nfs",
            "persistentVolumeClaim",
            "photonPersistentDisk",
            "portworxVolume",
            "quobyte",
            "rbd",
            "scaleIO",
            "storageos",
            "vsphereVolume",
        ] {
            assert_eq!(kind(json!({ "name": "v", unknown: {} })), unknown);
        }
        assert_eq!(kind(json!({ "name": "v" })), "emptyDir");
    }

    #[test]
    fn a_volume_in_memory_is_found_where_it_would_be() {
        let root = tempfile::tempdir().unwrap();
        let memory = root.path().join("memory");
        let layout = Layout::new(root.path()).in_memory(Some(memory.clone()));
        let volume = serde_json::from_value(json!({ "name": "v", "secret": {} })).unwrap();
        let uid = PodUid::new("u".to_owned());
        for _ in 0..2 {
            let directory = Directory::of(&layout, &uid, &volume, true);
            let place = directory.make().unwrap();
            assert_eq!(place, root.path().join("pods/u/volumes/kubernetes.io~secret/v"));
            assert_eq!(fs::canonicalize(place).unwrap(), fs::canonicalize(memory.join("u/v")).unwrap());
            // What lies in memory does not outlive the machine.
            fs::remove_dir_all(&memory).unwrap();
        }
        let layout = Layout::new(root.path().join("other"));
        let directory = Directory::of(&layout, &uid, &volume, true);
        assert!(fs::symlink_metadata(directory.make().unwrap()).unwrap().is_dir());
    }
}
