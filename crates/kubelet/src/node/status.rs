use std::collections::BTreeMap;
use std::net::IpAddr;

use coracle_lifecycle::{LocalImage, RuntimeInfo};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeDaemonEndpoints, NodeRuntimeHandler, NodeSpec,
    NodeStatus, NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use super::capacity::{Resources, Share};
use super::conditions::conditions;
use super::labels::node_labels;
use super::{Facts, NetworkReport, NodeSettings};

/// As many images as the kubelet lists: the scheduler reads them, and the object must stay small.
const MAX_IMAGES: usize = 50;

/// What pods may ask for that not every node does, sorted: the scheduler looks for it (KEP-5328).
const FEATURES: [&str; 1] = ["RestartAllContainersOnContainerExits"];

/// By this annotation the control plane attaches volumes, not the node.
const ATTACH: (&str, &str) = ("volumes.kubernetes.io/controller-managed-attach-detach", "true");

/// What is known of a node at one moment: all that its status is made from, beside its settings.
#[derive(Clone, Debug, Default)]
pub struct Observation {
    /// What is true of the machine.
    pub facts: Facts,
    /// The images on this machine.
    pub images: Vec<LocalImage>,
    /// Why the node takes no pods; `None` when it does.
    pub unready: Option<String>,
    /// The network of its pods.
    pub network: NetworkReport,
}

/// The whole Node object as it is first written.
#[must_use]
pub fn desired_node(settings: &NodeSettings, seen: &Observation, now: Timestamp) -> Node {
    Node {
        metadata: ObjectMeta {
            name: Some(settings.name.clone()),
            labels: Some(node_labels(&settings.name, &settings.runtime, &settings.labels)),
            annotations: Some(BTreeMap::from([(ATTACH.0.to_owned(), ATTACH.1.to_owned())])),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec {
            taints: Some(settings.taints.clone()).filter(|taints| !taints.is_empty()),
            ..NodeSpec::default()
        }),
        status: Some(desired_status(settings, seen, &NodeStatus::default(), now)),
    }
}

/// The status this node should have, when the API server has `previous`. Only the parts that are this node's own:
/// conditions and resources of others are not in it.
#[must_use]
pub fn desired_status(
    settings: &NodeSettings,
    seen: &Observation,
    previous: &NodeStatus,
    now: Timestamp,
) -> NodeStatus {
    let addresses_of_pods = seen.network.addresses.unwrap_or(u32::MAX);
    let share = Share {
        facts: &seen.facts,
        thresholds: &settings.thresholds,
        max_containers: settings.runtime.max_containers.min(addresses_of_pods),
        max_pods: settings.max_pods,
    };
    let known = previous.conditions.as_deref().unwrap_or_default();
    NodeStatus {
        addresses: Some(addresses(&settings.name, &settings.addresses)),
        capacity: Some(share.capacity()),
        allocatable: Some(with_extended(share.allocatable(), previous)),
        conditions: Some(conditions(seen, &settings.thresholds, known, now)),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: settings.port.into() }),
        }),
        node_info: Some(node_info(settings, &seen.facts)),
        images: Some(images(&seen.images)),
        runtime_handlers: Some(runtime_handlers(&settings.runtime)),
        declared_features: Some(FEATURES.map(ToOwned::to_owned).into()),
        ..NodeStatus::default()
    }
}

fn addresses(name: &str, own: &[IpAddr]) -> Vec<NodeAddress> {
    let address = |type_: &str, address: String| NodeAddress { type_: type_.to_owned(), address };
    own.iter()
        .map(|ip| address("InternalIP", ip.to_string()))
        .chain([address("Hostname", name.to_owned())])
        .collect()
}

/// Resources that someone else put on the Node, such as `example.com/dongle`, may be used whole.
fn with_extended(mut allocatable: Resources, previous: &NodeStatus) -> Resources {
    for (name, quantity) in previous.capacity.iter().flatten() {
        let is_extended = name.contains('/') && !name.starts_with("kubernetes.io/");
        if is_extended {
            allocatable.insert(name.clone(), quantity.clone());
        }
    }
    allocatable
}

