use std::collections::BTreeSet;

use coracle_lifecycle::Digest;
use oci_client::manifest::{
    IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, ImageIndexEntry, OCI_IMAGE_INDEX_MEDIA_TYPE,
    OCI_IMAGE_MEDIA_TYPE, OciDescriptor, OciImageIndex, OciImageManifest, WASM_LAYER_MEDIA_TYPE,
};
use serde::Deserialize;
use serde::de::IgnoredAny;
use thiserror::Error;

/// The config of the layout that the CNCF's wasm working group specified
/// (<https://tag-runtime.cncf.io/wgs/wasm/deliverables/wasm-oci-artifact/>).
const CNCF_CONFIG: &str = "application/vnd.wasm.config.v0+json";
/// The layer of that layout.
const CNCF_LAYER: &str = "application/wasm";
/// The documents that are asked for, the `Accept` header of a request for a manifest.
pub(crate) const ACCEPTED: &str = "application/vnd.oci.image.manifest.v1+json, \
     application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.docker.distribution.manifest.list.v2+json";
const TITLE: &str = "org.opencontainers.image.title";
/// How many names from a manifest an error message repeats, and how much of each.
const NAMES_SHOWN: usize = 8;
const NAME_SHOWN: usize = 100;

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
    /// One program.
    Artifact(Artifact),
    /// Images for several platforms; this is the manifest of the one for wasm.
    Index(Descriptor),
}

/// An image that is one bare WebAssembly program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Artifact {
    pub(crate) config: Descriptor,
    pub(crate) module: Descriptor,
    /// The program's file name, where its layer has one.
    pub(crate) title: Option<String>,
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
            artifact(&parse(bytes)?).map(Document::Artifact)
        }
        (_, _, Some(other)) => Err(unsupported(&format!("a document of media type {}", shown(other)))),
        (false, false, None) => {
            Err(ManifestError::Malformed("it has neither manifests nor layers".to_owned()))
        }
    }
}

fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, ManifestError> {
    serde_json::from_slice(bytes)
        .map_err(|error| ManifestError::Malformed(error.to_string().escape_debug().to_string()))
}

/// The one layer decides: of the CNCF's type with the CNCF's config, or of the older type, whose config says nothing.
fn artifact(manifest: &OciImageManifest) -> Result<Artifact, ManifestError> {
    let config = manifest.config.media_type.as_str();
    let [layer] = manifest.layers.as_slice() else {
        return Err(unsupported(&found(manifest)));
    };
    match (config, layer.media_type.as_str()) {
        (CNCF_CONFIG, CNCF_LAYER) | (_, WASM_LAYER_MEDIA_TYPE) => Ok(Artifact {
            config: descriptor(&manifest.config)?,
            module: descriptor(layer)?,
            title: layer.annotations.as_ref().and_then(|annotations| annotations.get(TITLE)).cloned(),
        }),
        _ => Err(unsupported(&found(manifest))),
    }
}

/// The first entry whose architecture is `wasm` or `wasm32`, whatever its operating system: `wasi/wasm` in an OCI
/// index, `wasip1/wasm` and `wasip2/wasm` in the CNCF's layout.
fn choose_platform(entries: &[ImageIndexEntry]) -> Result<Descriptor, ManifestError> {
    let is_wasm = |entry: &&ImageIndexEntry| {
        let architecture = entry.platform.as_ref().map(|platform| platform.architecture.to_string());
        architecture.is_some_and(|architecture| matches!(&*architecture, "wasm" | "wasm32"))
    };
    match entries.iter().find(is_wasm) {
        Some(entry) => checked(&entry.digest, entry.size),
        None => Err(ManifestError::Unsupported(format!(
            "the image has no platform wasi/wasm, it is for {}",
            names(entries.iter().map(platform))
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
        "{found} is not supported; supported are config {CNCF_CONFIG} with one layer {CNCF_LAYER}, and any config \
         with one layer {WASM_LAYER_MEDIA_TYPE}"
    ))
}

fn descriptor(descriptor: &OciDescriptor) -> Result<Descriptor, ManifestError> {
    checked(&descriptor.digest, descriptor.size)
}

fn checked(digest: &str, size: i64) -> Result<Descriptor, ManifestError> {
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

/// A name from outside, safe to print.
fn shown(name: &str) -> String {
    let text: String = name.chars().take(NAME_SHOWN).collect();
    text.escape_debug().to_string()
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
