use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};

use crate::resources::Resources;
use crate::{Admission, PodUid, affinity, quantity};

/// What the node knows when it judges pods: one value per node.
#[derive(Clone, Debug, Default)]
pub struct NodeView {
    /// The node's name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its taints.
    pub taints: Vec<Taint>,
    /// What it can promise in all.
    pub allocatable: Resources,
    /// How many pods it can hold.
    pub capacity: u64,
    /// The machine is about to go down: pods that come now fail. Not for the end of the agent alone: what comes then
    /// stays pending until the agent is back.
    pub shutdown: bool,
    /// What the pods that were admitted and have not ended were promised.
    pub promised: HashMap<PodUid, Resources>,
}

impl NodeView {
    /// Takes over what the Node object says.
    pub fn learn(&mut self, node: &Node) {
        self.name = node.metadata.name.clone().unwrap_or_default();
        self.labels = node.metadata.labels.clone().unwrap_or_default();
        self.taints = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
        let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
        self.allocatable = Resources::of(allocatable);
        let pods = allocatable.and_then(|amounts| amounts.get("pods"));
        self.capacity = pods.and_then(|pods| quantity::whole(pods).ok()).unwrap_or(0);
    }

    fn used(&self) -> Resources {
        self.promised.values().copied().fold(Resources::default(), Resources::plus)
    }
}

/// Judges one pod that the node has not judged yet. The caller asks for the oldest first, and adds what was admitted to
/// [`NodeView::promised`] before it asks again. Checks, their order and their words are the kubelet's.
#[must_use]
pub fn govern(view: &NodeView, pod: &Pod) -> Admission {
    let refusal = shutting_down(view)
        .or_else(|| wrong_system(pod))
        .or_else(|| no_room(view, pod))
        .or_else(|| wrong_place(view, pod))
        .or_else(|| untolerated(view, pod));
    refusal.map_or(Admission::Admitted, |(reason, message)| Admission::Refused {
        reason: reason.to_owned(),
        message,
    })
}

type Refusal = (&'static str, String);

fn shutting_down(view: &NodeView) -> Option<Refusal> {
    view.shutdown.then(|| ("NodeShutdown", "Pod was rejected as the node is shutting down.".to_owned()))
}

/// The API has no word for this node's system: `linux` is what every plain pod says.
fn wrong_system(pod: &Pod) -> Option<Refusal> {
    let system = pod.spec.as_ref()?.os.as_ref()?.name.as_str();
    (system != "linux").then(|| {
        ("PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS".to_owned())
    })
}

fn wrong_place(view: &NodeView, pod: &Pod) -> Option<Refusal> {
    (!affinity::matches(pod, &view.name, &view.labels)).then(|| {
        let message = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
        ("NodeAffinity", message.to_owned())
    })
}

fn untolerated(view: &NodeView, pod: &Pod) -> Option<Refusal> {
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    let is_tolerated = |taint: &Taint| tolerations.iter().any(|toleration| tolerates(toleration, taint));
    let untolerated = view.taints.iter().any(|taint| taint.effect == "NoExecute" && !is_tolerated(taint));
    untolerated.then(|| {
        let message = "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate";
        ("TaintToleration", message.to_owned())
    })
}

/// An absent or empty effect or key fits all.
fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let fits = |wanted: Option<&str>, actual: &str| {
        wanted.is_none_or(|wanted| wanted.is_empty() || wanted == actual)
    };
    let value = |value: &Option<String>| value.clone().unwrap_or_default();
    let fits_value = match toleration.operator.as_deref() {
        Some("Exists") => true,
        None | Some("" | "Equal") => value(&toleration.value) == value(&taint.value),
        Some(_) => false,
    };
    fits(toleration.effect.as_deref(), &taint.effect)
        && fits(toleration.key.as_deref(), &taint.key)
        && fits_value
}

fn no_room(view: &NodeView, pod: &Pod) -> Option<Refusal> {
    let (wanted, used, all) = (Resources::requested(pod), view.used(), view.allocatable);
    let pods = u64::try_from(view.promised.len()).unwrap_or(u64::MAX);
    short("pods", "OutOfpods", 1, pods, view.capacity)
        .or_else(|| short("cpu", "OutOfcpu", wanted.cpu, used.cpu, all.cpu))
        .or_else(|| short("memory", "OutOfmemory", wanted.memory, used.memory, all.memory))
        .or_else(|| {
            let (wanted, used, all) =
                (wanted.ephemeral_storage, used.ephemeral_storage, all.ephemeral_storage);
            short("ephemeral-storage", "OutOfephemeral-storage", wanted, used, all)
        })
}

fn short(resource: &str, reason: &'static str, wanted: u64, used: u64, capacity: u64) -> Option<Refusal> {
    (wanted > 0 && used.saturating_add(wanted) > capacity).then(|| {
        let message = format!(
            "Node didn't have enough resource: {resource}, requested: {wanted}, used: {used}, capacity: {capacity}"
        );
        (reason, message)
    })
}

#[cfg(test)]
#[path = "govern_tests.rs"]
mod tests;
