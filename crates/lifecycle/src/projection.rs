//! What a projected volume holds: sources and fetched objects in, files out.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, KeyToPath, ObjectFieldSelector, Pod, ProjectedVolumeSource};
use thiserror::Error;

use crate::Wish;

/// One file of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its bytes.
    pub content: Vec<u8>,
    /// Its permission bits.
    pub mode: u32,
}

/// The files of a volume by their relative path.
pub type Files = BTreeMap<String, File>;

/// Why a volume's files cannot be told. Each message names the object, the key or the field.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProjectionError {
    /// The object does not exist.
    #[error("configmap {0:?} not found")]
    MissingConfigMap(String),
    /// The object lacks a key that the volume asks for.
    #[error("configmap references non-existent config key: {0}")]
    MissingKey(String),
    /// A token that the volume asks for was not fetched.
    #[error("no service account token for {0:?}")]
    MissingToken(String),
    /// A path leaves the volume.
    #[error("invalid path {0:?}: must be relative and without \"..\"")]
    InvalidPath(String),
    /// A field of the pod that cannot be projected.
    #[error("unsupported fieldPath: {0}")]
    UnsupportedField(String),
    /// A kind of source that this version does not do yet.
    #[error("projected source {0} is not supported by this node yet")]
    UnsupportedSource(&'static str),
}

/// What was fetched for a projected volume.
#[derive(Clone, Debug, Default)]
pub struct Fetched {
    /// Service account tokens, in the order of the sources that ask for them.
    pub tokens: Vec<String>,
    /// Config maps by name; those that do not exist are absent.
    pub config_maps: BTreeMap<String, ConfigMap>,
}

/// Kubernetes' default for `defaultMode`.
const DEFAULT_MODE: i32 = 0o644;

/// The files of a projected volume.
///
/// # Errors
/// When a mandatory object, key or field is missing, or a path is not inside the volume.
pub fn project(
    pod: &Pod,
    source: &ProjectedVolumeSource,
    fetched: &Fetched,
) -> Result<Files, ProjectionError> {
    let default_mode = source.default_mode.unwrap_or(DEFAULT_MODE);
    let mut tokens = fetched.tokens.iter();
    let mut files = Files::new();
    for part in source.sources.iter().flatten() {
        if let Some(token) = &part.service_account_token {
            let content =
                tokens.next().ok_or_else(|| ProjectionError::MissingToken(token.path.clone()))?.clone();
            insert(&mut files, &token.path, content.into_bytes(), default_mode)?;
        } else if let Some(wanted) = &part.config_map {
            match fetched.config_maps.get(&wanted.name) {
                Some(object) => {
                    let optional = wanted.optional.unwrap_or(false);
                    config_map(&mut files, object, wanted.items.as_deref(), optional, default_mode)?;
                }
                None if wanted.optional == Some(true) => {}
                None => return Err(ProjectionError::MissingConfigMap(wanted.name.clone())),
            }
        } else if let Some(wanted) = &part.downward_api {
            for item in wanted.items.iter().flatten() {
                let field =
                    item.field_ref.as_ref().ok_or(ProjectionError::UnsupportedSource("resourceFieldRef"))?;
                let mode = item.mode.unwrap_or(default_mode);
                insert(&mut files, &item.path, field_value(pod, field)?.into_bytes(), mode)?;
            }
        } else {
            return Err(ProjectionError::UnsupportedSource(kind(part)));
        }
    }
    Ok(files)
}

fn kind(part: &k8s_openapi::api::core::v1::VolumeProjection) -> &'static str {
    match part {
        part if part.secret.is_some() => "secret",
        part if part.cluster_trust_bundle.is_some() => "clusterTrustBundle",
        part if part.pod_certificate.is_some() => "podCertificate",
        _ => "of this kind",
    }
}

