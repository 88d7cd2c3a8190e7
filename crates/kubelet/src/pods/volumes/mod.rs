use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use coracle_lifecycle::Wish;
use coracle_lifecycle::downward::Facts;
use coracle_lifecycle::projection::{self, Fetched, Files, ProjectionError};
use k8s_openapi::api::core::v1::{Pod, ServiceAccountTokenProjection, Volume};
use thiserror::Error;
use tokio::time::sleep;

use super::Context;
use super::api::CallError;
use super::disk::{self, private_directory};
use super::objects::FetchError;

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
    #[error("failed to fetch {what}: {source}")]
    Fetch { what: String, source: Box<CallError> },
    #[error("the API server gave no token of {0:?}")]
    NoToken(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Makes all volumes of a pod; what is there already is made anew.
pub(super) async fn mount(context: &Context, pod: &Pod) -> Result<(), MountError> {
    for volume in volumes(pod) {
        let mounted = mount_one(context, pod, volume).await;
        mounted.map_err(|cause| MountError { volume: volume.name.clone(), cause })?;
    }
    Ok(())
}

fn volumes(pod: &Pod) -> impl Iterator<Item = &Volume> {
    pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten())
}

/// The directory of a pod's volume; `None` when the pod has none of this name.
pub(super) fn directory(context: &Context, pod: &Pod, name: &str) -> Option<PathBuf> {
    let volume = volumes(pod).find(|volume| volume.name == name)?;
    Some(context.layout.volume(&pod.identity().uid, &plugin(volume), name))
}

/// Whether no container may write to a volume: Kubernetes' own content is read-only to all.
pub(super) fn is_read_only(pod: &Pod, name: &str) -> bool {
    volumes(pod).any(|volume| volume.name == name && volume.projected.is_some())
}

/// The kind of a volume as its field in the API is called. One without any source is an `emptyDir`.
fn plugin(volume: &Volume) -> String {
    let fields = serde_json::to_value(volume).unwrap_or_default();
    let kind = fields.as_object().and_then(|fields| fields.keys().find(|key| *key != "name").cloned());
    kind.unwrap_or_else(|| "emptyDir".to_owned())
}

async fn mount_one(context: &Context, pod: &Pod, volume: &Volume) -> Result<(), Cause> {
    if let Some(kind) = unsupported(volume) {
        return Err(Cause::UnsupportedKind(kind));
    }
    let fetched = fetch(context, pod, volume).await?;
    let node = context.node.borrow().clone();
    let status = node.as_ref().and_then(|node| node.status.as_ref());
    let facts = Facts {
        pod,
        addresses: &[],
        host_addresses: &context.host.addresses,
        allocatable: status.and_then(|status| status.allocatable.as_ref()),
    };
    let Some(files) = projection::files(&facts, volume, &fetched) else {
        return Err(Cause::UnsupportedKind(plugin(volume)));
    };
    let (files, directory) =
        (files?, context.layout.volume(&pod.identity().uid, &plugin(volume), &volume.name));
    Ok(disk::off_thread(move || write(&directory, &files)).await?)
}

/// What of a volume this node cannot give yet.
fn unsupported(volume: &Volume) -> Option<String> {
    let Some(source) = &volume.projected else { return Some(plugin(volume)) };
    let mut parts = source.sources.iter().flatten();
    parts.find_map(|part| {
        let kind = match part {
            part if part.secret.is_some() => "secret",
            part if part.cluster_trust_bundle.is_some() => "clusterTrustBundle",
            _ => return None,
        };
        Some(format!("projected {kind}"))
    })
}

async fn fetch(context: &Context, pod: &Pod, volume: &Volume) -> Result<Fetched, Cause> {
    let supply = context.supplies.of(&pod.identity());
    let objects = supply.objects.get(&projection::object_names(volume)).await?;
    let mut fetched = Fetched { objects, ..Fetched::default() };
    for wanted in projection::tokens(volume) {
        fetched.tokens.push(fetch_token(context, pod, &wanted).await?);
    }
    Ok(fetched)
}

/// How long the API server's authorizer may be behind a binding that this node knows of already.
const AUTHORIZER_LAG: Duration = Duration::from_millis(250);

