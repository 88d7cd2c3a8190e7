use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};

use crate::preemption::{Shortage, victims};
use crate::resident::{Resident, is_static};
use crate::resources::{Resources, is_extended};
use crate::{AddressPool, Admission, PodUid, affinity, apparmor, qos, quantity, sysctls};

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
    /// The addresses it gives them.
    pub addresses: AddressPool,
    /// Of which resources it is short: the types of its conditions, such as `MemoryPressure`.
    pub pressures: Vec<String>,
    /// The machine is about to go down: pods that come now fail. Not for the end of the agent alone: what comes then
    /// stays pending until the agent is back.
    pub shutdown: bool,
    /// The pods that were admitted and have not ended.
    pub residents: HashMap<PodUid, Resident>,
}

/// Why a pod is refused that asks for a node of another kind.
const NODE_AFFINITY: &str = "NodeAffinity";

/// What the node decides of a pod that has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is taken, or never will be.
    Judged(Admission),
    /// It is taken when these have ended: their place is its.
    Preempts(Vec<PodUid>),
}

impl Verdict {
    /// Whether the pod is refused for labels of the node: these may be older than the ones that the scheduler saw.
    #[must_use]
    pub fn is_of_labels(&self) -> bool {
        matches!(self, Self::Judged(Admission::Refused { reason, .. }) if reason == NODE_AFFINITY)
    }
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
        let pods = pods.and_then(|pods| quantity::whole(pods).ok()).unwrap_or(0);
        self.capacity = pods.min(self.addresses.capacity().unwrap_or(u64::MAX));
        let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let pressing = conditions.filter(|it| it.status == "True" && it.type_.ends_with("Pressure"));
        self.pressures = pressing.map(|condition| condition.type_.clone()).collect();
    }

    fn used(&self) -> Resources {
        let promised = self.residents.values().map(|resident| &resident.promised);
        promised.fold(Resources::default(), |sum, promised| sum.plus(promised))
    }
}

/// Judges one pod that the node has not judged yet. The caller asks for the oldest first, and adds what is taken to
/// [`NodeView::residents`] before it asks again. Checks, their order and their words are the kubelet's.
#[must_use]
pub fn govern(view: &NodeView, pod: &Pod) -> Verdict {
    let early = pressed(view, pod).or_else(|| sysctls::forbidden(pod)).or_else(|| wrong_system(view, pod));
    if let Some(refusal) = early {
        return refused(refusal);
    }
    let misfit = Misfit::of(view, pod);
    match misfit.recovered(view, pod) {
        Ok(victims) => shutting_down(view)
            .or_else(|| apparmor::unenforceable(pod))
            .map_or_else(|| taken(victims), refused),
        Err(refusal) => refused(refusal),
    }
}

/// A reason and what is missing.
pub(crate) type Refusal = (String, String);

fn refusal(reason: &str, message: impl Into<String>) -> Refusal {
    (reason.to_owned(), message.into())
}

fn refused((reason, message): Refusal) -> Verdict {
    Verdict::Judged(Admission::Refused { reason, message })
}

fn taken(victims: Vec<PodUid>) -> Verdict {
    if victims.is_empty() { Verdict::Judged(Admission::Admitted) } else { Verdict::Preempts(victims) }
}

/// A node that is short of memory takes what has asked for some, or says that it can bear it; one that is short of
/// anything else takes critical pods only.
///
/// <https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/#node-conditions>
fn pressed(view: &NodeView, pod: &Pod) -> Option<Refusal> {
    if view.pressures.is_empty() || Resident::of(pod).is_critical {
        return None;
    }
    let taint = Taint {
        key: "node.kubernetes.io/memory-pressure".to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Taint::default()
    };
    let bears = || qos::class(pod) != "BestEffort" || tolerations(pod).iter().any(|it| tolerates(it, &taint));
    if view.pressures == ["MemoryPressure"] && bears() {
        return None;
    }
    Some(refusal("Evicted", format!("The node had condition: [{}]. ", view.pressures.join(" "))))
}

fn shutting_down(view: &NodeView) -> Option<Refusal> {
    view.shutdown.then(|| refusal("NodeShutdown", "Pod was rejected as the node is shutting down."))
}

const OS_LABEL: &str = "kubernetes.io/os";

/// The API has no word for this node's system: `linux` is what every plain pod says.
fn wrong_system(view: &NodeView, pod: &Pod) -> Option<Refusal> {
    let label = pod.metadata.labels.as_ref().and_then(|labels| labels.get(OS_LABEL));
    if label.is_some_and(|label| label != "linux" && view.labels.get(OS_LABEL) != Some(label)) {
        let message = "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label";
        return Some(refusal("PodOSSelectorNodeLabelDoesNotMatch", message));
    }
    let system = pod.spec.as_ref()?.os.as_ref()?.name.as_str();
    let message = "Failed to admit pod as the OS field doesn't match node OS";
    (system != "linux").then(|| refusal("PodOSNotSupported", message))
}

