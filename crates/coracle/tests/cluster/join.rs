//! How a node joins, and stays joined.

use coracle_testing::{Cluster, Node, NodeOptions, wait};
use futures::TryStreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node as NodeObject, NodeCondition, NodeStatus, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::{DeleteParams, PostParams, WatchEvent, WatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::scene::{LIMIT, Scene, options};
use crate::{guests, manifests, states, until};

fn conditions(node: &NodeObject) -> &[NodeCondition] {
    node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default()
}

/// The status of the last condition, which has to be `Ready`.
fn ready(node: &NodeObject) -> Option<&str> {
    let last = conditions(node).last()?;
    (last.type_ == "Ready").then_some(last.status.as_str())
}

type Resources = std::collections::BTreeMap<String, Quantity>;

fn amount(from: Option<&Resources>, resource: &str) -> Quantity {
    from.and_then(|list| list.get(resource)).cloned().unwrap_or_default()
}

fn number(from: Option<&Resources>, resource: &str) -> u64 {
    coracle_lifecycle::quantity::whole(&amount(from, resource)).unwrap_or_default()
}

#[tokio::test]
async fn a_node_is_ready_last_and_says_what_it_is() {
    let cluster = Cluster::shared().await.unwrap();
    let api = Api::<NodeObject>::all(cluster.admin().await.unwrap());
    let params = WatchParams::default().fields("metadata.name=joins");
    let seen = api.watch(&params, "0").await.unwrap();
    let node = Node::start(cluster, options("joins").await.unwrap()).await.unwrap();

    let added = seen.try_filter_map(async |event| match event {
        WatchEvent::Added(node) => Ok(Some(node)),
        _ => Ok(None),
    });
    let first = std::pin::pin!(added).try_next().await.unwrap().unwrap();
    assert_eq!(ready(&first), Some("False"), "{:?}", conditions(&first));
    let joined = wait::object(api, "joins", LIMIT, |node| ready(node) == Some("True")).await.unwrap();
    let kinds: Vec<_> = conditions(&joined).iter().map(|condition| condition.type_.as_str()).collect();
    assert_eq!(kinds, ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"]);

    for (label, value) in [
        ("kubernetes.io/os", "wasm32-wasi"),
        ("kubernetes.io/arch", "wasm32-wasi"),
        ("beta.kubernetes.io/os", "wasm32-wasi"),
        ("beta.kubernetes.io/arch", "wasm32-wasi"),
        ("kubernetes.io/hostname", "joins"),
    ] {
        assert_eq!(joined.labels().get(label).map(String::as_str), Some(value), "{label}");
    }
    assert!(joined.labels().contains_key("type"));
    assert_eq!(
        own_taints(&joined),
        ["kubernetes.io/arch=wasm32-wasi:NoExecute", "kubernetes.io/arch=wasm32-wasi:NoSchedule"]
    );
    check_status(joined.status.as_ref().unwrap(), &node);
}

#[tokio::test]
async fn a_node_that_must_keep_more_free_than_it_has_says_so() {
    let cluster = Cluster::shared().await.unwrap();
    let mut options = options("pressed").await.unwrap();
    options.arguments = vec!["--eviction-hard=nodefs.available<8Ei".to_owned()];
    let _node = Node::start(cluster, options).await.unwrap();
    let api: Api<NodeObject> = Api::all(cluster.admin().await.unwrap());
    let is_pressed = |node: &NodeObject| own_pressure(node) == Some("KubeletHasDiskPressure");
    let pressed = wait::object(api, "pressed", LIMIT, is_pressed).await.unwrap();
    let status = pressed.status.as_ref().unwrap();
    assert_eq!(status.allocatable.as_ref().unwrap()["ephemeral-storage"].0, "0");
}

fn own_pressure(node: &NodeObject) -> Option<&str> {
    conditions(node)
        .iter()
        .find(|condition| condition.status == "True" && condition.type_ != "Ready")?
        .reason
        .as_deref()
}

/// The taints the node was registered with; those of the control plane come and go.
fn own_taints(node: &NodeObject) -> Vec<String> {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref()).into_iter().flatten();
    let own = taints.filter(|taint| !taint.key.starts_with("node.kubernetes.io/"));
    let mut own: Vec<_> = own
        .map(|taint| format!("{}={}:{}", taint.key, taint.value.as_deref().unwrap_or_default(), taint.effect))
        .collect();
    own.sort();
    own
}

fn check_status(status: &NodeStatus, node: &Node) {
    let cores = std::thread::available_parallelism().unwrap().get().to_string();
    assert_eq!(amount(status.capacity.as_ref(), "cpu").0, cores);
    for resource in ["cpu", "memory", "ephemeral-storage", "pods"] {
        let capacity = number(status.capacity.as_ref(), resource);
        let allocatable = number(status.allocatable.as_ref(), resource);
        assert!(allocatable > 0 && allocatable <= capacity, "{resource}: {allocatable} of {capacity}");
    }
    let addresses = status.addresses.as_ref().unwrap().iter();
    let addresses: Vec<_> = addresses.map(|address| (&*address.type_, &*address.address)).collect();
    assert_eq!(addresses, [("InternalIP", "127.0.0.1"), ("Hostname", node.name())]);
    let endpoint = status.daemon_endpoints.as_ref().unwrap().kubelet_endpoint.as_ref().unwrap();
    assert_eq!(endpoint.port, i32::from(node.port()));
    let info = status.node_info.as_ref().unwrap();
    assert!(info.kubelet_version.starts_with("v1.") && info.kubelet_version.contains("coracle"));
    assert_eq!((&*info.operating_system, &*info.architecture), ("wasm32-wasi", "wasm32-wasi"));
    assert!(info.container_runtime_version.contains("://"), "{}", info.container_runtime_version);
    for fact in [&info.machine_id, &info.boot_id, &info.system_uuid, &info.kernel_version, &info.os_image] {
        assert!(!fact.is_empty(), "{info:?}");
    }
}

#[tokio::test]
async fn a_node_keeps_a_lease_of_forty_seconds_that_it_owns() {
    let scene = Scene::new("leases").await.unwrap();
    let uid = scene.node_object().await.unwrap().metadata.uid.unwrap();
    let leases = Api::<Lease>::namespaced(scene.client.clone(), "kube-node-lease");
    let lease = wait::object(leases.clone(), "leases", LIMIT, |lease| {
        lease.owner_references().iter().any(|owner| owner.uid == uid && owner.kind == "Node")
    });
    let first = lease.await.unwrap().spec.unwrap();
    assert_eq!(first.lease_duration_seconds, Some(40));
    assert_eq!(first.holder_identity.as_deref(), Some("leases"));

    let renewed = first.renew_time.unwrap();
    let again = wait::object(leases, "leases", LIMIT, |lease| {
        lease.spec.as_ref().and_then(|spec| spec.renew_time.as_ref()).is_some_and(|time| time.0 > renewed.0)
    });
    let again = again.await.unwrap().spec.unwrap().renew_time.unwrap();
    let seconds = again.0.duration_since(renewed.0).as_secs();
    assert!((8..=15).contains(&seconds), "renewed after {seconds} s");
}

#[tokio::test]
async fn flags_set_labels_and_taints_and_lower_the_number_of_pods() {
    let arguments = [
        "--node-labels=example.com/kind=edge",
        "--register-with-taints=example.com/only=wasm:NoSchedule",
        "--max-pods=3",
    ];
    let arguments = arguments.map(str::to_owned).to_vec();
    let options = NodeOptions { arguments, ..options("flagged").await.unwrap() };
    let scene = Scene::with(Cluster::shared().await.unwrap(), options).await.unwrap();
    let node = scene.node_object().await.unwrap();
    assert_eq!(node.labels().get("example.com/kind").map(String::as_str), Some("edge"));
    assert_eq!(own_taints(&node), ["example.com/only=wasm:NoSchedule"]);
    assert_eq!(amount(node.status.unwrap().capacity.as_ref(), "pods").0, "3");

    // What does not come by way of the scheduler is refused by the node.
    let image = guests::image("sleep").await.unwrap();
    let mut spec = manifests::app("Always", &image, &[]);
    spec["nodeName"] = "flagged".into();
    for name in ["one", "two", "three"] {
        scene.create::<Pod>(manifests::pod(name, &spec)).await.unwrap();
        scene.pod(name, states::is_running).await.unwrap();
    }
    scene.create::<Pod>(manifests::pod("four", &spec)).await.unwrap();
    let refused = scene.pod("four", states::has_ended).await.unwrap();
    let status = refused.status.as_ref().unwrap();
    assert_eq!((states::phase(&refused), status.reason.as_deref()), ("Failed", Some("OutOfpods")));
    scene.event("four", "OutOfpods", "requested: 1, used: 3, capacity: 3").await.unwrap();
}

#[tokio::test]
async fn a_node_object_that_is_there_already_is_corrected() {
    let cluster = Cluster::shared().await.unwrap();
    let api = Api::<NodeObject>::all(cluster.admin().await.unwrap());
    let manifest = json!({
        "metadata": {"name": "corrected", "labels": {
            "kubernetes.io/arch": "amd64", "kubernetes.io/hostname": "another", "example.com/team": "b",
        }},
        "status": {
            "capacity": {"pods": "7", "example.com/widgets": "1"},
            "conditions": [{"type": "example.com/Good", "status": "True"}],
        },
    });
    let stale: NodeObject = serde_json::from_value(manifest).unwrap();
    let before = api.create(&PostParams::default(), &stale).await.unwrap();

    let scene = Scene::with(cluster, options("corrected").await.unwrap()).await.unwrap();
    let node = scene.node_object().await.unwrap();
    assert_eq!(node.uid(), before.uid());
    for (label, value) in [
        ("kubernetes.io/arch", "wasm32-wasi"),
        ("kubernetes.io/hostname", "corrected"),
        ("example.com/team", "b"),
    ] {
        assert_eq!(node.labels().get(label).map(String::as_str), Some(value), "{label}");
    }
    let status = node.status.as_ref().unwrap();
    assert_ne!(amount(status.capacity.as_ref(), "pods").0, "7");
    assert!(conditions(&node).iter().any(|condition| condition.type_ == "example.com/Good"), "{status:?}");
    let port = status.daemon_endpoints.as_ref().unwrap().kubelet_endpoint.as_ref().unwrap().port;
    assert_eq!(port, i32::from(scene.node.port()));
}

#[tokio::test]
async fn a_deleted_node_object_is_made_again() {
    let scene = Scene::new("returns").await.unwrap();
    let image = guests::image("ticker").await.unwrap();
    let pod =
        scene.run_until("stays", manifests::app("Always", &image, &[]), states::is_running).await.unwrap();
    let before = scene.node_object().await.unwrap().uid();
    let api = Api::<NodeObject>::all(scene.client.clone());
    api.delete("returns", &DeleteParams::default()).await.unwrap();

    let again =
        wait::object(api, "returns", LIMIT, |node| node.uid() != before && ready(node) == Some("True"));
    let uid = again.await.unwrap().uid().unwrap();
    let leases = Api::<Lease>::namespaced(scene.client.clone(), "kube-node-lease");
    wait::object(leases, "returns", LIMIT, |lease| {
        lease.owner_references().iter().any(|owner| owner.uid == uid)
    })
    .await
    .unwrap();
    let now = scene.pod("stays", states::is_running).await.unwrap();
    assert_eq!((now.uid(), states::restarts(&now)), (pod.uid(), 0));
}

#[tokio::test]
async fn two_nodes_run_each_its_own_pods() {
    let (one, two) = tokio::join!(Scene::new("one-of-two"), Scene::new("two-of-two"));
    let (one, two) = (one.unwrap(), two.unwrap());
    let image = guests::image("ticker").await.unwrap();
    let spec = manifests::app("Always", &image, &[]);
    let (first, second) = tokio::join!(
        one.run_until("same-name", spec.clone(), states::is_running),
        two.run_until("same-name", spec, states::is_running)
    );
    for (scene, other, pod) in [(&one, &two, first.unwrap()), (&two, &one, second.unwrap())] {
        assert_eq!(pod.spec.as_ref().unwrap().node_name.as_deref(), Some(scene.node.name()));
        until::so("the log is written", || scene.log_file(&pod, "app", 0).is_file()).await.unwrap();
        assert!(scene.logs("same-name", &["--tail=1"]).await.unwrap().starts_with("tick "));
        assert!(!other.pod_directory(&pod).exists());
    }
}
