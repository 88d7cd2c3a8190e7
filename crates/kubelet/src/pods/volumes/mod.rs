//! The volumes of pods: what is in them, and where they lie.

mod content;
mod writer;

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use coracle_lifecycle::projection::{self, ProjectionError};
use coracle_lifecycle::{PodUid, Wish};
use futures::future::join_all;
use k8s_openapi::api::core::v1::{Pod, Volume};
use thiserror::Error;

use super::Context;
use super::disk::private_directory;
use super::objects::FetchError;
use super::tokens::TokenError;
use crate::Layout;

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
    #[error(transparent)]
    Projection(#[from] ProjectionError),
    #[error(transparent)]
    Objects(#[from] FetchError),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Makes all volumes of a pod; what is there already is made anew.
pub(super) async fn mount(context: &Context, pod: &Pod) -> Result<(), MountError> {
    make(context, pod, volumes(pod)).await
}

/// Makes the files of those volumes anew that hold Kubernetes' own content.
pub(super) async fn refresh(context: &Context, pod: &Pod) -> Result<(), MountError> {
    make(context, pod, volumes(pod).filter(|volume| projection::is_content(volume))).await
}

/// All are begun at once; of several that fail, the first is told.
async fn make<'a>(
    context: &Context,
    pod: &Pod,
    volumes: impl Iterator<Item = &'a Volume>,
) -> Result<(), MountError> {
    let made = volumes.map(async |volume| {
        let made = make_one(context, pod, volume).await;
        made.map_err(|cause| MountError { volume: volume.name.clone(), cause })
    });
    join_all(made).await.into_iter().collect()
}

async fn make_one(context: &Context, pod: &Pod, volume: &Volume) -> Result<(), Cause> {
    if projection::is_content(volume) {
        content::make(context, pod, volume).await
    } else {
        Err(Cause::UnsupportedKind(plugin(volume)))
    }
}

fn volumes(pod: &Pod) -> impl Iterator<Item = &Volume> {
    pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten())
}

/// The directory of a pod's volume; `None` when the pod has none of this name.
pub(super) fn directory(context: &Context, pod: &Pod, name: &str) -> Option<PathBuf> {
    let volume = volumes(pod).find(|volume| volume.name == name)?;
    Some(place(&context.layout, &pod.identity().uid, volume))
}

/// Whether no container may write to a volume: Kubernetes' own content is read-only to all.
pub(super) fn is_read_only(pod: &Pod, name: &str) -> bool {
    volumes(pod).any(|volume| volume.name == name && projection::is_content(volume))
}

/// The kind of a volume as its field in the API is called. One without any source is an `emptyDir`.
fn plugin(volume: &Volume) -> String {
    let fields = serde_json::to_value(volume).unwrap_or_default();
    let kind = fields.as_object().and_then(|fields| fields.keys().find(|key| *key != "name").cloned());
    kind.unwrap_or_else(|| "emptyDir".to_owned())
}

/// Where a volume lies, or a link to where it lies in memory. The kinds are named as in a kubelet's directory.
fn place(layout: &Layout, uid: &PodUid, volume: &Volume) -> PathBuf {
    let plugin = match plugin(volume).as_str() {
        "configMap" => "configmap".to_owned(),
        "downwardAPI" => "downward-api".to_owned(),
        "emptyDir" => "empty-dir".to_owned(),
        other => other.to_owned(),
    };
    layout.volume(uid, &plugin, &volume.name)
}

/// Makes a volume's directory: in memory, where that is wanted and can be had, with a link to it from where it would be.
fn make_directory(layout: &Layout, uid: &PodUid, volume: &Volume, in_memory: bool) -> io::Result<PathBuf> {
    let place = place(layout, uid, volume);
    let Some(memory) = layout.memory_volumes(uid).filter(|_| in_memory) else {
        private_directory(&place)?;
        return Ok(place);
    };
    let target = memory.join(&volume.name);
    private_directory(&target)?;
    place.parent().map_or(Ok(()), private_directory)?;
    if fs::read_link(&place).ok().as_deref() != Some(target.as_path()) {
        symlink(&target, &place)?;
    }
    Ok(place)
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
            let place = make_directory(&layout, &uid, &volume, true).unwrap();
            assert_eq!(place, root.path().join("pods/u/volumes/kubernetes.io~secret/v"));
            assert_eq!(fs::canonicalize(place).unwrap(), fs::canonicalize(memory.join("u/v")).unwrap());
            // What lies in memory does not outlive the machine.
            fs::remove_dir_all(&memory).unwrap();
        }
        let layout = Layout::new(root.path().join("other"));
        let place = make_directory(&layout, &uid, &volume, true).unwrap();
        assert!(fs::symlink_metadata(place).unwrap().is_dir());
    }
}
