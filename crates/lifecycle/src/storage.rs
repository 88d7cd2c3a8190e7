//! What pods may put on the node's disk and in its memory, and what becomes of one that puts more.
//!
//! <https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/#local-ephemeral-storage>

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, Volume};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::resources::is_sidecar;
use crate::{Amounts, Eviction, Wish, quantity};

/// What a pod is given to end: nothing it does helps any more.
const GRACE: Duration = Duration::from_secs(1);
const EPHEMERAL: &str = "ephemeral-storage";

/// What of a pod takes up the node's disk and memory, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StorageUse {
    /// Volumes by their names.
    pub volumes: BTreeMap<String, u64>,
    /// What containers have written to their root file systems and logs, by their names.
    pub containers: BTreeMap<String, u64>,
}

/// The volumes whose use has a bound: all that lie on the disk where a container's disk has one, else those with a bound
/// of their own.
#[must_use]
pub fn measured_volumes(pod: &Pod) -> Vec<&Volume> {
    let all = measures_containers(pod);
    let is_measured = |volume: &&Volume| match &volume.empty_dir {
        Some(source) => all || source.size_limit.is_some() || is_in_memory(volume),
        None => all && is_local(volume),
    };
    volumes(pod).filter(is_measured).collect()
}

/// Whether what containers write has a bound.
#[must_use]
pub fn measures_containers(pod: &Pod) -> bool {
    pod.containers().iter().any(|container| limit(container, EPHEMERAL).is_some())
}

/// How many bytes a volume in memory may hold: no more than its `sizeLimit`, than the containers of its pod may have
/// together, and than the node can promise in all. `None` when none of these is known.
#[must_use]
pub fn memory_bound(pod: &Pod, volume: &Volume, allocatable: Option<&Amounts>) -> Option<u64> {
    let bytes = |amount: &Quantity| quantity::whole(amount).ok().filter(|bytes| *bytes > 0);
    let own = volume.empty_dir.as_ref().and_then(|source| source.size_limit.as_ref()).and_then(bytes);
    let node = allocatable.and_then(|amounts| amounts.get("memory")).and_then(bytes);
    [own, pod_memory(pod), node].into_iter().flatten().min()
}

/// Whether an empty directory is to lie in memory.
#[must_use]
pub fn is_in_memory(volume: &Volume) -> bool {
    volume.empty_dir.as_ref().and_then(|source| source.medium.as_deref()) == Some("Memory")
}

/// The end of a pod that uses more than it may, in the kubelet's order and words.
#[must_use]
pub fn overuse(pod: &Pod, used: &StorageUse, allocatable: Option<&Amounts>) -> Option<Eviction> {
    let message = of_volumes(pod, used, allocatable)
        .or_else(|| of_pod(pod, used))
        .or_else(|| of_containers(pod, used))?;
    Some(Eviction::by_usage(message, Some(GRACE)))
}

fn of_volumes(pod: &Pod, used: &StorageUse, allocatable: Option<&Amounts>) -> Option<String> {
    volumes(pod).find_map(|volume| {
        let (bytes, text) = volume_limit(pod, volume, allocatable)?;
        let name = &volume.name;
        let is_exceeded = used.volumes.get(name).is_some_and(|used| *used > bytes);
        is_exceeded.then(|| format!("Usage of EmptyDir volume {name:?} exceeds the limit {text:?}. "))
    })
}

fn volume_limit(pod: &Pod, volume: &Volume, allocatable: Option<&Amounts>) -> Option<(u64, String)> {
    let own = volume.empty_dir.as_ref()?.size_limit.as_ref();
    let own = own.and_then(|text| Some((quantity::whole(text).ok().filter(|bytes| *bytes > 0)?, text)));
    let bound = memory_bound(pod, volume, allocatable).filter(|_| is_in_memory(volume));
    match (own, bound) {
        (Some((bytes, text)), bound) if bound.is_none_or(|bound| bytes <= bound) => {
            Some((bytes, text.0.clone()))
        }
        (_, Some(bound)) => Some((bound, quantity::from_bytes(bound, true).0)),
        _ => None,
    }
}

fn of_pod(pod: &Pod, used: &StorageUse) -> Option<String> {
    let (bytes, text) = pod_limit(pod)?;
    let local = volumes(pod).filter(|volume| is_local(volume));
    let of_volumes = local.filter_map(|volume| used.volumes.get(&volume.name));
    let sum = of_volumes.chain(used.containers.values()).fold(0_u64, |sum, used| sum.saturating_add(*used));
    (sum > bytes).then(|| {
        format!("Pod ephemeral local storage usage exceeds the total limit of containers {}. ", text.0)
    })
}

