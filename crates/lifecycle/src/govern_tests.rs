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

fn settle(view: &mut NodeView, uid: &str, pod: &Pod) {
    view.residents.insert(PodUid::new(uid), Resident::of(pod));
}

#[track_caller]
fn check(view: &NodeView, pod: &Pod, reason: &str, message: &str) {
    let (reason, message) = (reason.to_owned(), message.to_owned());
    assert_eq!(govern(view, pod), Verdict::Judged(Admission::Refused { reason, message }));
}

#[track_caller]
fn check_taken(view: &NodeView, pod: &Pod) {
    assert_eq!(govern(view, pod), Verdict::Judged(Admission::Admitted));
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
fn a_profile_of_apparmor_is_refused_and_a_refusal_for_labels_is_one() {
    let confined =
        pod("securityContext", json!({"appArmorProfile": {"type": "Localhost", "localhostProfile": "p"}}));
    check(&view(), &confined, "AppArmor", "Cannot enforce AppArmor: AppArmor is not enabled on the host");
    assert!(govern(&view(), &pod("nodeSelector", json!({"zone": "b"}))).is_of_labels());
    assert!(!govern(&view(), &confined).is_of_labels());
    assert!(!govern(&view(), &asks_for(json!({}))).is_of_labels());
}

#[test]
fn what_does_not_fit_names_the_first_resource() {
    let too_much =
        |resource: &str, numbers: &str| format!("Node didn't have enough resource: {resource}, {numbers}");
    let mut view = view();
    settle(&mut view, "other", &asks_for(json!({"cpu": "1500m", "memory": "512", "ephemeral-storage": "1"})));
    let cpu = too_much("cpu", "requested: 2000, used: 1500, capacity: 2000");
    check(&view, &asks_for(json!({"cpu": "2", "memory": "8Gi"})), "OutOfcpu", &cpu);
    let memory = too_much("memory", "requested: 1073741824, used: 512, capacity: 1073741824");
    check(&view, &asks_for(json!({"memory": "1Gi"})), "OutOfmemory", &memory);
    let disk = too_much("ephemeral-storage", "requested: 1073741824, used: 1, capacity: 1073741824");
    check(&view, &asks_for(json!({"ephemeral-storage": "1Gi"})), "OutOfephemeral-storage", &disk);
    for uid in ["a", "b"] {
        settle(&mut view, uid, &asks_for(json!({})));
    }
    let pods = too_much("pods", "requested: 1, used: 3, capacity: 3");
    check(&view, &asks_for(json!({"cpu": "2"})), "OutOfpods", &pods);
}

#[test]
fn nothing_asked_for_fits_even_on_a_full_node() {
    let mut view = view();
    settle(&mut view, "other", &asks_for(json!({"cpu": "10", "memory": "8Ei", "ephemeral-storage": "8Ei"})));
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
fn what_else_the_node_counts_runs_out_too() {
    let mut view = view();
    view.allocatable.scalar.insert("example.com/gpu".to_owned(), 2);
    settle(&mut view, "other", &asks_for(json!({"example.com/gpu": "1"})));
    check_taken(&view, &asks_for(json!({"example.com/gpu": "1", "example.com/unknown": "9"})));
    let message = "Node didn't have enough resource: example.com/gpu, requested: 2, used: 1, capacity: 2";
    check(&view, &asks_for(json!({"example.com/gpu": "2"})), "OutOfexample.com/gpu", message);
    let message = "Node didn't have enough resource: hugepages-2Mi, requested: 2097152, used: 0, capacity: 0";
    check(&view, &asks_for(json!({"hugepages-2Mi": "2Mi"})), "OutOfhugepages-2Mi", message);
}

#[test]
fn a_port_of_the_node_belongs_to_one_pod() {
    let message = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
    let wants = |port: Value| pod("containers", json!([{"name": "app", "ports": [port]}]));
    let with = |key: &str, value: Value| {
        let mut port = json!({"containerPort": 80, "hostPort": 8080});
        port[key] = value;
        wants(port)
    };
    let mut everywhere = with_addresses();
    settle(&mut everywhere, "other", &wants(json!({"containerPort": 1, "hostPort": 8080})));
    for same in [
        with("hostIP", json!("")),
        with("hostIP", json!("0.0.0.0")),
        with("hostIP", json!("192.0.2.7")),
        with("protocol", json!("TCP")),
    ] {
        check(&everywhere, &same, "NodePorts", message);
    }
    let other_port = with("hostPort", json!(8081));
    let none = with("hostPort", json!(0));
    for other in [other_port, none, with("protocol", json!("UDP"))] {
        check_taken(&everywhere, &other);
    }
    let mut one_address = with_addresses();
    settle(&mut one_address, "other", &with("hostIP", json!("192.0.2.7")));
    check_taken(&one_address, &with("hostIP", json!("192.0.2.8")));
    check(&one_address, &with("hostIP", json!("")), "NodePorts", message);
    let sidecar =
        json!([{"name": "s", "restartPolicy": "Always", "ports": [{"containerPort": 1, "hostPort": 8080}]}]);
    check(&everywhere, &pod("initContainers", sidecar), "NodePorts", message);
    let init = json!([{"name": "s", "ports": [{"containerPort": 1, "hostPort": 8080}]}]);
    check_taken(&everywhere, &pod("initContainers", init));
}

/// A node whose pods have addresses of their own.
fn with_addresses() -> NodeView {
    let mut view = view();
    view.addresses.learn(&["10.0.0.0/24".parse().unwrap()]);
    view
}

#[test]
fn where_pods_have_the_nodes_address_their_ports_are_the_nodes() {
    let message = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
    let wants = |port: Value| pod("containers", json!([{"name": "app", "ports": [port]}]));
    let listens = |port: u16| wants(json!({"containerPort": port}));
    let (mut shared, mut own) = (view(), with_addresses());
    settle(&mut shared, "other", &listens(8080));
    settle(&mut own, "other", &listens(8080));
    check(&shared, &listens(8080), "NodePorts", message);
    check(&shared, &wants(json!({"containerPort": 1, "hostPort": 8080})), "NodePorts", message);
    check_taken(&shared, &listens(8081));
    check_taken(&shared, &wants(json!({"containerPort": 8080, "protocol": "UDP"})));
    check_taken(&own, &listens(8080));
}

#[test]
fn a_node_short_of_something_takes_what_it_can_bear() {
    let memory = NodeView { pressures: vec!["MemoryPressure".to_owned()], ..view() };
    let both = vec!["MemoryPressure".to_owned(), "DiskPressure".to_owned()];
    let both = NodeView { pressures: both, ..view() };
    let intolerant = |mut pod: Pod| {
        let arch = json!([{"key": "arch", "operator": "Exists"}]);
        pod.spec.as_mut().unwrap().tolerations = serde_json::from_value(arch).unwrap();
        pod
    };
    let message = "The node had condition: [MemoryPressure]. ";
    check(&memory, &intolerant(asks_for(json!({}))), "Evicted", message);
    check_taken(&memory, &asks_for(json!({})));
    check_taken(&memory, &intolerant(asks_for(json!({"cpu": "1m"}))));
    let message = "The node had condition: [MemoryPressure DiskPressure]. ";
    check(&both, &asks_for(json!({"cpu": "1m"})), "Evicted", message);
    check_taken(&both, &critical(json!({})));
}

fn critical(amounts: Value) -> Pod {
    let mut pod = asks_for(amounts);
    pod.spec.as_mut().unwrap().priority = Some(2_000_000_000);
    pod
}

/// A pod with these requests and of this class.
fn of_class(class: &str, amounts: Value) -> Pod {
    let mut pod = asks_for(amounts);
    pod.status = serde_json::from_value(json!({ "qosClass": class })).unwrap();
    pod
}

#[track_caller]
fn check_preempts(view: &NodeView, pod: &Pod, victims: &[&str]) {
    let victims = victims.iter().map(|uid| PodUid::new(*uid)).collect();
    assert_eq!(govern(view, pod), Verdict::Preempts(victims));
}

#[test]
fn a_critical_pod_takes_the_place_of_the_fewest_and_least() {
    let mut view = NodeView { capacity: 10, ..view() };
    settle(&mut view, "best", &of_class("BestEffort", json!({})));
    settle(&mut view, "large", &of_class("Burstable", json!({"cpu": "900m"})));
    settle(&mut view, "small", &of_class("Burstable", json!({"cpu": "400m"})));
    settle(&mut view, "firm", &of_class("Guaranteed", json!({"cpu": "600m"})));
    check_taken(&view, &critical(json!({"cpu": "100m"})));
    check_preempts(&view, &critical(json!({"cpu": "400m"})), &["small"]);
    check_preempts(&view, &critical(json!({"cpu": "800m"})), &["large"]);
    check_preempts(&view, &critical(json!({"cpu": "1300m"})), &["large", "small"]);
    check_preempts(&view, &critical(json!({"cpu": "2"})), &["large", "small", "firm"]);
    view.capacity = 4;
    check_preempts(&view, &critical(json!({})), &["best"]);
    view.shutdown = true;
    let message = "Pod was rejected as the node is shutting down.";
    check(&view, &critical(json!({})), "NodeShutdown", message);
}

#[test]
fn a_critical_pod_takes_no_place_that_is_not_to_be_had() {
    let mut view = view();
    settle(&mut view, "critical", &critical(json!({"cpu": "1500m"})));
    let message = "Unexpected error while attempting to recover from admission failure: preemption: error finding a \
                   set of pods to preempt: no set of running pods found to reclaim resources: [(res: cpu, q: 500), ]";
    check(&view, &critical(json!({"cpu": "1"})), "UnexpectedAdmissionError", message);
    let mut higher = critical(json!({"cpu": "1"}));
    higher.spec.as_mut().unwrap().priority = Some(2_000_001_000);
    check_preempts(&view, &higher, &["critical"]);
    higher.spec.as_mut().unwrap().node_selector = Some(BTreeMap::from([("zone".into(), "b".into())]));
    let message = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
    check(&view, &higher, "NodeAffinity", message);
}

#[test]
fn a_label_for_another_system_is_refused() {
    let labelled = |system: &str| {
        let mut pod = asks_for(json!({}));
        pod.metadata.labels = Some(BTreeMap::from([("kubernetes.io/os".to_owned(), system.to_owned())]));
        pod
    };
    let mut view = view();
    view.labels.insert("kubernetes.io/os".to_owned(), "wasm32-wasi".to_owned());
    for system in ["linux", "wasm32-wasi"] {
        check_taken(&view, &labelled(system));
    }
    let message = "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label";
    check(&view, &labelled("windows"), "PodOSSelectorNodeLabelDoesNotMatch", message);
}

#[test]
fn other_systems_and_a_machine_that_goes_down_are_refused() {
    let message = "Failed to admit pod as the OS field doesn't match node OS";
    check(&view(), &pod("os", json!({"name": "windows"})), "PodOSNotSupported", message);
    let view = NodeView { shutdown: true, ..view() };
    check(&view, &pod("os", json!({"name": "windows"})), "PodOSNotSupported", message);
    let message = "Pod was rejected as the node is shutting down.";
    check(&view, &asks_for(json!({})), "NodeShutdown", message);
}
