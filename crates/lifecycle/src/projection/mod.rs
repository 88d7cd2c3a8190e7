//! What a volume of Kubernetes' own content holds: sources and fetched objects in, files out.

mod certificate;
mod references;
mod trust;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    ClusterTrustBundleProjection, ConfigMap, DownwardAPIVolumeFile, KeyToPath, PodCertificateProjection,
    Secret, Volume, VolumeProjection,
};
use thiserror::Error;

pub use certificate::PodCertificate;
pub use references::{
    group, is_content, needs_privacy, object_names, pod_certificates, shows_change, tokens, trust_bundles,
};
pub use trust::{TrustBundle, trust_anchors};

use crate::Objects;
use crate::downward::{DownwardError, Facts, metadata_field};

/// One file of a volume.
#[derive(Clone, PartialEq, Eq)]
pub struct File {
    /// Its bytes.
    pub content: Vec<u8>,
    /// Its permission bits.
    pub mode: u32,
}

/// A file may hold a secret: only its size is told.
impl std::fmt::Debug for File {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "File({} bytes, {:o})", self.content.len(), self.mode)
    }
}

/// The files of a volume by their relative path.
pub type Files = BTreeMap<String, File>;

/// Why a volume's files cannot be told. Each message names the object, the key or the field, never content.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProjectionError {
    /// A config map does not exist.
    #[error("configmap {0:?} not found")]
    MissingConfigMap(String),
    /// A secret does not exist.
    #[error("secret {0:?} not found")]
    MissingSecret(String),
    /// A config map lacks a key that the volume asks for.
    #[error("configmap references non-existent config key: {0}")]
    MissingConfigKey(String),
    /// A secret lacks a key that the volume asks for.
    #[error("references non-existent secret key: {0}")]
    MissingSecretKey(String),
    /// A token that the volume asks for was not fetched.
    #[error("no service account token for {0:?}")]
    MissingToken(String),
    /// There is no trust bundle as the volume asks for.
    #[error("clustertrustbundle {0:?} not found")]
    MissingTrustBundle(String),
    /// A certificate that the volume asks for was not issued.
    #[error("no pod certificate of signer {0:?}")]
    MissingCertificate(String),
    /// A path leaves the volume.
    #[error("invalid path {0:?}: must be relative and without \"..\"")]
    InvalidPath(String),
    /// A path is a file of one source and a directory of another.
    #[error("invalid path {0:?}: it is inside a file")]
    InsideFile(String),
    /// A field of the pod that cannot be projected.
    #[error(transparent)]
    Downward(#[from] DownwardError),
    /// More than one thing is wrong.
    #[error("[{}]", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    Several(Vec<ProjectionError>),
    /// A kind of source that this version does not do yet.
    #[error("projected source {0} is not supported by this node yet")]
    UnsupportedSource(&'static str),
}

/// What was fetched for a volume.
#[derive(Clone, Default)]
pub struct Fetched {
    /// The config maps and secrets that the volume refers to.
    pub objects: Objects,
    /// Service account tokens, in the order of [`tokens`].
    pub tokens: Vec<String>,
    /// Certificates of trust bundles, in the order of [`trust_bundles`]; `None` where there is no such bundle.
    pub trust_bundles: Vec<Option<String>>,
    /// Pod certificates, in the order of [`pod_certificates`].
    pub certificates: Vec<PodCertificate>,
}

/// Kubernetes' default for `defaultMode`.
const DEFAULT_MODE: i32 = 0o644;
/// What the files' group may do where the pod names one.
const GROUP_READS: u32 = 0o440;

/// The files of a volume of Kubernetes' own content; `None` for a volume of another kind.
///
/// # Errors
/// When a mandatory object, key or field is missing, or a path is not inside the volume.
#[must_use]
pub fn files(facts: &Facts, volume: &Volume, fetched: &Fetched) -> Option<Result<Files, ProjectionError>> {
    let (default_mode, parts) = references::sources(volume)?;
    let mut projection = Projection {
        facts,
        default_mode: default_mode.unwrap_or(DEFAULT_MODE),
        objects: &fetched.objects,
        tokens: fetched.tokens.iter(),
        trust_bundles: fetched.trust_bundles.iter(),
        certificates: fetched.certificates.iter(),
        files: Files::new(),
    };
    let mut errors = Vec::new();
    for error in parts.iter().filter_map(|part| projection.add(part).err()) {
        if !errors.contains(&error) {
            errors.push(error);
        }
    }
    match errors.pop() {
        None => {}
        Some(error) if errors.is_empty() => return Some(Err(error)),
        Some(last) => {
            errors.push(last);
            return Some(Err(ProjectionError::Several(errors)));
        }
    }
    let mut files = projection.files;
    if group(facts.pod).is_some() {
        for file in files.values_mut() {
            file.mode |= GROUP_READS;
        }
    }
    Some(Ok(files))
}

struct Projection<'a> {
    facts: &'a Facts<'a>,
    default_mode: i32,
    objects: &'a Objects,
    tokens: std::slice::Iter<'a, String>,
    trust_bundles: std::slice::Iter<'a, Option<String>>,
    certificates: std::slice::Iter<'a, PodCertificate>,
    files: Files,
}

