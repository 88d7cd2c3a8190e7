//! What pods ask a node to promise them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::{Deserialize, Serialize};

use crate::{Wish, quantity};

/// Amounts of what a node shares out among pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// CPU, in thousandths of a core.
    pub cpu: u64,
    /// Memory, in bytes.
    pub memory: u64,
    /// Local disk, in bytes.
    pub ephemeral_storage: u64,
}

type Amounts = BTreeMap<String, Quantity>;

impl Resources {
    /// What a pod asks to be promised: the sum over its containers, or the pod's own amount where it names one, and
    /// its overhead. An amount that cannot be parsed, which the API server does not let pass, counts as 0.
    #[must_use]
    pub fn requested(pod: &Pod) -> Self {
        let containers = pod
            .containers()
            .iter()
            .map(|container| Self::of(container.resources.as_ref().and_then(requests)))
            .fold(Self::default(), Self::plus);
        let spec = pod.spec.as_ref();
        let own = spec.and_then(|spec| spec.resources.as_ref()).and_then(requests);
        let overhead = Self::of(spec.and_then(|spec| spec.overhead.as_ref()));
        containers.overridden(own).plus(overhead)
    }

    /// The amounts of a resource list such as `node.status.allocatable`.
    #[must_use]
    pub fn of(amounts: Option<&Amounts>) -> Self {
        let amount = |name: &str| amounts.and_then(|amounts| amounts.get(name));
        let bytes = |name: &str| amount(name).and_then(|amount| quantity::whole(amount).ok()).unwrap_or(0);
        Self {
            cpu: amount("cpu").and_then(|amount| quantity::thousandths(amount).ok()).unwrap_or(0),
            memory: bytes("memory"),
            ephemeral_storage: bytes("ephemeral-storage"),
        }
    }

    /// The sum, at most the largest number.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_add(other.cpu),
            memory: self.memory.saturating_add(other.memory),
            ephemeral_storage: self.ephemeral_storage.saturating_add(other.ephemeral_storage),
        }
    }

    fn overridden(self, own: Option<&Amounts>) -> Self {
        let names = |name: &str| own.is_some_and(|amounts| amounts.contains_key(name));
        let amounts = Self::of(own);
        Self {
            cpu: if names("cpu") { amounts.cpu } else { self.cpu },
            memory: if names("memory") { amounts.memory } else { self.memory },
            ephemeral_storage: self.ephemeral_storage,
        }
    }
}

fn requests(resources: &ResourceRequirements) -> Option<&Amounts> {
    resources.requests.as_ref()
}

#[cfg(test)]
#[path = "resources_tests.rs"]
mod tests;