fn config_map(
    files: &mut Files,
    object: &ConfigMap,
    items: Option<&[KeyToPath]>,
    optional: bool,
    default_mode: i32,
) -> Result<(), ProjectionError> {
    let text = |key: &str| object.data.as_ref()?.get(key).map(|text| text.clone().into_bytes());
    let binary = |key: &str| object.binary_data.as_ref()?.get(key).map(|bytes| bytes.0.clone());
    let Some(items) = items else {
        let keys = object.data.iter().flatten().map(|(key, _)| key);
        for key in keys.chain(object.binary_data.iter().flatten().map(|(key, _)| key)) {
            insert(files, key, text(key).or_else(|| binary(key)).unwrap_or_default(), default_mode)?;
        }
        return Ok(());
    };
    for item in items {
        match text(&item.key).or_else(|| binary(&item.key)) {
            Some(content) => insert(files, &item.path, content, item.mode.unwrap_or(default_mode))?,
            None if optional => {}
            None => return Err(ProjectionError::MissingKey(item.key.clone())),
        }
    }
    Ok(())
}

fn insert(files: &mut Files, path: &str, content: Vec<u8>, mode: i32) -> Result<(), ProjectionError> {
    let is_inside = !path.is_empty()
        && !path.starts_with('/')
        && path.split('/').all(|part| !matches!(part, "" | "." | "..") && !part.contains('\0'))
        && !path.starts_with("..");
    if !is_inside {
        return Err(ProjectionError::InvalidPath(path.to_owned()));
    }
    let mode = u32::try_from(mode).unwrap_or(0) & 0o777;
    files.insert(path.to_owned(), File { content, mode });
    Ok(())
}

fn field_value(pod: &Pod, field: &ObjectFieldSelector) -> Result<String, ProjectionError> {
    let identity = pod.identity();
    let path = field.field_path.as_str();
    let keyed = |prefix: &str| path.strip_prefix(prefix)?.strip_suffix("']");
    let entry = |entries: &Option<BTreeMap<String, String>>, key: &str| {
        entries.as_ref().and_then(|entries| entries.get(key)).cloned().unwrap_or_default()
    };
    match path {
        "metadata.name" => Ok(identity.name),
        "metadata.namespace" => Ok(identity.namespace),
        "metadata.uid" => Ok(identity.uid.as_str().to_owned()),
        "metadata.labels" => Ok(listed(pod.metadata.labels.as_ref())),
        "metadata.annotations" => Ok(listed(pod.metadata.annotations.as_ref())),
        _ => keyed("metadata.labels['")
            .map(|key| entry(&pod.metadata.labels, key))
            .or_else(|| keyed("metadata.annotations['").map(|key| entry(&pod.metadata.annotations, key)))
            .ok_or_else(|| ProjectionError::UnsupportedField(path.to_owned())),
    }
}

/// Labels or annotations as the downward API lists them: `key="value"`, a line each.
fn listed(entries: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<String> =
        entries.into_iter().flatten().map(|(key, value)| format!("{key}={}", quoted(value))).collect();
    lines.join("\n")
}

/// The text as a Go string literal.
fn quoted(text: &str) -> String {
    let mut result = String::with_capacity(text.len() + 2);
    result.push('"');
    for character in text.chars() {
        match character {
            '"' => result.push_str("\\\""),
            '\\' => result.push_str("\\\\"),
            '\n' => result.push_str("\\n"),
            '\r' => result.push_str("\\r"),
            '\t' => result.push_str("\\t"),
            '\0'..='\x1f' | '\x7f' => result.extend(hexadecimal(character)),
            _ => result.push(character),
        }
    }
    result.push('"');
    result
}

/// A control character of ASCII as `\xhh`.
fn hexadecimal(character: char) -> [char; 4] {
    let digit = |value: u32| char::from_digit(value & 0xf, 16).unwrap_or('0');
    let code = u32::from(character);
    ['\\', 'x', digit(code >> 4), digit(code)]
}

#[cfg(test)]
#[path = "projection_tests.rs"]
mod tests;