fn of_containers(pod: &Pod, used: &StorageUse) -> Option<String> {
    pod.containers().iter().find_map(|container| {
        let (name, text) = (&container.name, limit(container, EPHEMERAL)?);
        let bytes = quantity::whole(text).ok()?;
        let is_exceeded = used.containers.get(name).is_some_and(|used| *used > bytes);
        let text = &text.0;
        is_exceeded.then(|| format!("Container {name} exceeded its local ephemeral storage limit {text:?}. "))
    })
}

/// The limits of all containers that have one, as far as they run together.
fn pod_limit(pod: &Pod) -> Option<(u64, Quantity)> {
    let bytes = |container: &Container| {
        limit(container, EPHEMERAL).and_then(|text| quantity::whole(text).ok()).unwrap_or(0)
    };
    let first = pod.containers().iter().chain(initial(pod)).find_map(|container| limit(container, EPHEMERAL));
    let is_binary = first?.0.ends_with('i');
    let apps = pod.containers().iter().fold(0_u64, |sum, container| sum.saturating_add(bytes(container)));
    let (mut sidecars, mut most) = (0_u64, 0);
    for container in initial(pod) {
        let needed = sidecars.saturating_add(bytes(container));
        sidecars = if is_sidecar(container) { needed } else { sidecars };
        most = needed.max(most);
    }
    let sum = apps.saturating_add(sidecars).max(most);
    Some((sum, quantity::from_bytes(sum, is_binary)))
}

/// What the containers of a pod may have together: `None` where one of them may have any amount.
fn pod_memory(pod: &Pod) -> Option<u64> {
    let bytes = |text: &Quantity| quantity::whole(text).ok().filter(|bytes| *bytes > 0);
    let own = pod.spec.as_ref()?.resources.as_ref().and_then(|resources| resources.limits.as_ref());
    if let Some(own) = own.and_then(|amounts| amounts.get("memory")).and_then(bytes) {
        return Some(own);
    }
    let of = |container: &Container| limit(container, "memory").and_then(bytes);
    let mut sum = 0_u64;
    for container in pod.containers().iter().chain(initial(pod).filter(|container| is_sidecar(container))) {
        sum = sum.saturating_add(of(container)?);
    }
    let first = initial(pod).filter(|container| !is_sidecar(container));
    first.map(of).try_fold(sum, |most, bytes| Some(most.max(bytes?)))
}

fn volumes(pod: &Pod) -> impl Iterator<Item = &Volume> {
    pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten())
}

fn initial(pod: &Pod) -> impl Iterator<Item = &Container> {
    pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten())
}

/// Whether a volume takes up the node's disk.
fn is_local(volume: &Volume) -> bool {
    let is_content = volume.config_map.is_some() || volume.downward_api.is_some();
    is_content || volume.empty_dir.is_some() && !is_in_memory(volume)
}

