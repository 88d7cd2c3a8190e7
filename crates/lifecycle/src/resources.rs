//! What pods ask a node to promise them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::{Deserialize, Serialize};

use crate::{Wish, quantity};

/// Amounts of what a node shares out among pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// CPU, in thousandths of a core.
    pub cpu: u64,
    /// Memory, in bytes.
    pub memory: u64,
    /// Local disk, in bytes.
    pub ephemeral_storage: u64,
    /// What else is counted, by name: huge pages and extended resources such as `example.com/gpu`.
    #[serde(default)]
    pub scalar: BTreeMap<String, u64>,
}

/// A resource list of the API: amounts by the name of what they are of.
pub type Amounts = BTreeMap<String, Quantity>;

impl Resources {
    /// What a pod asks to be promised, reckoned as the scheduler does: the sum over its containers, at least what each
    /// init container needs beside the sidecars that run then, or the pod's own amount where it names one; and its
    /// overhead. An amount that cannot be parsed, which the API server does not let pass, counts as 0.
    ///
    /// <https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/#resource-sharing-within-containers>
    #[must_use]
    pub fn requested(pod: &Pod) -> Self {
        let spec = pod.spec.as_ref();
        let own = spec.and_then(|spec| spec.resources.as_ref()).and_then(requests);
        let overhead = Self::of(spec.and_then(|spec| spec.overhead.as_ref()));
        Self::of_containers(pod).overridden(own).plus(&overhead)
    }

    fn of_containers(pod: &Pod) -> Self {
        let of = |container: &Container| Self::of(container.resources.as_ref().and_then(requests));
        let apps = pod.containers().iter().fold(Self::default(), |sum, container| sum.plus(&of(container)));
        let (mut sidecars, mut most) = (Self::default(), Self::default());
        for init in pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten()) {
            if is_sidecar(init) {
                sidecars = sidecars.plus(&of(init));
                most = most.most(&sidecars);
            } else {
                most = most.most(&sidecars.plus(&of(init)));
            }
        }
        apps.plus(&sidecars).most(&most)
    }

    /// The amounts of a resource list such as `node.status.allocatable`. That of pods is no part of it.
    #[must_use]
    pub fn of(amounts: Option<&Amounts>) -> Self {
        let amount = |name: &str| amounts.and_then(|amounts| amounts.get(name));
        let whole = |amount: &Quantity| quantity::whole(amount).unwrap_or(0);
        let scalar = amounts.into_iter().flatten().filter(|(name, _)| is_scalar(name));
        Self {
            cpu: amount("cpu").and_then(|amount| quantity::thousandths(amount).ok()).unwrap_or(0),
            memory: amount("memory").map_or(0, whole),
            ephemeral_storage: amount("ephemeral-storage").map_or(0, whole),
            scalar: scalar.map(|(name, amount)| (name.clone(), whole(amount))).collect(),
        }
    }

    /// The sum, at most the largest number.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        self.combined(other, u64::saturating_add)
    }

    /// The larger amount of each.
    fn most(&self, other: &Self) -> Self {
        self.combined(other, u64::max)
    }

    fn combined(&self, other: &Self, combine: impl Fn(u64, u64) -> u64) -> Self {
        let mut scalar = self.scalar.clone();
        for (name, amount) in &other.scalar {
            let sum = scalar.entry(name.clone()).or_default();
            *sum = combine(*sum, *amount);
        }
        Self {
            cpu: combine(self.cpu, other.cpu),
            memory: combine(self.memory, other.memory),
            ephemeral_storage: combine(self.ephemeral_storage, other.ephemeral_storage),
            scalar,
        }
    }

    /// A pod may name CPU, memory and huge pages for itself as a whole.
    fn overridden(mut self, own: Option<&Amounts>) -> Self {
        let names = |name: &str| own.is_some_and(|amounts| amounts.contains_key(name));
        let amounts = Self::of(own);
        if names("cpu") {
            self.cpu = amounts.cpu;
        }
        if names("memory") {
            self.memory = amounts.memory;
        }
        self.scalar.extend(amounts.scalar.into_iter().filter(|(name, _)| name.starts_with(HUGE_PAGES)));
        self
    }

    /// One amount by the name that Kubernetes has for it; 0 when there is none.
    #[must_use]
    pub fn amount(&self, name: &str) -> u64 {
        match name {
            "cpu" => self.cpu,
            "memory" => self.memory,
            "ephemeral-storage" => self.ephemeral_storage,
            name => self.scalar.get(name).copied().unwrap_or(0),
        }
    }
}

const HUGE_PAGES: &str = "hugepages-";

fn is_scalar(name: &str) -> bool {
    is_extended(name) || name.starts_with(HUGE_PAGES)
}

/// Whether a resource is neither Kubernetes' own nor a quota, such as `example.com/gpu`.
#[must_use]
pub fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/") && !name.starts_with("requests.")
}

/// Whether an init container runs as long as the pod.
pub(crate) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

fn requests(resources: &ResourceRequirements) -> Option<&Amounts> {
    resources.requests.as_ref()
}

#[cfg(test)]
#[path = "resources_tests.rs"]
mod tests;
