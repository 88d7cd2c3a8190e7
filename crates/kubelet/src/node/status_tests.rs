use coracle_lifecycle::{Digest, ImageContent, ImageModule};
use k8s_openapi::api::core::v1::NodeCondition;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::super::samples::{facts, settings, time};
use super::*;

fn seen() -> Observation {
    Observation { facts: facts(), ..Observation::default() }
}

fn image(name: &str, size: u64) -> LocalImage {
    let digest = Digest::parse(&format!("sha256:{}", "0".repeat(64))).unwrap();
    LocalImage {
        repo_digest: format!("{name}@{digest}"),
        reference: format!("{name}:v1"),
        content: ImageContent::Program(ImageModule {
            digest: digest.clone(),
            path: "m.wasm".into(),
            name: "m".to_owned(),
        }),
        digest,
        size,
    }
}

#[test]
fn a_new_node_says_what_it_is() {
    let node =
        desired_node(&settings(), &Observation { unready: Some("starting".into()), ..seen() }, time(0));
    let status = json!(node.status);
    assert_eq!(node.metadata.annotations.unwrap()[ATTACH.0], "true");
    assert_eq!(node.spec.unwrap().taints.unwrap().len(), 2);
    assert_eq!(
        status["addresses"],
        json!([
            { "type": "InternalIP", "address": "192.0.2.7" },
            { "type": "InternalIP", "address": "2001:db8::7" },
            { "type": "Hostname", "address": "n1" },
        ])
    );
    assert_eq!(status["daemonEndpoints"]["kubeletEndpoint"]["Port"], 10250);
    assert_eq!(status["capacity"]["pods"], "500");
    assert_eq!(status["nodeInfo"]["containerRuntimeVersion"], "wasmtime://48.0.0");
    assert_eq!(status["nodeInfo"]["kubeletVersion"], "v1.36.0+coracle.0.1.0");
    assert_eq!(status["runtimeHandlers"], json!([{ "name": "" }, { "name": "wasmtime" }]));
    assert_eq!(status["declaredFeatures"], json!(["RestartAllContainersOnContainerExits"]));
    assert_eq!(status["conditions"][3]["type"], "Ready");
    assert_eq!(status["conditions"][3]["status"], "False");
}

#[test]
fn no_taints_means_none() {
    let bare = NodeSettings { taints: Vec::new(), ..settings() };
    assert!(desired_node(&bare, &seen(), time(0)).spec.unwrap().taints.is_none());
}

#[test]
fn the_largest_images_are_listed_by_digest_and_name() {
    let local: Vec<_> = (0..60).map(|size| image(&format!("r/i{size}"), size)).collect();
    let status = desired_status(
        &settings(),
        &Observation { images: local, ..seen() },
        &NodeStatus::default(),
        time(0),
    );
    let listed = status.images.unwrap();
    assert_eq!(listed.len(), 50);
    assert_eq!(listed[0].size_bytes, Some(59));
    let names = listed[0].names.clone().unwrap();
    assert!(names[0].starts_with("r/i59@sha256:") && names[1] == "r/i59:v1", "{names:?}");
}

#[test]
fn only_a_change_is_worth_writing() {
    let first = desired_status(&settings(), &seen(), &NodeStatus::default(), time(0));
    let later = desired_status(&settings(), &seen(), &first, time(10));
    assert!(!differs(&first, &later), "a heartbeat is no change");
    let unready = Observation { unready: Some("shutting down".into()), ..seen() };
    assert!(differs(&first, &desired_status(&settings(), &unready, &first, time(10))));
    let more = Observation { images: vec![image("r/i", 1)], ..seen() };
    let with_image = desired_status(&settings(), &more, &first, time(10));
    assert!(differs(&first, &with_image) && differs(&with_image, &first));
    assert!(differs(&NodeStatus::default(), &first));
}

#[test]
fn what_others_wrote_is_no_change_and_is_kept() {
    let mut current = desired_status(&settings(), &seen(), &NodeStatus::default(), time(0));
    let foreign = NodeCondition { type_: "NetworkUnavailable".into(), ..NodeCondition::default() };
    current.conditions.as_mut().unwrap().insert(0, foreign);
    let dongles = Quantity("4".into());
    current.capacity.as_mut().unwrap().insert("example.com/dongle".into(), dongles.clone());
    current.images = None;
    let desired = desired_status(&settings(), &seen(), &current, time(10));
    assert_eq!(desired.allocatable.as_ref().unwrap()["example.com/dongle"], dongles);
    assert!(differs(&current, &desired), "the dongles become allocatable");
    current.allocatable.clone_from(&desired.allocatable);
    assert!(!differs(&current, &desired));
    assert!(!status_patch(&desired)["status"]["conditions"].to_string().contains("NetworkUnavailable"));
}

#[test]
fn a_verdict_of_the_control_plane_is_corrected() {
    let mut current = desired_status(&settings(), &seen(), &NodeStatus::default(), time(0));
    let ready = &mut current.conditions.as_mut().unwrap()[3];
    "Unknown".clone_into(&mut ready.status);
    let desired = desired_status(&settings(), &seen(), &current, time(60));
    assert!(differs(&current, &desired));
}

#[test]
fn addresses_are_replaced_as_a_whole() {
    let desired = desired_status(&settings(), &seen(), &NodeStatus::default(), time(0));
    let patch = status_patch(&desired);
    assert_eq!(patch["status"]["addresses"][3], json!({ "$patch": "replace" }));
}

#[test]
fn labels_of_an_existing_node_are_corrected_and_others_kept() {
    let mut metadata = desired_node(&settings(), &seen(), time(0)).metadata;
    metadata.labels.as_mut().unwrap().insert("own".into(), "label".into());
    assert_eq!(metadata_patch(&settings(), &metadata), None);
    metadata.labels.as_mut().unwrap().insert("kubernetes.io/arch".into(), "amd64".into());
    let patch = metadata_patch(&settings(), &metadata).unwrap();
    assert_eq!(patch["metadata"]["labels"]["kubernetes.io/arch"], "wasm32-wasi");
    assert_eq!(patch["metadata"]["labels"].get("own"), None);
}

#[test]
fn there_are_no_more_pods_than_addresses() {
    let network = NetworkReport { shared: None, addresses: Some(6) };
    let seen = Observation { network, ..seen() };
    let status = desired_status(&settings(), &seen, &NodeStatus::default(), time(0));
    for amounts in [status.capacity, status.allocatable] {
        assert_eq!(amounts.unwrap()["pods"].0, "6");
    }
}

#[test]
fn a_ready_node_says_that_its_pods_have_its_own_address() {
    let network = NetworkReport { shared: Some("the kernel says no".into()), addresses: None };
    let seen = Observation { network, ..seen() };
    let status = desired_status(&settings(), &seen, &NodeStatus::default(), time(0));
    let ready = status.conditions.unwrap().into_iter().find(|condition| condition.type_ == "Ready").unwrap();
    let message = "kubelet is posting ready status; pods have the node's address: the kernel says no";
    assert_eq!((&*ready.status, ready.message.as_deref()), ("True", Some(message)));
}
