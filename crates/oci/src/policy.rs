//! Whose signature an image must have, in the form of `containers-policy.json(5)`, of which the parts are understood that
//! concern images in registries and keys of sigstore.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use coracle_lifecycle::Digest;
use serde::Deserialize;
use thiserror::Error;

use crate::digest::digest_of;
use crate::key::{KeyError, PublicKey};
use crate::name::ImageName;

/// Why a policy cannot be used.
#[derive(Debug, Error)]
pub enum PolicyError {
    /// The file, or that of a key, cannot be read.
    #[error("{path} cannot be read: {cause}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// The file is no policy.
    #[error("it is no policy: {0}")]
    Malformed(#[from] serde_json::Error),
    /// It asks for what this node cannot check; nothing is accepted in its place.
    #[error("{scope:?}: {what} is not supported")]
    Unsupported {
        /// The part of the policy.
        scope: String,
        /// What it asks for.
        what: String,
    },
    /// A key cannot be used.
    #[error("{scope:?}: {cause}")]
    Key {
        /// The part of the policy.
        scope: String,
        /// Why.
        cause: KeyError,
    },
}

/// What images must show before they are used.
#[derive(Debug, Default)]
pub(crate) struct Policy {
    /// By what references begin with, `""` for all.
    scopes: BTreeMap<String, Requirements>,
}

/// All that an image must show, each part of it.
#[derive(Debug, Default)]
pub(crate) struct Requirements {
    pub(crate) all: Vec<Requirement>,
    digest: Option<Digest>,
}

/// One thing that an image must show.
#[derive(Debug)]
pub(crate) enum Requirement {
    Rejected,
    /// That one of these keys has signed its digest, under such a name.
    Signed {
        keys: Vec<PublicKey>,
        identity: Identity,
    },
}

/// Which reference a signature must be for.
#[derive(Debug, Default, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(crate) enum Identity {
    /// One of the same repository.
    #[default]
    MatchRepository,
    MatchExact,
    /// The very same, or one of the same repository when the image is referred to by digest.
    MatchRepoDigestOrExact,
    ExactReference {
        docker_reference: String,
    },
    ExactRepository {
        docker_repository: String,
    },
}

#[derive(Deserialize)]
struct Document {
    default: Vec<RawRequirement>,
    #[serde(default)]
    transports: BTreeMap<String, BTreeMap<String, Vec<RawRequirement>>>,
}

