use k8s_openapi::api::core::v1::{ContainerPort, Pod};

use crate::resources::{Resources, is_sidecar};
use crate::{Wish, qos};

/// The lowest priority of a pod that a node needs to work: `system-cluster-critical`.
const CRITICAL: i32 = 2_000_000_000;

/// What a node must know of a pod it has taken, to judge those that come after it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resident {
    /// What it was promised.
    pub promised: Resources,
    /// The ports of the node that lead to it.
    pub(crate) ports: Vec<HostPort>,
    /// The ports it says that it listens on, at an address that may be the node's.
    pub(crate) listens: Vec<HostPort>,
    /// Its quality of service class.
    pub(crate) class: String,
    /// Its priority, when it has one.
    pub(crate) priority: Option<i32>,
    /// Whether the cluster needs it to work.
    pub(crate) is_critical: bool,
}

impl Resident {
    /// What of `pod` concerns other pods.
    #[must_use]
    pub fn of(pod: &Pod) -> Self {
        Self {
            promised: Resources::requested(pod),
            ports: ports(pod, host_port),
            listens: ports(pod, |declared| Some(container_port(declared))),
            class: qos::class(pod),
            priority: pod.spec.as_ref().and_then(|spec| spec.priority),
            is_critical: is_critical(pod),
        }
    }

    /// How much of a resource comes free when it ends.
    pub(crate) fn holds(&self, resource: &str) -> u64 {
        if resource == "pods" { 1 } else { self.promised.amount(resource) }
    }
}

/// Whether the pod comes from this node's own manifests, not from the API server.
pub(crate) fn is_static(pod: &Pod) -> bool {
    annotation(pod, "kubernetes.io/config.source").is_some_and(|source| source != "api")
}

/// Whether a pod is one of those that a cluster needs to work: they may take the place of others.
///
/// <https://kubernetes.io/docs/tasks/administer-cluster/guaranteed-scheduling-critical-addon-pods/>
#[must_use]
pub fn is_critical(pod: &Pod) -> bool {
    let priority = pod.spec.as_ref().and_then(|spec| spec.priority);
    is_static(pod)
        || annotation(pod, "kubernetes.io/config.mirror").is_some()
        || priority.is_some_and(|priority| priority >= CRITICAL)
}

fn annotation<'a>(pod: &'a Pod, name: &str) -> Option<&'a String> {
    pod.metadata.annotations.as_ref()?.get(name)
}

/// A port of the node that a pod wants for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostPort {
    /// `None` for all addresses of the node.
    address: Option<String>,
    protocol: String,
    port: i32,
}

impl HostPort {
    /// Whether only one of the two can be had.
    pub(crate) fn conflicts(&self, other: &Self) -> bool {
        let meet = self.address.is_none() || other.address.is_none() || self.address == other.address;
        meet && self.port == other.port && self.protocol == other.protocol
    }
}

/// The ports that a pod has as long as it runs.
fn ports(pod: &Pod, port: impl Fn(&ContainerPort) -> Option<HostPort>) -> Vec<HostPort> {
    let inits = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    let lasting = inits.filter(|init| is_sidecar(init)).chain(pod.containers());
    lasting.flat_map(|container| container.ports.iter().flatten()).filter_map(port).collect()
}

fn host_port(declared: &ContainerPort) -> Option<HostPort> {
    let address = declared.host_ip.clone().filter(|address| !matches!(address.as_str(), "" | "0.0.0.0"));
    let port = declared.host_port.filter(|port| *port > 0)?;
    Some(HostPort { address, protocol: protocol(declared), port })
}

fn container_port(declared: &ContainerPort) -> HostPort {
    HostPort { address: None, protocol: protocol(declared), port: declared.container_port }
}

fn protocol(declared: &ContainerPort) -> String {
    declared.protocol.clone().unwrap_or_else(|| "TCP".to_owned())
}