fn limit<'c>(container: &'c Container, name: &str) -> Option<&'c Quantity> {
    let amount = container.resources.as_ref()?.limits.as_ref()?.get(name);
    amount.filter(|amount| quantity::whole(amount).is_ok_and(|bytes| bytes > 0))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const MEBIBYTE: u64 = 1 << 20;

    fn pod(spec: &Value) -> Pod {
        serde_json::from_value(json!({ "spec": spec })).unwrap()
    }

    fn container(name: &str, limit: &str) -> Value {
        json!({ "name": name, "resources": { "limits": { EPHEMERAL: limit } } })
    }

    fn used(volumes: &[(&str, u64)], containers: &[(&str, u64)]) -> StorageUse {
        let of =
            |pairs: &[(&str, u64)]| pairs.iter().map(|(name, used)| ((*name).to_owned(), *used)).collect();
        StorageUse { volumes: of(volumes), containers: of(containers) }
    }

    fn said(pod: &Pod, used: &StorageUse) -> Option<String> {
        overuse(pod, used, None).map(|eviction| eviction.message)
    }

    #[test]
    fn a_volume_may_hold_its_limit_and_no_more() {
        let volumes =
            json!([{ "name": "v", "emptyDir": { "sizeLimit": "1Mi" } }, { "name": "w", "emptyDir": {} }]);
        let pod = pod(&json!({ "containers": [], "volumes": volumes }));
        assert_eq!(said(&pod, &used(&[("v", MEBIBYTE), ("w", u64::MAX)], &[])), None);
        let expected = "Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". ";
        assert_eq!(said(&pod, &used(&[("v", MEBIBYTE + 1)], &[])).as_deref(), Some(expected));
        assert_eq!(measured_volumes(&pod).len(), 1);
        assert!(!measures_containers(&pod));
    }

    #[test]
    fn a_container_may_write_its_limit_and_a_pod_those_of_all() {
        let containers = json!([container("a", "1Mi"), container("b", "2Mi"), { "name": "c" }]);
        let volumes = json!([
            { "name": "v", "emptyDir": {} }, { "name": "m", "emptyDir": { "medium": "Memory" } },
            { "name": "s", "secret": {} }, { "name": "k", "configMap": {} },
        ]);
        let pod = pod(&json!({ "containers": containers, "volumes": volumes }));
        let names: Vec<_> = measured_volumes(&pod).into_iter().map(|volume| volume.name.as_str()).collect();
        assert_eq!((names, measures_containers(&pod)), (vec!["v", "m", "k"], true));
        assert_eq!(said(&pod, &used(&[("v", MEBIBYTE), ("m", u64::MAX)], &[("a", MEBIBYTE)])), None);
        let expected = "Pod ephemeral local storage usage exceeds the total limit of containers 3Mi. ";
        let of_pod = used(&[("v", MEBIBYTE)], &[("a", MEBIBYTE), ("c", MEBIBYTE + 1)]);
        assert_eq!(said(&pod, &of_pod).as_deref(), Some(expected));
        let expected = "Container a exceeded its local ephemeral storage limit \"1Mi\". ";
        assert_eq!(said(&pod, &used(&[], &[("a", MEBIBYTE + 1)])).as_deref(), Some(expected));
    }

    #[test]
    fn what_runs_together_is_added_up_in_the_notation_of_the_first() {
        let sidecar =
            json!({ "name": "s", "restartPolicy": "Always", "resources": { "limits": { EPHEMERAL: "1k" } } });
        let check = |initial: &Value, containers: &Value, expected: Option<(u64, &str)>| {
            let found = pod_limit(&pod(&json!({ "initContainers": initial, "containers": containers })));
            assert_eq!(found.as_ref().map(|(bytes, text)| (*bytes, text.0.as_str())), expected);
        };
        check(&json!([]), &json!([{ "name": "a" }]), None);
        check(&json!([]), &json!([container("a", "1M"), container("b", "500k")]), Some((1_500_000, "1500k")));
        check(&json!([sidecar]), &json!([container("a", "1k")]), Some((2_000, "2k")));
        check(&json!([container("i", "5Ki")]), &json!([container("a", "1Ki")]), Some((5 << 10, "5Ki")));
    }

    #[test]
    fn memory_is_bounded_by_the_volume_the_pod_and_the_node() {
        let bound = |limit: Option<&str>, containers: &Value, node: Option<&str>| {
            let mut volume = json!({ "name": "v", "emptyDir": { "medium": "Memory" } });
            if let Some(limit) = limit {
                volume["emptyDir"]["sizeLimit"] = limit.into();
            }
            let pod = pod(&json!({ "containers": containers, "volumes": [volume] }));
            let node: Option<Amounts> =
                node.map(|node| [("memory".to_owned(), Quantity(node.to_owned()))].into());
            let volume = pod.spec.as_ref().unwrap().volumes.as_ref().unwrap()[0].clone();
            memory_bound(&pod, &volume, node.as_ref())
        };
        let may = |limit: &str| json!({ "name": limit, "resources": { "limits": { "memory": limit } } });
        assert_eq!(bound(None, &json!([{ "name": "a" }]), None), None);
        assert_eq!(bound(None, &json!([{ "name": "a" }]), Some("4Gi")), Some(4 << 30));
        assert_eq!(bound(None, &json!([may("1Mi"), may("2Mi")]), Some("4Gi")), Some(3 << 20));
        assert_eq!(bound(None, &json!([may("1Mi"), { "name": "a" }]), Some("4Gi")), Some(4 << 30));
        assert_eq!(bound(Some("2Mi"), &json!([may("8Mi")]), Some("4Gi")), Some(2 << 20));
    }

    #[test]
    fn a_volume_in_memory_has_a_limit_of_its_own_or_the_pods() {
        let volumes = json!([{ "name": "v", "emptyDir": { "medium": "Memory" } }]);
        let containers = json!([{ "name": "a", "resources": { "limits": { "memory": "1536Ki" } } }]);
        let pod = pod(&json!({ "containers": containers, "volumes": volumes }));
        let expected = "Usage of EmptyDir volume \"v\" exceeds the limit \"1536Ki\". ";
        assert_eq!(said(&pod, &used(&[("v", 2 * MEBIBYTE)], &[])).as_deref(), Some(expected));
    }
}