impl Projection<'_> {
    fn add(&mut self, part: &VolumeProjection) -> Result<(), ProjectionError> {
        if let Some(wanted) = &part.service_account_token {
            let missing = || ProjectionError::MissingToken(wanted.path.clone());
            let token = self.tokens.next().ok_or_else(missing)?.clone();
            self.insert(&wanted.path, token.into_bytes(), Some(self.private_mode()))
        } else if let Some(wanted) = &part.config_map {
            let optional = wanted.optional == Some(true);
            match self.objects.config_maps.get(&wanted.name) {
                Some(object) => {
                    let missing =
                        optional.then_some(()).ok_or(ProjectionError::MissingConfigKey as fn(_) -> _);
                    self.add_entries(config_map_entries(object), wanted.items.as_deref(), missing)
                }
                None if optional => Ok(()),
                None => Err(ProjectionError::MissingConfigMap(wanted.name.clone())),
            }
        } else if let Some(wanted) = &part.secret {
            let optional = wanted.optional == Some(true);
            match self.objects.secrets.get(&wanted.name) {
                Some(object) => {
                    let missing =
                        optional.then_some(()).ok_or(ProjectionError::MissingSecretKey as fn(_) -> _);
                    self.add_entries(secret_entries(object), wanted.items.as_deref(), missing)
                }
                None if optional => Ok(()),
                None => Err(ProjectionError::MissingSecret(wanted.name.clone())),
            }
        } else if let Some(wanted) = &part.downward_api {
            wanted.items.iter().flatten().try_for_each(|item| self.add_field(item))
        } else if let Some(wanted) = &part.cluster_trust_bundle {
            self.add_trust_bundle(wanted)
        } else if let Some(wanted) = &part.pod_certificate {
            self.add_certificate(wanted)
        } else {
            Err(ProjectionError::UnsupportedSource("of this kind"))
        }
    }

    /// Adds all entries of an object, or those that `items` name; `missing` says what becomes of one that is not there.
    fn add_entries(
        &mut self,
        entries: BTreeMap<&str, &[u8]>,
        items: Option<&[KeyToPath]>,
        missing: Result<(), fn(String) -> ProjectionError>,
    ) -> Result<(), ProjectionError> {
        let Some(items) = items.filter(|items| !items.is_empty()) else {
            return entries
                .into_iter()
                .try_for_each(|(key, content)| self.insert(key, content.to_vec(), None));
        };
        for item in items {
            match (entries.get(item.key.as_str()), missing) {
                (Some(content), _) => self.insert(&item.path, content.to_vec(), item.mode)?,
                (None, Ok(())) => {}
                (None, Err(error)) => return Err(error(item.key.clone())),
            }
        }
        Ok(())
    }

    fn add_field(&mut self, item: &DownwardAPIVolumeFile) -> Result<(), ProjectionError> {
        let value = match (&item.field_ref, &item.resource_field_ref) {
            (Some(field), _) => metadata_field(self.facts.pod, &field.field_path)?,
            (None, Some(resource)) => self.facts.resource_of(resource)?,
            (None, None) => String::new(),
        };
        self.insert(&item.path, value.into_bytes(), item.mode)
    }

    fn add_trust_bundle(&mut self, wanted: &ClusterTrustBundleProjection) -> Result<(), ProjectionError> {
        let name = wanted.name.as_ref().or(wanted.signer_name.as_ref()).cloned().unwrap_or_default();
        match self.trust_bundles.next().and_then(Option::as_ref) {
            Some(certificates) => self.insert(&wanted.path, certificates.clone().into_bytes(), None),
            None if wanted.optional == Some(true) => self.insert(&wanted.path, Vec::new(), None),
            None => Err(ProjectionError::MissingTrustBundle(name)),
        }
    }

    fn add_certificate(&mut self, wanted: &PodCertificateProjection) -> Result<(), ProjectionError> {
        let missing = || ProjectionError::MissingCertificate(wanted.signer_name.clone());
        let issued = self.certificates.next().ok_or_else(missing)?;
        let files = [
            (&wanted.credential_bundle_path, issued.bundle()),
            (&wanted.key_path, issued.key.clone()),
            (&wanted.certificate_chain_path, issued.chain.clone()),
        ];
        let mode = self.private_mode();
        let mut wanted = files.into_iter().filter_map(|(path, content)| Some((path.as_deref()?, content)));
        wanted.try_for_each(|(path, content)| self.insert(path, content.into_bytes(), Some(mode)))
    }

    /// Who runs as somebody, or for a group, has tokens and keys that only they can read.
    fn private_mode(&self) -> i32 {
        if references::has_owner(self.facts.pod) { 0o600 } else { self.default_mode }
    }

    fn insert(&mut self, path: &str, content: Vec<u8>, mode: Option<i32>) -> Result<(), ProjectionError> {
        if !is_inside(path) {
            return Err(ProjectionError::InvalidPath(path.to_owned()));
        }
        let is_crossed = |other: &str| {
            let deeper = |a: &str, b: &str| a.strip_prefix(b).is_some_and(|rest| rest.starts_with('/'));
            deeper(path, other) || deeper(other, path)
        };
        if self.files.keys().any(|other| is_crossed(other)) {
            return Err(ProjectionError::InsideFile(path.to_owned()));
        }
        let mode = u32::try_from(mode.unwrap_or(self.default_mode)).unwrap_or(0) & 0o777;
        self.files.insert(path.to_owned(), File { content, mode });
        Ok(())
    }
}

fn is_inside(path: &str) -> bool {
    !path.starts_with("..")
        && path.split('/').all(|part| !matches!(part, "" | "." | "..") && !part.contains('\0'))
}

fn config_map_entries(object: &ConfigMap) -> BTreeMap<&str, &[u8]> {
    let text = object.data.iter().flatten().map(|(key, text)| (key.as_str(), text.as_bytes()));
    let binary = object.binary_data.iter().flatten().map(|(key, bytes)| (key.as_str(), bytes.0.as_slice()));
    binary.chain(text).collect()
}

fn secret_entries(object: &Secret) -> BTreeMap<&str, &[u8]> {
    object.data.iter().flatten().map(|(key, bytes)| (key.as_str(), bytes.0.as_slice())).collect()
}

#[cfg(test)]
mod tests;