fn node_info(settings: &NodeSettings, facts: &Facts) -> NodeSystemInfo {
    let runtime = &settings.runtime;
    NodeSystemInfo {
        architecture: runtime.architecture.clone(),
        boot_id: facts.boot_id.clone(),
        container_runtime_version: format!("{}://{}", runtime.name, runtime.version),
        kernel_version: facts.kernel.clone(),
        kubelet_version: settings.kubelet_version.clone(),
        machine_id: facts.machine_id.clone(),
        operating_system: runtime.operating_system.clone(),
        os_image: facts.os_image.clone(),
        system_uuid: facts.system_uuid.clone(),
        ..NodeSystemInfo::default()
    }
}

/// The largest first; each by its digest, then by the name it was pulled by.
fn images(local: &[LocalImage]) -> Vec<ContainerImage> {
    let mut by_size: Vec<_> = local.iter().collect();
    by_size.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.repo_digest.cmp(&b.repo_digest)));
    by_size.into_iter().take(MAX_IMAGES).map(container_image).collect()
}

fn container_image(image: &LocalImage) -> ContainerImage {
    let mut names = vec![image.repo_digest.clone(), image.reference.clone()];
    names.dedup();
    ContainerImage { names: Some(names), size_bytes: Some(i64::try_from(image.size).unwrap_or(i64::MAX)) }
}

fn runtime_handlers(runtime: &RuntimeInfo) -> Vec<NodeRuntimeHandler> {
    let named =
        |name: &str| NodeRuntimeHandler { name: Some(name.to_owned()), ..NodeRuntimeHandler::default() };
    std::iter::once("").chain(runtime.handlers.iter().map(String::as_str)).map(named).collect()
}

/// Whether writing `desired` over `current` would change anything but the times of heartbeats.
#[must_use]
pub fn differs(current: &NodeStatus, desired: &NodeStatus) -> bool {
    let (Ok(mut current), Ok(mut desired)) = (serde_json::to_value(current), serde_json::to_value(desired))
    else {
        return true;
    };
    let wanted = by_type(&mut desired);
    let known = by_type(&mut current);
    !covers(&known, &wanted) || !covers(&current, &desired)
}

/// Takes the conditions out of a status, by type and without their heartbeats.
fn by_type(status: &mut Value) -> Value {
    let Some(Value::Array(conditions)) = status.get_mut("conditions").map(Value::take) else {
        return json!({});
    };
    let keyed = conditions.into_iter().filter_map(|mut condition| {
        condition.as_object_mut()?.remove("lastHeartbeatTime");
        Some((condition["type"].as_str()?.to_owned(), condition))
    });
    Value::Object(keyed.collect())
}

/// Whether `current` has all that is in `desired`: more in an object is somebody else's, and an empty list is none.
fn covers(current: &Value, desired: &Value) -> bool {
    match (current, desired) {
        (_, Value::Null) => true,
        (Value::Null, Value::Array(wanted)) => wanted.is_empty(),
        (Value::Object(known), Value::Object(wanted)) => {
            wanted.iter().all(|(key, value)| covers(known.get(key).unwrap_or(&Value::Null), value))
        }
        (Value::Array(known), Value::Array(wanted)) => {
            known.len() == wanted.len() && known.iter().zip(wanted).all(|(a, b)| covers(a, b))
        }
        _ => current == desired,
    }
}

/// The strategic merge patch that makes a Node's status `desired`, and leaves what others wrote there.
#[must_use]
pub fn status_patch(desired: &NodeStatus) -> Value {
    let mut status = json!(desired);
    // Addresses merge by type, which two addresses of one type would not survive.
    if let Some(Value::Array(addresses)) = status.get_mut("addresses") {
        addresses.push(json!({ "$patch": "replace" }));
    }
    json!({ "status": status })
}

/// The merge patch that gives an existing Node the labels and annotation it should have; `None` when it has them.
#[must_use]
pub fn metadata_patch(settings: &NodeSettings, current: &ObjectMeta) -> Option<Value> {
    let labels = node_labels(&settings.name, &settings.runtime, &settings.labels);
    let annotations = BTreeMap::from([(ATTACH.0.to_owned(), ATTACH.1.to_owned())]);
    let wanted = json!({ "labels": labels, "annotations": annotations });
    (!covers(&json!(current), &wanted)).then(|| json!({ "metadata": wanted }))
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
