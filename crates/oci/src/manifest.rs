use std::collections::BTreeSet;
use std::path::Path;

use coracle_lifecycle::Digest;
use oci_client::manifest::{
    IMAGE_CONFIG_MEDIA_TYPE, IMAGE_DOCKER_CONFIG_MEDIA_TYPE, IMAGE_DOCKER_LAYER_GZIP_MEDIA_TYPE,
    IMAGE_DOCKER_LAYER_TAR_MEDIA_TYPE, IMAGE_LAYER_GZIP_MEDIA_TYPE, IMAGE_LAYER_MEDIA_TYPE,
    IMAGE_LAYER_NONDISTRIBUTABLE_GZIP_MEDIA_TYPE, IMAGE_LAYER_NONDISTRIBUTABLE_MEDIA_TYPE,
    IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, ImageIndexEntry, OCI_IMAGE_INDEX_MEDIA_TYPE,
    OCI_IMAGE_MEDIA_TYPE, OciDescriptor, OciImageIndex, OciImageManifest, WASM_LAYER_MEDIA_TYPE,
};
use serde::Deserialize;
use serde::de::IgnoredAny;
use thiserror::Error;

/// The layer of the layout that the CNCF's wasm working group specified
/// (<https://tag-runtime.cncf.io/wgs/wasm/deliverables/wasm-oci-artifact/>), as `wkg` pushes it.
const CNCF_LAYER: &str = "application/wasm";
/// How the media types of all other programs end: that of `wasm-to-oci`, and those of runwasi's artifacts.
const PROGRAM_SUFFIX: &str = "+wasm";
/// The layers of images with files. How one is compressed is told from its bytes.
const LAYERS: [&str; 10] = [
    IMAGE_LAYER_MEDIA_TYPE,
    IMAGE_LAYER_GZIP_MEDIA_TYPE,
    "application/vnd.oci.image.layer.v1.tar+zstd",
    IMAGE_LAYER_NONDISTRIBUTABLE_MEDIA_TYPE,
    IMAGE_LAYER_NONDISTRIBUTABLE_GZIP_MEDIA_TYPE,
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    IMAGE_DOCKER_LAYER_TAR_MEDIA_TYPE,
    IMAGE_DOCKER_LAYER_GZIP_MEDIA_TYPE,
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
];
/// No build makes more layers than this; overlay mounts of other runtimes take no more either.
pub(crate) const MOST_LAYERS: usize = 128;
/// The documents that are asked for, the `Accept` header of a request for a manifest.
pub(crate) const ACCEPTED: &str = "application/vnd.oci.image.manifest.v1+json, \
     application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.docker.distribution.manifest.list.v2+json";
/// The platform of what is no image but says something of one.
const PROOF: &str = "unknown/unknown";
const TITLE: &str = "org.opencontainers.image.title";
/// How many names from a manifest an error message repeats, and how much of each.
const NAMES_SHOWN: usize = 8;
const NAME_SHOWN: usize = 100;
/// How much of a parser's complaint it repeats: that can hold whole words of the document.
const COMPLAINT_SHOWN: usize = 200;

/// Why a manifest cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum ManifestError {
    #[error("the manifest is malformed: {0}")]
    Malformed(String),
    #[error("{0}")]
    Unsupported(String),
}

/// What a reference leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Document {
    /// An image.
    Image(Manifest),
    /// Images for several platforms; this is the manifest of the one for wasm.
    Index(Descriptor),
}

/// An image's manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    pub(crate) body: Body,
}

/// What an image is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Body {
    /// One bare WebAssembly program, with its file name where its layer has one.
    Program { module: Descriptor, title: Option<String> },
    /// Files: archives that are unpacked one over the other.
    Files(Vec<Descriptor>),
}

/// Content by digest and size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

/// The parts that tell one kind of document from another.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outline {
    #[serde(default)]
    schema_version: Option<u64>,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    manifests: Option<IgnoredAny>,
    #[serde(default)]
    layers: Option<IgnoredAny>,
}

/// Reads a manifest or an index.
pub(crate) fn read(bytes: &[u8]) -> Result<Document, ManifestError> {
    let outline: Outline = parse(bytes)?;
    match outline.schema_version {
        Some(2) => (),
        Some(version) => return Err(unsupported(&format!("manifest schema version {version}"))),
        None => return Err(ManifestError::Malformed("it has no schema version".to_owned())),
    }
    match (outline.manifests.is_some(), outline.layers.is_some(), outline.media_type.as_deref()) {
        // One document that reads as either could lead two readers to two images (CVE-2021-41190).
        (true, true, _) => Err(ManifestError::Malformed("it has both manifests and layers".to_owned())),
        (true, false, None | Some(OCI_IMAGE_INDEX_MEDIA_TYPE | IMAGE_MANIFEST_LIST_MEDIA_TYPE)) => {
            choose_platform(&parse::<OciImageIndex>(bytes)?.manifests).map(Document::Index)
        }
        (false, true, None | Some(OCI_IMAGE_MEDIA_TYPE | IMAGE_MANIFEST_MEDIA_TYPE)) => {
            image(&parse(bytes)?).map(Document::Image)
        }
        (_, _, Some(other)) => Err(unsupported(&format!("a document of media type {}", shown(other)))),
        (false, false, None) => {
            Err(ManifestError::Malformed("it has neither manifests nor layers".to_owned()))
        }
    }
}

fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, ManifestError> {
    serde_json::from_slice(bytes).map_err(|error| ManifestError::Malformed(complaint(&error)))
}

