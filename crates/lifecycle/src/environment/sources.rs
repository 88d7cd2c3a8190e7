use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, EnvFromSource, EnvVarSource, FileKeySelector};
use thiserror::Error;

use super::file::{EnvironmentFileError, file_variable};
use super::{Variables, expand};
use crate::downward::{DownwardError, Facts};
use crate::{ObjectNames, Objects, Wish};

/// Why a container's variables cannot be told. Each message names the object and the key, never a value.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EnvironmentError {
    /// A mandatory config map does not exist.
    #[error("configmap {0:?} not found")]
    MissingConfigMap(String),
    /// A mandatory secret does not exist.
    #[error("secret {0:?} not found")]
    MissingSecret(String),
    /// The object lacks a mandatory key.
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    MissingKey {
        /// The key.
        key: String,
        /// `ConfigMap` or `Secret`.
        kind: &'static str,
        /// The object's namespace.
        namespace: String,
        /// The object's name.
        name: String,
    },
    /// A variable of a WebAssembly program is text.
    #[error("key {key} in Secret {namespace}/{name} is not text, as an environment variable has to be")]
    NotText {
        /// The key.
        key: String,
        /// The secret's namespace.
        namespace: String,
        /// The secret's name.
        name: String,
    },
    /// A mandatory file of variables does not exist.
    #[error("couldn't find the env file {path} in volume {volume:?}")]
    MissingFile {
        /// The volume.
        volume: String,
        /// The path in it.
        path: String,
    },
    /// The file lacks a mandatory variable.
    #[error("couldn't find key {key} in the env file {path} of volume {volume:?}")]
    MissingVariable {
        /// The variable's name.
        key: String,
        /// The volume.
        volume: String,
        /// The path in it.
        path: String,
    },
    /// The file is not one of variables.
    #[error("couldn't parse the env file {path} of volume {volume:?}: {source}")]
    InvalidFile {
        /// The volume.
        volume: String,
        /// The path in it.
        path: String,
        /// What is wrong with it.
        source: EnvironmentFileError,
    },
    /// A field that cannot be shown.
    #[error(transparent)]
    Downward(#[from] DownwardError),
    /// A source that this node does not know.
    #[error("env {0:?}: a source of this kind is not supported by this node")]
    UnknownSource(String),
}

/// What a container's variables are made from.
#[derive(Clone, Default)]
pub struct Given {
    /// The config maps and secrets that the container refers to.
    pub objects: Objects,
    /// The content of each file that the container refers to, by volume and path; those that do not exist are absent.
    pub files: BTreeMap<(String, String), Vec<u8>>,
    /// The variables of services.
    pub services: Variables,
}

/// The config maps and secrets that a container's variables refer to.
#[must_use]
pub fn object_names(container: &Container) -> ObjectNames {
    let mut names = ObjectNames::default();
    for source in container.env_from.iter().flatten() {
        names.config_maps.extend(source.config_map_ref.as_ref().map(|wanted| wanted.name.clone()));
        names.secrets.extend(source.secret_ref.as_ref().map(|wanted| wanted.name.clone()));
    }
    for source in container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref()) {
        names.config_maps.extend(source.config_map_key_ref.as_ref().map(|wanted| wanted.name.clone()));
        names.secrets.extend(source.secret_key_ref.as_ref().map(|wanted| wanted.name.clone()));
    }
    names
}

/// The files that a container's variables refer to: volumes and paths in them.
#[must_use]
pub fn file_references(container: &Container) -> BTreeSet<(String, String)> {
    let variables = container.env.iter().flatten();
    let files = variables
        .filter_map(|variable| variable.value_from.as_ref())
        .filter_map(|source| source.file_key_ref.as_ref());
    files.map(|file| (file.volume_name.clone(), file.path.clone())).collect()
}

/// A container's variables: those of `envFrom`, then those of `env`, each of which sees those before it; a later one of
/// the same name wins. Those of services follow where the container has none of that name.
///
/// # Errors
/// When a mandatory object, key, file or field is missing, or a value is no text.
pub fn variables(facts: &Facts, container: &Container, given: &Given) -> Result<Variables, EnvironmentError> {
    let resolver = Resolver { facts, container, given, namespace: facts.pod.identity().namespace };
    let mut variables = Variables::default();
    for source in container.env_from.iter().flatten() {
        resolver.import(&mut variables, source)?;
    }
    for declared in container.env.iter().flatten() {
        let literal = declared.value.as_deref().unwrap_or_default();
        let value = match &declared.value_from {
            Some(source) if literal.is_empty() => resolver.value(&declared.name, source)?,
            _ => {
                let lookup = |name: &str| variables.get(name).or_else(|| given.services.get(name));
                Some(expand(literal, lookup))
            }
        };
        if let Some(value) = value {
            variables.set(&declared.name, value);
        }
    }
    for (name, value) in &given.services.entries {
        if variables.get(name).is_none() {
            variables.set(name, value.clone());
        }
    }
    Ok(variables)
}

struct Resolver<'a> {
    facts: &'a Facts<'a>,
    container: &'a Container,
    given: &'a Given,
    namespace: String,
}

