//! A pod's quality of service class.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::{Wish, quantity};

/// What decides over the class.
const NAMES: [&str; 2] = ["cpu", "memory"];

/// The class that the API server gave the pod, or that its resources make.
///
/// <https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/>
pub(crate) fn class(pod: &Pod) -> String {
    let given = pod.status.as_ref().and_then(|status| status.qos_class.clone());
    given.unwrap_or_else(|| computed(pod).to_owned())
}

fn computed(pod: &Pod) -> &'static str {
    let spec = pod.spec.as_ref();
    let own = spec.and_then(|spec| spec.resources.as_ref());
    let parts: Vec<Option<&ResourceRequirements>> = match own.filter(|own| names_any(own)) {
        Some(own) => vec![Some(own)],
        None => spec
            .into_iter()
            .flat_map(|spec| spec.init_containers.iter().flatten())
            .chain(pod.containers())
            .map(|container| container.resources.as_ref())
            .collect(),
    };
    if !parts.iter().flatten().any(|resources| names_any(resources)) {
        "BestEffort"
    } else if parts.iter().all(|resources| resources.is_some_and(is_guaranteed)) {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

fn amount(amounts: Option<&BTreeMap<String, Quantity>>, name: &str) -> Option<u64> {
    amounts?.get(name).and_then(|amount| quantity::thousandths(amount).ok()).filter(|amount| *amount > 0)
}

fn names_any(resources: &ResourceRequirements) -> bool {
    let lists = [resources.requests.as_ref(), resources.limits.as_ref()];
    lists.into_iter().any(|amounts| NAMES.iter().any(|name| amount(amounts, name).is_some()))
}

/// Both limits are there; a request that is absent equals its limit.
fn is_guaranteed(resources: &ResourceRequirements) -> bool {
    NAMES.iter().all(|name| {
        let limit = amount(resources.limits.as_ref(), name);
        let request = amount(resources.requests.as_ref(), name).or(limit);
        limit.is_some() && request == limit
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn class_of(containers: &[Value], own: &Value) -> String {
        let containers: Vec<Value> = containers
            .iter()
            .enumerate()
            .map(|(index, resources)| json!({"name": format!("c{index}"), "resources": resources}))
            .collect();
        let pod = json!({"spec": {"containers": containers, "resources": own}});
        class(&serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn classes_follow_requests_and_limits() {
        let check = |containers: &[Value], expected| {
            assert_eq!(class_of(containers, &Value::Null), expected, "{containers:?}");
        };
        let whole = json!({"limits": {"cpu": "1", "memory": "1Gi"}});
        check(&[json!({})], "BestEffort");
        check(&[json!({"requests": {"cpu": "0"}})], "BestEffort");
        check(&[json!({"requests": {"ephemeral-storage": "1Gi"}})], "BestEffort");
        check(&[json!({"requests": {"cpu": "1m"}})], "Burstable");
        check(&[json!({"limits": {"memory": "1Gi"}})], "Burstable");
        check(std::slice::from_ref(&whole), "Guaranteed");
        check(&[whole.clone(), json!({})], "Burstable");
        let equal = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1024Mi"}});
        check(&[whole.clone(), equal], "Guaranteed");
        let less =
            json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "1Gi"}});
        check(&[less], "Burstable");
        assert_eq!(class_of(&[json!({})], &whole), "Guaranteed");
    }

    #[test]
    fn the_api_servers_word_counts() {
        let pod = json!({"spec": {"containers": []}, "status": {"qosClass": "Burstable"}});
        assert_eq!(class(&serde_json::from_value(pod).unwrap()), "Burstable");
    }
}