fn image(manifest: &OciImageManifest) -> Result<Manifest, ManifestError> {
    if manifest.layers.len() > MOST_LAYERS {
        let count = manifest.layers.len();
        let why = format!("the image has {count} layers, this node takes no more than {MOST_LAYERS}");
        return Err(ManifestError::Unsupported(why));
    }
    Ok(Manifest { config: descriptor(&manifest.config)?, body: body(manifest)? })
}

/// The first layer that is a program makes a bare artifact, whatever else lies beside it; archives alone are an image
/// with files, but for a lone file that `oras` pushed without saying what it is.
fn body(manifest: &OciImageManifest) -> Result<Body, ManifestError> {
    let is_image =
        [IMAGE_CONFIG_MEDIA_TYPE, IMAGE_DOCKER_CONFIG_MEDIA_TYPE].contains(&&*manifest.config.media_type);
    if let Some(layer) = manifest.layers.iter().find(|layer| is_program(layer, is_image)) {
        return Ok(Body::Program { module: descriptor(layer)?, title: title(layer).map(str::to_owned) });
    }
    let are_archives = manifest.layers.iter().all(|layer| LAYERS.contains(&&*layer.media_type));
    if is_image && are_archives && !manifest.layers.is_empty() {
        return manifest.layers.iter().map(descriptor).collect::<Result<_, _>>().map(Body::Files);
    }
    Err(unsupported(&found(manifest)))
}

fn is_program(layer: &OciDescriptor, of_image: bool) -> bool {
    let extension = || Path::new(title(layer)?).extension();
    let is_named_so = || extension().is_some_and(|extension| extension.eq_ignore_ascii_case("wasm"));
    layer.media_type == CNCF_LAYER
        || layer.media_type.ends_with(PROGRAM_SUFFIX)
        || !of_image && layer.media_type == IMAGE_LAYER_MEDIA_TYPE && is_named_so()
}

fn title(layer: &OciDescriptor) -> Option<&str> {
    layer.annotations.as_ref()?.get(TITLE).map(String::as_str)
}

/// The first entry whose architecture is `wasm`, `wasm32` or `wasm32-wasi`, whatever its operating system: `wasi/wasm`
/// of docker and buildah, `wasip1/wasm` and `wasip2/wasm` of the CNCF's layout, `wasi/wasm32`. Where there is none, the only
/// entry is taken if it names no platform at all; what docker says of the proofs that it puts beside images does not count.
fn choose_platform(entries: &[ImageIndexEntry]) -> Result<Descriptor, ManifestError> {
    let is_wasm = |entry: &&ImageIndexEntry| {
        let architecture = entry.platform.as_ref().map(|platform| platform.architecture.to_string());
        architecture.is_some_and(|architecture| matches!(&*architecture, "wasm" | "wasm32" | "wasm32-wasi"))
    };
    let mut images = entries.iter().filter(|entry| platform(entry) != PROOF);
    let only = || images.next().filter(|entry| entry.platform.is_none() && images.next().is_none());
    match entries.iter().find(is_wasm).or_else(only) {
        Some(entry) => checked(&entry.digest, entry.size),
        None => Err(ManifestError::Unsupported(format!(
            "the image has no platform wasi/wasm, it is for {}",
            names(entries.iter().map(platform).filter(|platform| platform != PROOF))
        ))),
    }
}

fn platform(entry: &ImageIndexEntry) -> String {
    match &entry.platform {
        Some(platform) => format!("{}/{}", platform.os, platform.architecture),
        None => "no platform".to_owned(),
    }
}

fn found(manifest: &OciImageManifest) -> String {
    let layers = manifest.layers.iter().map(|layer| layer.media_type.clone());
    let config = shown(&manifest.config.media_type);
    match manifest.layers.len() {
        0 => format!("config {config} without a layer"),
        1 => format!("config {config} with layer {}", names(layers)),
        count => format!("config {config} with {count} layers of {}", names(layers)),
    }
}

fn unsupported(found: &str) -> ManifestError {
    ManifestError::Unsupported(format!(
        "{found} is not supported; supported are a layer {CNCF_LAYER} or {WASM_LAYER_MEDIA_TYPE} with any config, and \
         layers of files such as {IMAGE_LAYER_GZIP_MEDIA_TYPE} with config {IMAGE_CONFIG_MEDIA_TYPE}"
    ))
}

fn descriptor(descriptor: &OciDescriptor) -> Result<Descriptor, ManifestError> {
    checked(&descriptor.digest, descriptor.size)
}

/// A descriptor of any document, as far as it can be followed.
pub(crate) fn checked(digest: &str, size: i64) -> Result<Descriptor, ManifestError> {
    let digest = Digest::parse(digest).map_err(|error| ManifestError::Malformed(error.to_string()))?;
    let size = u64::try_from(size)
        .map_err(|_| ManifestError::Malformed(format!("{digest} has the impossible size {size}")))?;
    Ok(Descriptor { digest, size })
}

/// The different ones of `all`, as many as a message can hold.
fn names(all: impl Iterator<Item = String>) -> String {
    let different: BTreeSet<String> = all.collect();
    let mut text: Vec<String> = different.iter().take(NAMES_SHOWN).map(|name| shown(name)).collect();
    if different.len() > NAMES_SHOWN {
        text.push(format!("{} more", different.len() - NAMES_SHOWN));
    }
    if text.is_empty() { "nothing".to_owned() } else { text.join(", ") }
}

/// Why a document cannot be parsed, safe to print.
pub(crate) fn complaint(error: &serde_json::Error) -> String {
    let text: String = error.to_string().chars().take(COMPLAINT_SHOWN).collect();
    text.escape_debug().to_string()
}

/// A name from outside, safe to print.
fn shown(name: &str) -> String {
    let text: String = name.chars().take(NAME_SHOWN).collect();
    text.escape_debug().to_string()
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
