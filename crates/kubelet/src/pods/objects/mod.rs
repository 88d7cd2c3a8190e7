//! The config maps and secrets that pods refer to: one watch for each object, shared by all pods that refer to it and
//! let go with the last of them. The API server lets a node ask for single objects by name only, and only for those that
//! one of its pods refers to.

mod cache;
mod news;
mod source;
mod trust;

use std::collections::HashMap;
use std::sync::Arc;

use coracle_lifecycle::projection::trust_anchors;
use coracle_lifecycle::{ObjectNames, Objects};
use k8s_openapi::api::core::v1::{ClusterTrustBundleProjection, ConfigMap, Secret};
use parking_lot::Mutex;
use thiserror::Error;
use tokio::sync::Notify;

use super::PodApi;
use cache::{Cache, Entry};
use trust::{TrustBundles, Watched};

/// Why an object cannot be told. Never holds content.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("failed to fetch {kind} {name:?}: {why}")]
pub(crate) struct FetchError {
    kind: &'static str,
    name: String,
    why: String,
}

/// All objects that pods of this node refer to now.
#[derive(Clone)]
pub(crate) struct ObjectSource {
    config_maps: Cache<ConfigMap>,
    secrets: Cache<Secret>,
    trust: TrustBundles,
}

impl ObjectSource {
    pub(crate) fn new(api: &PodApi) -> Self {
        Self {
            config_maps: Cache::new(api.clone()),
            secrets: Cache::new(api.clone()),
            trust: TrustBundles::new(api.clone()),
        }
    }

    /// What a pod of `namespace` will refer to: nothing yet.
    pub(super) fn hold(&self, namespace: &str) -> Held {
        Held {
            source: self.clone(),
            namespace: namespace.to_owned(),
            entries: Mutex::default(),
            changed: Arc::default(),
        }
    }
}

/// The objects one pod refers to. They are watched until this is dropped.
pub(super) struct Held {
    source: ObjectSource,
    namespace: String,
    entries: Mutex<Entries>,
    changed: Arc<Notify>,
}

#[derive(Default)]
struct Entries {
    config_maps: HashMap<String, Arc<Entry<ConfigMap>>>,
    secrets: HashMap<String, Arc<Entry<Secret>>>,
    trust: Option<Arc<Watched>>,
}

impl Held {
    /// The objects of these names as they are now, and holds them.
    ///
    /// # Errors
    /// When the API server does not tell.
    pub(super) async fn get(&self, names: &ObjectNames) -> Result<Objects, FetchError> {
        let entries = self.entries(names);
        let mut objects = Objects::default();
        for (name, entry) in entries.config_maps {
            if let Some(object) = entry.get().await? {
                objects.config_maps.insert(name, object);
            }
        }
        for (name, entry) in entries.secrets {
            if let Some(object) = entry.get().await? {
                objects.secrets.insert(name, object);
            }
        }
        Ok(objects)
    }

    /// The certificates of trust bundles that a volume asks for, in the order of `wanted`, and holds the bundles; `None`
    /// where there is no such bundle, or it cannot be told and is optional.
    ///
    /// # Errors
    /// When the API server does not tell, such as one that does not serve trust bundles.
    pub(super) async fn trust_anchors(
        &self,
        wanted: &[ClusterTrustBundleProjection],
    ) -> Result<Vec<Option<String>>, FetchError> {
        let Some(needed) = wanted.iter().find(|wanted| wanted.optional != Some(true)).or(wanted.first())
        else {
            return Ok(Vec::new());
        };
        let held = {
            let mut entries = self.entries.lock();
            Arc::clone(entries.trust.get_or_insert_with(|| self.source.trust.hold(&self.changed)))
        };
        match held.get().await {
            Ok(bundles) => Ok(wanted.iter().map(|wanted| trust_anchors(&bundles, wanted)).collect()),
            Err(_) if needed.optional == Some(true) => Ok(vec![None; wanted.len()]),
            Err(why) => {
                let name = needed.name.as_ref().or(needed.signer_name.as_ref()).cloned().unwrap_or_default();
                Err(FetchError { kind: "clustertrustbundle", name, why })
            }
        }
    }

    /// Waits until one of the held objects has changed since it was asked for, or since the last such change.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The entries of these names. All are begun before one is waited for.
    fn entries(&self, names: &ObjectNames) -> Entries {
        let mut held = self.entries.lock();
        let (source, namespace, changed) = (&self.source, &self.namespace, &self.changed);
        let mut entries = Entries::default();
        for name in &names.config_maps {
            let entry = held.config_maps.entry(name.clone());
            let entry = entry.or_insert_with(|| source.config_maps.entry(namespace, name, changed));
            entries.config_maps.insert(name.clone(), Arc::clone(entry));
        }
        for name in &names.secrets {
            let entry = held.secrets.entry(name.clone());
            let entry = entry.or_insert_with(|| source.secrets.entry(namespace, name, changed));
            entries.secrets.insert(name.clone(), Arc::clone(entry));
        }
        entries
    }
}

#[cfg(test)]
mod tests;
