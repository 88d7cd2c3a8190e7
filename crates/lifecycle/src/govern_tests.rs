#![expect(clippy::needless_pass_by_value, reason = "what `json!` makes is passed on as it is")]

use serde_json::{Value, json};

use super::*;

fn view() -> NodeView {
    let node = json!({
        "metadata": {"name": "boat", "labels": {"zone": "a"}},
        "spec": {"taints": [
            {"key": "arch", "value": "wasm", "effect": "NoExecute"},
            {"key": "arch", "value": "wasm", "effect": "NoSchedule"},
        ]},
        "status": {"allocatable": {"cpu": "2", "memory": "1Gi", "ephemeral-storage": "1Gi", "pods": "3"}},
    });
    let mut view = NodeView::default();
    view.learn(&serde_json::from_value(node).unwrap());
    view
}

/// A pod that tolerates the node, with a part of its spec replaced.
fn pod(key: &str, value: Value) -> Pod {
    let mut spec = json!({"containers": [{"name": "app"}], "tolerations": [{"operator": "Exists"}]});
    spec[key] = value;
    serde_json::from_value(json!({"metadata": {"uid": "u"}, "spec": spec})).unwrap()
}

fn asks_for(amounts: Value) -> Pod {
    pod("containers", json!([{"name": "app", "resources": {"requests": amounts}}]))
}

#[track_caller]
fn check(view: &NodeView, pod: &Pod, reason: &str, message: &str) {
    let (reason, message) = (reason.to_owned(), message.to_owned());
    assert_eq!(govern(view, pod), Admission::Refused { reason, message });
}

#[track_caller]
fn check_taken(view: &NodeView, pod: &Pod) {
    assert_eq!(govern(view, pod), Admission::Admitted);
}

#[test]
fn what_fits_is_taken() {
    check_taken(&view(), &asks_for(json!({})));
    check_taken(&view(), &asks_for(json!({"cpu": "2", "memory": "1Gi", "ephemeral-storage": "1Gi"})));
    check_taken(&view(), &asks_for(json!({"example.com/gpu": "1"})));
    check_taken(&view(), &pod("os", json!({"name": "linux"})));
    check_taken(&view(), &pod("nodeSelector", json!({"zone": "a"})));
}

#[test]
fn what_does_not_fit_names_the_first_resource() {
    let too_much =
        |resource: &str, numbers: &str| format!("Node didn't have enough resource: {resource}, {numbers}");
    let mut view = view();
    let promised = Resources { cpu: 1_500, memory: 512, ephemeral_storage: 1 };
    view.promised.insert(PodUid::new("other"), promised);
    let cpu = too_much("cpu", "requested: 2000, used: 1500, capacity: 2000");
    check(&view, &asks_for(json!({"cpu": "2", "memory": "8Gi"})), "OutOfcpu", &cpu);
    let memory = too_much("memory", "requested: 1073741824, used: 512, capacity: 1073741824");
    check(&view, &asks_for(json!({"memory": "1Gi"})), "OutOfmemory", &memory);
    let disk = too_much("ephemeral-storage", "requested: 1073741824, used: 1, capacity: 1073741824");
    check(&view, &asks_for(json!({"ephemeral-storage": "1Gi"})), "OutOfephemeral-storage", &disk);
    view.promised.extend(["a", "b"].map(|uid| (PodUid::new(uid), Resources::default())));
    let pods = too_much("pods", "requested: 1, used: 3, capacity: 3");
    check(&view, &asks_for(json!({"cpu": "2"})), "OutOfpods", &pods);
}

#[test]
fn nothing_asked_for_fits_even_on_a_full_node() {
    let mut view = view();
    let promised = Resources { cpu: u64::MAX, memory: u64::MAX, ephemeral_storage: u64::MAX };
    view.promised.insert(PodUid::new("other"), promised);
    check_taken(&view, &asks_for(json!({})));
}

#[test]
fn the_wrong_place_is_refused_after_the_lack_of_room() {
    let message = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
    let mut wrong = pod("nodeSelector", json!({"zone": "b"}));
    check(&view(), &wrong, "NodeAffinity", message);
    wrong.spec.as_mut().unwrap().containers = asks_for(json!({"cpu": "3"})).spec.unwrap().containers;
    let message = "Node didn't have enough resource: cpu, requested: 3000, used: 0, capacity: 2000";
    check(&view(), &wrong, "OutOfcpu", message);
}

#[test]
fn only_taints_that_evict_count() {
    let message = "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate";
    let refused =
        |tolerations: Value| check(&view(), &pod("tolerations", tolerations), "TaintToleration", message);
    let taken = |tolerations: Value| check_taken(&view(), &pod("tolerations", tolerations));
    refused(json!([]));
    refused(json!([{"key": "arch", "operator": "Exists", "effect": "NoSchedule"}]));
    refused(json!([{"key": "arch", "value": "arm", "effect": "NoExecute"}]));
    refused(json!([{"key": "other", "operator": "Exists"}]));
    refused(json!([{"key": "arch", "operator": "Gt", "value": "wasm"}]));
    taken(json!([{"key": "arch", "operator": "Exists", "effect": "NoExecute"}]));
    taken(json!([{"key": "arch", "value": "wasm", "effect": "NoExecute"}]));
    taken(json!([{"key": "arch", "operator": "Equal", "value": "wasm"}]));
    taken(json!([{"key": "other", "operator": "Exists"}, {"operator": "Exists"}]));
}

#[test]
fn other_systems_and_a_machine_that_goes_down_are_refused() {
    let message = "Failed to admit pod as the OS field doesn't match node OS";
    check(&view(), &pod("os", json!({"name": "windows"})), "PodOSNotSupported", message);
    let view = NodeView { shutdown: true, ..view() };
    let message = "Pod was rejected as the node is shutting down.";
    check(&view, &pod("os", json!({"name": "windows"})), "NodeShutdown", message);
}
