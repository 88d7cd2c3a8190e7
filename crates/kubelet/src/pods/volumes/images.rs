//! Images as volumes: what is in them, read-only.
//!
//! <https://kubernetes.io/docs/concepts/storage/volumes/#image>

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coracle_lifecycle::{Credential, ImageError, LocalImage, Notice, Wish};
use k8s_openapi::api::core::v1::{Container, ImageVolumeSource, Pod, Volume};

use super::{place, volumes};
use crate::pods::Context;
use crate::pods::disk::{self, private_directory};
use crate::pods::fetch::{Unavailable, Wanted, find_or_pull};
use crate::pods::supplies::Supply;

/// The directory of a volume that is mounted. Others may come to lie beside it.
const FILES: &str = "files";

/// The volumes of a pod whose images lie where they are mounted from. Who makes one holds the lock.
pub(in crate::pods) type Laid = tokio::sync::Mutex<HashSet<String>>;

/// Sees to it that the images which a container mounts are here, and lie where they are mounted from. What lies there stays
/// until the pod ends.
///
/// # Errors
/// When one is not here and cannot be pulled, or its files cannot be laid out.
pub(in crate::pods) async fn provide(
    context: &Context,
    pod: &Pod,
    declared: &Container,
    secrets: &[Credential],
) -> Result<(), Unavailable> {
    let is_mounted =
        |volume: &&Volume| declared.volume_mounts.iter().flatten().any(|mount| mount.name == volume.name);
    for volume in volumes(pod).filter(is_mounted) {
        if let Some(source) = &volume.image {
            provide_one(context, pod, volume, source, secrets).await?;
        }
    }
    Ok(())
}

async fn provide_one(
    context: &Context,
    pod: &Pod,
    volume: &Volume,
    source: &ImageVolumeSource,
    secrets: &[Credential],
) -> Result<(), Unavailable> {
    let identity = pod.identity();
    let supply = context.supplies.of(&identity);
    let mut laid = supply.images.lock().await;
    if laid.contains(&volume.name) {
        return Ok(());
    }
    let reference = source.reference.as_deref().unwrap_or_default();
    let wanted = Wanted { reference, policy: source.pull_policy.as_deref() };
    let tell = |notice: Notice| context.recorder.pod(pod, notice);
    let (image, pull) =
        find_or_pull(context, &wanted, secrets, || tell(Notice::pulling(None, reference))).await?;
    tell(Notice::pulled(None, reference, image.size, pull));
    lay_out(context, &supply, &image, place(&context.layout, &identity.uid, volume)).await?;
    laid.insert(volume.name.clone());
    Ok(())
}

/// Where what is in the image of a volume lies.
pub(super) fn files(place: &Path) -> PathBuf {
    place.join(FILES)
}

/// Puts what is in an image into a volume: its files, or the program that it is, under its name.
async fn lay_out(
    context: &Context,
    supply: &Arc<Supply>,
    image: &LocalImage,
    place: PathBuf,
) -> Result<(), Unavailable> {
    let (supply, directory, program) = (Arc::clone(supply), files(&place), image.program().cloned());
    let made = directory.clone();
    let made = disk::off_thread(move || {
        supply.write(|| {
            // Of what an earlier agent left there nothing is used any more.
            disk::remove(&place)?;
            private_directory(&made)?;
            program.map_or(Ok(()), |program| share(&program.path, &made.join(program.name)))
        })
    });
    made.await.map_err(|error| ImageError::Storage(error.to_string()))?;
    Ok(context.images.root_file_system(image, &directory).await?)
}

/// Gives a file of the image store another name, or copies it where it cannot have one.
fn share(file: &Path, name: &Path) -> io::Result<()> {
    fs::hard_link(file, name).or_else(|_| fs::copy(file, name).map(drop))
}