#[derive(Deserialize)]
struct RawRequirement {
    r#type: String,
    #[serde(flatten)]
    rest: serde_json::Map<String, serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Signed {
    key_path: Option<PathBuf>,
    #[serde(default)]
    key_paths: Vec<PathBuf>,
    key_data: Option<String>,
    #[serde(default)]
    key_datas: Vec<String>,
    #[serde(default, rename = "signedIdentity")]
    identity: Identity,
}

impl Policy {
    /// Reads a policy and the keys that it names.
    ///
    /// # Errors
    /// When a file cannot be read or is none, or the policy asks for what cannot be checked here.
    pub(crate) fn from_file(path: &Path) -> Result<Self, PolicyError> {
        Self::parse(&read(path)?)
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, PolicyError> {
        let Document { default, mut transports } = serde_json::from_slice(bytes)?;
        let mut policy = Self::default();
        policy.add("", default)?;
        for (scope, requirements) in transports.remove("docker").unwrap_or_default() {
            policy.add(&scope, requirements)?;
        }
        Ok(policy)
    }

    fn add(&mut self, scope: &str, raw: Vec<RawRequirement>) -> Result<(), PolicyError> {
        let mut all = Vec::new();
        if raw.is_empty() {
            let what = "an empty list of requirements".to_owned();
            return Err(PolicyError::Unsupported { scope: scope.to_owned(), what });
        }
        for requirement in raw {
            all.extend(self::requirement(scope, requirement)?);
        }
        let digest = (!all.is_empty()).then(|| digest_of(format!("{all:?}").as_bytes()));
        self.scopes.insert(scope.to_owned(), Requirements { all, digest });
        Ok(())
    }

    /// Whether nothing is demanded of any image.
    pub(crate) fn is_empty(&self) -> bool {
        self.scopes.values().all(|requirements| requirements.all.is_empty())
    }

    /// What an image of this name must show: as the longest scope says that fits it.
    pub(crate) fn requirements(&self, name: &ImageName) -> Option<&Requirements> {
        scopes(name).into_iter().find_map(|scope| self.scopes.get(&scope))
    }

    /// What tells the requirements for this name from others; `None` when there are none.
    pub(crate) fn demand(&self, name: &ImageName) -> Option<Digest> {
        self.requirements(name)?.digest.clone()
    }
}

/// The scopes that fit a name, the longest first: itself, its repository, each path above, the host, domains with a `*`, all.
fn scopes(name: &ImageName) -> Vec<String> {
    let mut scopes = vec![name.to_string()];
    let mut path = format!("{}/{}", name.registry(), name.path());
    loop {
        scopes.push(path.clone());
        match path.rfind('/') {
            Some(slash) => path.truncate(slash),
            None => break,
        }
    }
    let host = name.registry().split(':').next().unwrap_or_default();
    let domains = host.match_indices('.').map(|(dot, _)| format!("*{}", &host[dot..]));
    scopes.extend(domains);
    scopes.push(String::new());
    scopes
}

fn requirement(scope: &str, raw: RawRequirement) -> Result<Option<Requirement>, PolicyError> {
    let unsupported = |what: String| PolicyError::Unsupported { scope: scope.to_owned(), what };
    match &*raw.r#type {
        "insecureAcceptAnything" => Ok(None),
        "reject" => Ok(Some(Requirement::Rejected)),
        "sigstoreSigned" => {
            let signed: Signed = serde_json::from_value(raw.rest.into())
                .map_err(|error| unsupported(format!("sigstoreSigned: {error}")))?;
            let keys = keys(scope, &signed)?;
            if keys.is_empty() {
                return Err(unsupported("sigstoreSigned without a key".to_owned()));
            }
            Ok(Some(Requirement::Signed { keys, identity: signed.identity }))
        }
        other => Err(unsupported(format!("the requirement {other:?}"))),
    }
}

fn keys(scope: &str, signed: &Signed) -> Result<Vec<PublicKey>, PolicyError> {
    let wrong = |cause| PolicyError::Key { scope: scope.to_owned(), cause };
    let mut texts = Vec::new();
    for path in signed.key_path.iter().chain(&signed.key_paths) {
        texts.push(read(path)?);
    }
    for data in signed.key_data.iter().chain(&signed.key_datas) {
        texts.push(STANDARD.decode(data).map_err(|_| wrong(KeyError::Malformed))?);
    }
    texts.iter().map(|text| PublicKey::from_pem(text).map_err(wrong)).collect()
}

fn read(path: &Path) -> Result<Vec<u8>, PolicyError> {
    fs::read(path).map_err(|cause| PolicyError::Unreadable { path: path.to_owned(), cause })
}

impl Identity {
    /// Whether a signature for `signed`, a reference, is one for `name`.
    pub(crate) fn fits(&self, signed: &str, name: &ImageName) -> bool {
        let Ok(signed_name) = ImageName::parse(signed) else { return false };
        let repository = |name: &ImageName| format!("{}/{}", name.registry(), name.path());
        let is_of_repository = repository(&signed_name) == repository(name);
        let is_exact = signed_name == *name;
        match self {
            Self::MatchRepository => is_of_repository,
            Self::MatchExact => is_exact,
            Self::MatchRepoDigestOrExact => is_exact || name.digest().is_some() && is_of_repository,
            Self::ExactReference { docker_reference } => {
                ImageName::parse(docker_reference).is_ok_and(|wanted| wanted == signed_name)
            }
            Self::ExactRepository { docker_repository } => ImageName::parse(docker_repository)
                .is_ok_and(|wanted| repository(&wanted) == repository(&signed_name)),
        }
    }
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
