use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, Pod};

/// Whether a pod's node selector and required node affinity allow this node.
///
/// <https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/>
pub(crate) fn matches(pod: &Pod, name: &str, labels: &BTreeMap<String, String>) -> bool {
    let Some(spec) = &pod.spec else { return true };
    let selected = spec.node_selector.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    let required = spec
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.as_ref())
        .and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    selected
        && required.is_none_or(|selector| {
            selector.node_selector_terms.iter().any(|term| term_matches(term, name, labels))
        })
}

/// A term without any requirement matches nothing.
fn term_matches(term: &NodeSelectorTerm, name: &str, labels: &BTreeMap<String, String>) -> bool {
    let expressions = term.match_expressions.iter().flatten();
    let fields = term.match_fields.iter().flatten();
    let is_empty = expressions.clone().next().is_none() && fields.clone().next().is_none();
    let field = |key: &str| (key == "metadata.name").then_some(name);
    !is_empty
        && expressions.into_iter().all(|wanted| holds(wanted, labels.get(&wanted.key).map(String::as_str)))
        && fields.into_iter().all(|wanted| holds(wanted, field(&wanted.key)))
}

fn holds(wanted: &NodeSelectorRequirement, actual: Option<&str>) -> bool {
    let values = wanted.values.as_deref().unwrap_or_default();
    let is_among = || actual.is_some_and(|actual| values.iter().any(|value| value == actual));
    match wanted.operator.as_str() {
        "In" => is_among(),
        "NotIn" => !is_among(),
        "Exists" => actual.is_some(),
        "DoesNotExist" => actual.is_none(),
        "Gt" => compared(actual, values).is_some_and(|(actual, bound)| actual > bound),
        "Lt" => compared(actual, values).is_some_and(|(actual, bound)| actual < bound),
        _ => false,
    }
}

fn compared(actual: Option<&str>, values: &[String]) -> Option<(i64, i64)> {
    Some((actual?.parse().ok()?, values.first()?.parse().ok()?))
}

#[cfg(test)]
#[path = "affinity_tests.rs"]
mod tests;