async fn fetch_token(
    context: &Context,
    pod: &Pod,
    wanted: &ServiceAccountTokenProjection,
) -> Result<String, Cause> {
    let (api, identity) = (&context.api, pod.identity());
    let account =
        pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref()).unwrap_or("default");
    let audience = wanted.audience.as_deref().filter(|audience| !audience.is_empty());
    let ask = || api.token(&identity, account, audience, wanted.expiration_seconds);
    let answer = match ask().await {
        Err(error) if error.is_forbidden() => {
            sleep(AUTHORIZER_LAG).await;
            ask().await
        }
        answer => answer,
    };
    let token = answer.map_err(|source| failed(format!("a token of {account:?}"), source))?;
    token.ok_or_else(|| Cause::NoToken(account.to_owned()))
}

fn failed(what: String, source: CallError) -> Cause {
    Cause::Fetch { what, source: Box::new(source) }
}

/// The link through which all files of a volume are seen.
const CURRENT: &str = "..data";

/// Writes a volume as Kubernetes' atomic writer does: the files in a directory of their own, `..data` a link to it that
/// is swapped by one rename, and each visible name a link through `..data`.
fn write(directory: &Path, files: &Files) -> io::Result<()> {
    private_directory(directory)?;
    let payload = tempfile::Builder::new().prefix("..").tempdir_in(directory)?.keep();
    fs::set_permissions(&payload, Permissions::from_mode(0o755))?;
    for (path, file) in files {
        let path = payload.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, &file.content)?;
        fs::set_permissions(&path, Permissions::from_mode(file.mode))?;
    }
    let before = fs::read_link(directory.join(CURRENT)).ok();
    swap(directory, &payload)?;
    link_names(directory, &visible_names(files))?;
    before.map_or(Ok(()), |before| fs::remove_dir_all(directory.join(before)))
}

fn swap(directory: &Path, payload: &Path) -> io::Result<()> {
    let beside = directory.join("..data_tmp");
    let _ = fs::remove_file(&beside);
    symlink(payload.file_name().unwrap_or_default(), &beside)?;
    fs::rename(beside, directory.join(CURRENT))
}

fn link_names(directory: &Path, names: &BTreeSet<&str>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_ours = name.to_str().is_some_and(|name| name.starts_with("..") || names.contains(name));
        if !is_ours {
            fs::remove_file(entry.path())?;
        }
    }
    for name in names {
        let link = directory.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(CURRENT).join(name), link)?;
        }
    }
    Ok(())
}

/// The first part of each path, once.
fn visible_names(files: &Files) -> BTreeSet<&str> {
    files.keys().map(|path| path.split_once('/').map_or(path.as_str(), |(name, _)| name)).collect()
}

#[cfg(test)]
mod tests {
    use coracle_lifecycle::projection::File;
    use serde_json::Value;

    use super::*;

    fn files(entries: &[(&str, &str)]) -> Files {
        let file = |text: &str| File { content: text.as_bytes().to_vec(), mode: 0o600 };
        entries.iter().map(|(path, text)| ((*path).to_owned(), file(text))).collect()
    }

    #[test]
    fn a_volume_is_seen_through_one_link_and_swapped_whole() {
        let root = tempfile::tempdir().unwrap();
        let volume = root.path().join("v");
        write(&volume, &files(&[("token", "one"), ("deep/er/file", "x")])).unwrap();
        assert_eq!(fs::read_to_string(volume.join("token")).unwrap(), "one");
        assert_eq!(fs::read_to_string(volume.join("deep/er/file")).unwrap(), "x");
        assert_eq!(fs::read_link(volume.join("token")).unwrap(), Path::new("..data/token"));
        write(&volume, &files(&[("token", "two")])).unwrap();
        assert_eq!(fs::read_to_string(volume.join("token")).unwrap(), "two");
        let mut names: Vec<_> =
            fs::read_dir(&volume).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names.len(), 3, "one payload, the link to it, and what is seen: {names:?}");
        assert_eq!(fs::metadata(volume.join("token")).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn the_kind_of_a_volume_is_its_field() {
        let kind = |json: Value| plugin(&serde_json::from_value(json).unwrap());
        assert_eq!(kind(serde_json::json!({ "name": "v", "hostPath": { "path": "/x" } })), "hostPath");
        assert_eq!(kind(serde_json::json!({ "name": "v", "emptyDir": {} })), "emptyDir");
        assert_eq!(kind(serde_json::json!({ "name": "v" })), "emptyDir");
    }
}
