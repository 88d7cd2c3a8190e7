//! Which pods a node takes that were bound to it without asking the scheduler.

use coracle_testing::ports;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::scene::{Scene, options};
use crate::{guests, manifests, states};

impl Scene<'_> {
    /// Makes a pod that is bound to this node from the start.
    async fn bind(&self, name: &str, spec: Value) -> Pod {
        let mut spec = self.placed(spec);
        spec["nodeName"] = self.node.name().into();
        self.create(manifests::pod(name, &spec)).await.unwrap()
    }

    /// Waits until the node has refused a pod, in its status and by an Event.
    async fn refused(&self, name: &str, reason: &str, message: &str) {
        let pod = self.pod(name, states::has_ended).await.unwrap();
        let status = pod.status.unwrap();
        assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Failed"), Some(reason)));
        let told = status.message.unwrap_or_default();
        assert!(told.starts_with("Pod was rejected: ") && told.contains(message), "{name}: {told}");
        assert!(status.container_statuses.is_none(), "{name}: nothing of it was begun");
        let event = self.event(name, reason, message).await.unwrap();
        assert_eq!(event.type_.as_deref(), Some("Warning"));
    }
}

fn asking(image: &str, resource: &str, amount: &str) -> Value {
    manifests::of("Never", &json!({"image": image, "resources": {"requests": {resource: amount}}}))
}

fn in_host_network(image: &str, port: u16) -> Value {
    let mut spec = manifests::of("Never", &json!({"image": image, "ports": [{"containerPort": port}]}));
    spec["hostNetwork"] = json!(true);
    spec
}

fn with(mut spec: Value, field: &str, value: Value) -> Value {
    spec[field] = value;
    spec
}

#[tokio::test]
async fn what_does_not_fit_is_refused_in_the_kubelets_words() {
    let scene = Scene::new("judges").await.unwrap();
    let (hello, ticker) = (guests::image("hello").await.unwrap(), guests::image("ticker").await.unwrap());
    let taken = ports::free().unwrap();
    scene.bind("first", in_host_network(&ticker, taken)).await;
    scene.pod("first", states::is_running).await.unwrap();
    let once = || manifests::once(&hello, &[]);
    let sysctls = json!({"sysctls": [{"name": "kernel.msgmax", "value": "1"}]});
    let elsewhere = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": "example.com/zone", "operator": "In", "values": ["far"]}]},
    ]}}});
    let room = "Node didn't have enough resource: ";
    let cases = [
        ("cpu", asking(&hello, "cpu", "1000"), "OutOfcpu", format!("{room}cpu, requested: 1000000, ")),
        ("memory", asking(&hello, "memory", "100Ti"), "OutOfmemory", format!("{room}memory, requested: ")),
        (
            "disk",
            asking(&hello, "ephemeral-storage", "900Ti"),
            "OutOfephemeral-storage",
            format!("{room}ephemeral-storage, requested: "),
        ),
        (
            "affinity",
            with(once(), "affinity", elsewhere),
            "NodeAffinity",
            "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector".to_owned(),
        ),
        (
            "ports",
            in_host_network(&hello, taken),
            "NodePorts",
            "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"
                .to_owned(),
        ),
        (
            "sysctl",
            with(once(), "securityContext", sysctls),
            "SysctlForbidden",
            r#"forbidden sysctl: "kernel.msgmax" not allowlisted"#.to_owned(),
        ),
        (
            "windows",
            with(once(), "os", json!({"name": "windows"})),
            "PodOSNotSupported",
            "Failed to admit pod as the OS field doesn't match node OS".to_owned(),
        ),
    ];
    for (name, spec, _, _) in &cases {
        scene.bind(name, spec.clone()).await;
    }
    for (name, _, reason, message) in &cases {
        scene.refused(name, reason, message).await;
    }
    let label = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "label", "labels": {"kubernetes.io/os": "plan9"}},
        "spec": with(scene.placed(once()), "nodeName", scene.node.name().into())});
    scene.create::<Pod>(label).await.unwrap();
    let message = "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label";
    scene.refused("label", "PodOSSelectorNodeLabelDoesNotMatch", message).await;
    let first = scene.pod("first", |_| true).await.unwrap();
    assert!(states::is_running(&first), "none of them has touched what runs");
}

#[tokio::test]
async fn a_pod_that_does_not_bear_the_nodes_taint_is_refused() {
    let scene = Scene::new("tainted").await.unwrap();
    let image = guests::image("hello").await.unwrap();
    let spec = with(manifests::once(&image, &[]), "nodeName", scene.node.name().into());
    scene.create::<Pod>(manifests::pod("plain", &spec)).await.unwrap();
    // The control plane deletes it for the same taint: only the Event is sure to be seen.
    let message = "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate";
    scene.event("plain", "TaintToleration", message).await.unwrap();
    scene.gone("plain").await.unwrap();
}

#[tokio::test]
async fn a_label_that_the_node_has_just_got_is_seen() {
    let scene = Scene::new("relabelled").await.unwrap();
    let image = guests::image("hello").await.unwrap();
    for generation in 0..10 {
        let label = json!({"example.com/generation": generation.to_string()});
        let patch = Patch::Merge(json!({"metadata": {"labels": label}}));
        let nodes: Api<Node> = Api::all(scene.client.clone());
        nodes.patch(scene.node.name(), &PatchParams::default(), &patch).await.unwrap();
        let mut spec = scene.placed(manifests::once(&image, &[]));
        spec["nodeSelector"] = label;
        spec["nodeName"] = scene.node.name().into();
        let name = format!("p{generation}");
        scene.create::<Pod>(manifests::pod(&name, &spec)).await.unwrap();
        let pod = scene.pod(&name, states::has_ended).await.unwrap();
        assert_eq!(states::phase(&pod), "Succeeded", "{:?}", pod.status);
    }
}

#[tokio::test]
async fn a_critical_pod_takes_the_place_of_another() {
    let mut options = options("preempts").await.unwrap();
    options.arguments.push("--max-pods=1".to_owned());
    let cluster = coracle_testing::Cluster::shared().await.unwrap();
    let scene = Scene::with(cluster, options).await.unwrap();
    let image = guests::image("ticker").await.unwrap();
    let spec = || manifests::app("Always", &image, &[]);
    scene.bind("ordinary", spec()).await;
    scene.pod("ordinary", states::is_running).await.unwrap();
    scene.bind("late", spec()).await;
    let message = "Node didn't have enough resource: pods, requested: 1, used: 1, capacity: 1";
    scene.refused("late", "OutOfpods", message).await;

    scene.bind("critical", with(spec(), "priorityClassName", json!("system-node-critical"))).await;
    scene.pod("critical", states::is_running).await.unwrap();
    let gone = scene.pod("ordinary", states::has_ended).await.unwrap();
    let status = gone.status.as_ref().unwrap();
    let told = "Preempted in order to admit critical pod";
    assert_eq!((status.reason.as_deref(), status.message.as_deref()), (Some("Preempting"), Some(told)));
    let disrupted = states::condition(&gone, "DisruptionTarget").unwrap();
    assert_eq!((&*disrupted.status, disrupted.reason.as_deref()), ("True", Some("TerminationByKubelet")));
    scene.event("ordinary", "Preempting", told).await.unwrap();

    scene.bind("second", with(spec(), "priorityClassName", json!("system-node-critical"))).await;
    let message = "preemption: error finding a set of pods to preempt: no set of running pods found to reclaim \
                   resources: [(res: pods, q: 1), ]";
    scene.refused("second", "UnexpectedAdmissionError", message).await;
}
