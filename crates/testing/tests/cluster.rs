//! The control plane that tests are given.

use std::time::Duration;

use coracle_testing::{Cluster, wait};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(30);

fn object<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("an object of that kind")
}

fn node(name: &str) -> Node {
    object(json!({"metadata": {"name": name}}))
}

#[tokio::test]
async fn a_node_identity_makes_its_own_node_and_no_other() {
    let cluster = Cluster::shared().await.unwrap();
    let identity = cluster.node_identity("anna").unwrap();
    let nodes = Api::<Node>::all(cluster.client(&identity.kubeconfig).await.unwrap());
    nodes.create(&PostParams::default(), &node("anna")).await.unwrap();
    let error = nodes.create(&PostParams::default(), &node("berta")).await.unwrap_err();
    assert!(error.to_string().contains("is not allowed to"), "{error}");
}

#[tokio::test]
async fn nodes_are_given_ranges_of_the_cluster() {
    let cluster = Cluster::shared().await.unwrap();
    let nodes = Api::<Node>::all(cluster.admin().await.unwrap());
    nodes.create(&PostParams::default(), &node("with-range")).await.unwrap();
    let range = |node: &Node| node.spec.as_ref().and_then(|spec| spec.pod_cidr.clone());
    let node = wait::object(nodes, "with-range", SOON, |node| range(node).is_some()).await.unwrap();
    let range = range(&node).unwrap();
    let (cluster_prefix, _) =
        cluster.pod_addresses().split_once(".0.0/").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    assert!(range.starts_with(&cluster_prefix) && range.ends_with("/24"), "{range}");
}

#[tokio::test]
async fn pods_can_be_made_in_a_new_namespace_and_are_seen_by_the_scheduler() {
    let cluster = Cluster::shared().await.unwrap();
    let namespace = cluster.namespace().await.unwrap();
    let client = cluster.admin().await.unwrap();
    let pods = Api::<Pod>::namespaced(client.clone(), &namespace);
    let pod = object(json!({
        "metadata": {"name": "lonely"},
        "spec": {"containers": [{"name": "main", "image": "nowhere"}], "nodeSelector": {"no": "such-node"}},
    }));
    pods.create(&PostParams::default(), &pod).await.unwrap();
    let unschedulable = |pod: &Pod| {
        let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        conditions.into_iter().any(|condition| condition.reason.as_deref() == Some("Unschedulable"))
    };
    wait::pod(&client, &namespace, "lonely", SOON, unschedulable).await.unwrap();
    pods.delete("lonely", &DeleteParams::default()).await.unwrap();
    wait::gone(pods, "lonely", SOON).await.unwrap();
}

#[tokio::test]
async fn a_wait_that_ends_in_vain_shows_what_was_seen() {
    let cluster = Cluster::shared().await.unwrap();
    let leases = Api::<Lease>::namespaced(cluster.admin().await.unwrap(), "default");
    leases.create(&PostParams::default(), &object(json!({"metadata": {"name": "held"}}))).await.unwrap();
    let short = Duration::from_secs(2);
    let error = wait::object(leases.clone(), "held", short, |_| false).await.unwrap_err().to_string();
    assert!(error.contains("held was not as expected") && error.contains("resourceVersion"), "{error}");
    let error = wait::object(leases, "absent", short, |_| true).await.unwrap_err().to_string();
    assert!(error.contains("no such object"), "{error}");
}

#[tokio::test]
async fn kubectl_works_with_the_administrators_identity() {
    let cluster = Cluster::shared().await.unwrap();
    let output = cluster.kubectl(&["auth", "whoami", "--output=name"]).await.unwrap();
    let (said, complained) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{complained}");
    assert!(!said.is_empty());
    assert!(!cluster.kubectl(&["get", "no-such-thing"]).await.unwrap().status.success());
}

#[tokio::test]
async fn a_user_without_rights_is_refused() {
    let cluster = Cluster::shared().await.unwrap();
    let identity = cluster.client_certificate("stranger", &["strangers", "visitors"]).unwrap();
    let client = cluster.client(&identity.kubeconfig).await.unwrap();
    let error = Api::<Node>::all(client).list(&kube::api::ListParams::default()).await.unwrap_err();
    assert!(error.to_string().contains("User \"stranger\" cannot list"), "{error}");
}

#[tokio::test]
async fn the_api_server_comes_back_with_what_it_had() {
    let cluster = Cluster::start().await.unwrap();
    let namespace = cluster.namespace().await.unwrap();
    let client = cluster.admin().await.unwrap();
    cluster.stop_api_server().await.unwrap();
    assert!(client.apiserver_version().await.is_err());
    cluster.start_api_server().await.unwrap();
    let namespaces = Api::<k8s_openapi::api::core::v1::Namespace>::all(cluster.admin().await.unwrap());
    namespaces.get(&namespace).await.unwrap();
}

#[tokio::test]
async fn kubectl_validates_manifests_from_the_start() {
    let cluster = Cluster::start().await.unwrap();
    let manifest = cluster.folder().join("pod.yaml");
    let pod = "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: a, image: a, imgae: b}]}}";
    std::fs::write(&manifest, pod).unwrap();
    let path = manifest.display().to_string();
    let output = cluster.kubectl(&["create", "--filename", &path]).await.unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(complaint.contains("unknown field \"spec.containers[0].imgae\""), "{complaint}");
}