impl Resolver<'_> {
    /// Adds all keys of an object.
    fn import(&self, variables: &mut Variables, source: &EnvFromSource) -> Result<(), EnvironmentError> {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        let objects = &self.given.objects;
        if let Some(wanted) = &source.config_map_ref {
            match objects.config_maps.get(&wanted.name) {
                Some(object) => {
                    for (key, value) in object.data.iter().flatten() {
                        variables.set(&format!("{prefix}{key}"), value.clone());
                    }
                }
                None if wanted.optional == Some(true) => {}
                None => return Err(EnvironmentError::MissingConfigMap(wanted.name.clone())),
            }
        } else if let Some(wanted) = &source.secret_ref {
            match objects.secrets.get(&wanted.name) {
                Some(object) => {
                    for (key, value) in object.data.iter().flatten() {
                        let value = self.text(&wanted.name, key, &value.0)?;
                        variables.set(&format!("{prefix}{key}"), value);
                    }
                }
                None if wanted.optional == Some(true) => {}
                None => return Err(EnvironmentError::MissingSecret(wanted.name.clone())),
            }
        }
        Ok(())
    }

    /// The value from a source; `None` when it is optional and missing.
    fn value(&self, name: &str, source: &EnvVarSource) -> Result<Option<String>, EnvironmentError> {
        if let Some(wanted) = &source.field_ref {
            Ok(Some(self.facts.field(&wanted.field_path)?))
        } else if let Some(wanted) = &source.resource_field_ref {
            let is_own = wanted.container_name.as_deref().unwrap_or_default().is_empty();
            let value = if is_own {
                self.facts.resource(self.container, wanted)
            } else {
                self.facts.resource_of(wanted)
            };
            Ok(Some(value?))
        } else if let Some(wanted) = &source.config_map_key_ref {
            self.config_map_value(&wanted.name, &wanted.key, wanted.optional == Some(true))
        } else if let Some(wanted) = &source.secret_key_ref {
            self.secret_value(&wanted.name, &wanted.key, wanted.optional == Some(true))
        } else if let Some(wanted) = &source.file_key_ref {
            self.file_value(wanted)
        } else {
            Err(EnvironmentError::UnknownSource(name.to_owned()))
        }
    }

    fn config_map_value(
        &self,
        name: &str,
        key: &str,
        optional: bool,
    ) -> Result<Option<String>, EnvironmentError> {
        let Some(object) = self.given.objects.config_maps.get(name) else {
            let missing = EnvironmentError::MissingConfigMap(name.to_owned());
            return if optional { Ok(None) } else { Err(missing) };
        };
        match object.data.as_ref().and_then(|data| data.get(key)) {
            Some(value) => Ok(Some(value.clone())),
            None if optional => Ok(None),
            None => Err(self.missing_key("ConfigMap", name, key)),
        }
    }

    fn secret_value(
        &self,
        name: &str,
        key: &str,
        optional: bool,
    ) -> Result<Option<String>, EnvironmentError> {
        let Some(object) = self.given.objects.secrets.get(name) else {
            let missing = EnvironmentError::MissingSecret(name.to_owned());
            return if optional { Ok(None) } else { Err(missing) };
        };
        match object.data.as_ref().and_then(|data| data.get(key)) {
            Some(value) => self.text(name, key, &value.0).map(Some),
            None if optional => Ok(None),
            None => Err(self.missing_key("Secret", name, key)),
        }
    }

    fn file_value(&self, wanted: &FileKeySelector) -> Result<Option<String>, EnvironmentError> {
        let optional = wanted.optional == Some(true);
        let (volume, path) = (wanted.volume_name.clone(), wanted.path.clone());
        let Some(content) = self.given.files.get(&(volume.clone(), path.clone())) else {
            return if optional { Ok(None) } else { Err(EnvironmentError::MissingFile { volume, path }) };
        };
        match file_variable(content, &wanted.key) {
            Ok(None) if !optional => {
                Err(EnvironmentError::MissingVariable { key: wanted.key.clone(), volume, path })
            }
            Ok(value) => Ok(value),
            Err(source) => Err(EnvironmentError::InvalidFile { volume, path, source }),
        }
    }

    /// A value as text. None has a zero byte in it: that is where a variable ends.
    fn text(&self, name: &str, key: &str, value: &[u8]) -> Result<String, EnvironmentError> {
        let text = std::str::from_utf8(value).ok().filter(|text| !text.contains('\0'));
        text.map(ToOwned::to_owned).ok_or_else(|| EnvironmentError::NotText {
            key: key.to_owned(),
            namespace: self.namespace.clone(),
            name: name.to_owned(),
        })
    }

    fn missing_key(&self, kind: &'static str, name: &str, key: &str) -> EnvironmentError {
        EnvironmentError::MissingKey {
            key: key.to_owned(),
            kind,
            namespace: self.namespace.clone(),
            name: name.to_owned(),
        }
    }
}

#[cfg(test)]
#[path = "sources_tests.rs"]
mod tests;