/// Why a pod does not fit onto the node: room that others could make, and what nothing can mend.
struct Misfit {
    room: Vec<(Shortage, Refusal)>,
    rest: Option<Refusal>,
}

impl Misfit {
    fn of(view: &NodeView, pod: &Pod) -> Self {
        let rest =
            wrong_place(view, pod).or_else(|| taken_ports(view, pod)).or_else(|| untolerated(view, pod));
        Self { room: no_room(view, pod), rest }
    }

    /// Who has to go so that the pod fits; only a critical pod sends others away.
    fn recovered(self, view: &NodeView, pod: &Pod) -> Result<Vec<PodUid>, Refusal> {
        let resident = Resident::of(pod);
        if !resident.is_critical {
            let first = self.room.into_iter().map(|(_, refusal)| refusal).chain(self.rest).next();
            return first.map_or(Ok(Vec::new()), Err);
        }
        if let Some(rest) = self.rest {
            return Err(rest);
        }
        let shortages: Vec<Shortage> = self.room.into_iter().map(|(shortage, _)| shortage).collect();
        victims(&resident, &view.residents, &shortages).map_err(|missing| irrecoverable(&missing))
    }
}

fn irrecoverable(missing: &[Shortage]) -> Refusal {
    let missing: Vec<String> =
        missing.iter().map(|it| format!("(res: {}, q: {}), ", it.resource, it.missing)).collect();
    let message = format!(
        "Unexpected error while attempting to recover from admission failure: preemption: error finding a set of pods \
         to preempt: no set of running pods found to reclaim resources: [{}]",
        missing.concat()
    );
    refusal("UnexpectedAdmissionError", message)
}

fn wrong_place(view: &NodeView, pod: &Pod) -> Option<Refusal> {
    (!affinity::matches(pod, &view.name, &view.labels)).then(|| {
        let message = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
        refusal(NODE_AFFINITY, message)
    })
}

/// Where pods have the node's address, two cannot listen on one port either.
fn taken_ports(view: &NodeView, pod: &Pod) -> Option<Refusal> {
    let is_shared = view.addresses.capacity().is_none();
    let wanted = Resident::of(pod);
    let all = |resident: &Resident| {
        let listens = resident.listens.iter().filter(|_| is_shared);
        resident.ports.iter().chain(listens).cloned().collect::<Vec<_>>()
    };
    let wanted = all(&wanted);
    let mut taken = view.residents.values().flat_map(all);
    taken.any(|port| wanted.iter().any(|wanted| wanted.conflicts(&port))).then(|| {
        let message =
            "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
        refusal("NodePorts", message)
    })
}

fn untolerated(view: &NodeView, pod: &Pod) -> Option<Refusal> {
    let is_tolerated = |taint: &Taint| tolerations(pod).iter().any(|toleration| tolerates(toleration, taint));
    let untolerated = view.taints.iter().any(|taint| taint.effect == "NoExecute" && !is_tolerated(taint));
    (untolerated && !is_static(pod)).then(|| {
        let message = "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate";
        refusal("TaintToleration", message)
    })
}

fn tolerations(pod: &Pod) -> &[Toleration] {
    pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default()
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

/// What there is too little of, in the scheduler's order. An extended resource that the node does not know is none of
/// its business.
fn no_room(view: &NodeView, pod: &Pod) -> Vec<(Shortage, Refusal)> {
    let (wanted, used, all) = (Resources::requested(pod), view.used(), &view.allocatable);
    let pods = u64::try_from(view.residents.len()).unwrap_or(u64::MAX);
    let is_known = |name: &&String| all.scalar.contains_key(*name) || !is_extended(name);
    let names = ["cpu", "memory", "ephemeral-storage"].into_iter();
    let names = names.chain(wanted.scalar.keys().filter(is_known).map(String::as_str));
    let missing =
        names.filter_map(|name| short(name, wanted.amount(name), used.amount(name), all.amount(name)));
    short("pods", 1, pods, view.capacity).into_iter().chain(missing).collect()
}

fn short(resource: &str, wanted: u64, used: u64, capacity: u64) -> Option<(Shortage, Refusal)> {
    let missing = used.saturating_add(wanted).saturating_sub(capacity);
    (wanted > 0 && missing > 0).then(|| {
        let message = format!(
            "Node didn't have enough resource: {resource}, requested: {wanted}, used: {used}, capacity: {capacity}"
        );
        let shortage = Shortage { resource: resource.to_owned(), missing };
        (shortage, refusal(&format!("OutOf{resource}"), message))
    })
}

#[cfg(test)]
#[path = "govern_tests.rs"]
mod tests;
