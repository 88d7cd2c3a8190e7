use serde_json::{Value, json};

use super::*;

fn pod() -> Pod {
    serde_json::from_value(json!({
        "metadata": {
            "name": "web", "namespace": "default", "uid": "u-1",
            "labels": {"b": "2", "a": "x\"y"}, "annotations": {"note": "one\ntwo\u{1}", "empty": ""},
        },
        "spec": {
            "nodeName": "n1", "serviceAccountName": "robot",
            "initContainers": [{"name": "first", "resources": {"limits": {"memory": "1Gi"}}}],
            "containers": [{"name": "app", "resources": {
                "limits": {"cpu": "1500m", "memory": "100M", "hugepages-2Mi": "4Mi"},
                "requests": {"cpu": "250m", "memory": "1"},
            }}, {"name": "free"}],
        },
    }))
    .unwrap()
}

fn allocatable() -> Amounts {
    let amounts = [("cpu", "2"), ("memory", "3Gi"), ("ephemeral-storage", "5k")];
    amounts.map(|(name, amount)| (name.to_owned(), Quantity(amount.to_owned()))).into()
}

#[test]
fn every_field_of_a_variable() {
    let (pod, addresses) = (pod(), ["10.0.0.9", "fd00::9"].map(|text| text.parse().unwrap()));
    let host = ["192.0.2.7", "2001:db8::7"].map(|text| text.parse().unwrap());
    let facts = Facts { pod: &pod, addresses: &addresses, host_addresses: &host, allocatable: None };
    let check = |path: &str, expected: &str| assert_eq!(facts.field(path), Ok(expected.to_owned()), "{path}");
    check("metadata.name", "web");
    check("metadata.namespace", "default");
    check("metadata.uid", "u-1");
    check("metadata.labels", "a=\"x\\\"y\"\nb=\"2\"");
    check("metadata.annotations", "empty=\"\"\nnote=\"one\\ntwo\\x01\"");
    check("metadata.labels['b']", "2");
    check("metadata.labels['absent']", "");
    check("metadata.annotations['note']", "one\ntwo\u{1}");
    check("spec.nodeName", "n1");
    check("spec.serviceAccountName", "robot");
    check("status.hostIP", "192.0.2.7");
    check("status.hostIPs", "192.0.2.7,2001:db8::7");
    check("status.podIP", "10.0.0.9");
    check("status.podIPs", "10.0.0.9,fd00::9");
    let error = |path: &str| facts.field(path).unwrap_err().to_string();
    assert_eq!(error("spec.hostname"), "unsupported fieldPath: spec.hostname");
    assert_eq!(error("metadata.name['a']"), "fieldPath \"metadata.name\" does not support subscript");
    assert_eq!(error("metadata.labels['a"), "unsupported fieldPath: metadata.labels['a");
    let volume = metadata_field(&pod, "status.podIP").unwrap_err();
    assert_eq!(volume, DownwardError::UnsupportedField("status.podIP".to_owned()));
}

#[test]
fn a_pod_without_addresses_shows_none() {
    let pod = pod();
    let facts = Facts { pod: &pod, addresses: &[], host_addresses: &[], allocatable: None };
    assert_eq!(facts.field("status.podIP"), Ok(String::new()));
    assert_eq!(facts.field("status.podIPs"), Ok(String::new()));
}

fn resource(pod: &Pod, selector: Value) -> Result<String, DownwardError> {
    let allocatable = allocatable();
    let facts = Facts { pod, addresses: &[], host_addresses: &[], allocatable: Some(&allocatable) };
    facts.resource_of(&serde_json::from_value(selector).unwrap())
}

#[test]
fn resources_are_divided_and_rounded_up() {
    let check = |resource_name: &str, divisor: Option<&str>, expected: &str| {
        let selector = json!({"containerName": "app", "resource": resource_name, "divisor": divisor});
        assert_eq!(resource(&pod(), selector), Ok(expected.to_owned()), "{resource_name} {divisor:?}");
    };
    check("limits.cpu", None, "2");
    check("limits.cpu", Some("0"), "2");
    check("limits.cpu", Some("1m"), "1500");
    check("requests.cpu", None, "1");
    check("requests.cpu", Some("1m"), "250");
    check("limits.memory", None, "100000000");
    check("limits.memory", Some("1Mi"), "96");
    check("requests.memory", Some("1Ki"), "1");
    check("limits.hugepages-2Mi", Some("1Mi"), "4");
    check("requests.ephemeral-storage", None, "0");
    check("limits.ephemeral-storage", None, "5000");
}

#[test]
fn a_limit_that_is_not_set_is_the_pods_or_the_nodes() {
    let free = |name: &str| json!({"containerName": "free", "resource": name});
    assert_eq!(resource(&pod(), free("limits.cpu")).unwrap(), "2");
    assert_eq!(resource(&pod(), free("limits.memory")).unwrap(), "3221225472");
    assert_eq!(resource(&pod(), free("requests.memory")).unwrap(), "0");
    let mut limited = pod();
    let spec = limited.spec.as_mut().unwrap();
    spec.resources = Some(serde_json::from_value(json!({"limits": {"memory": "64Mi"}})).unwrap());
    assert_eq!(resource(&limited, free("limits.memory")).unwrap(), "67108864");
    assert_eq!(resource(&limited, free("limits.cpu")).unwrap(), "2");
    let initial = json!({"containerName": "first", "resource": "limits.memory", "divisor": "1Gi"});
    assert_eq!(resource(&pod(), initial).unwrap(), "1");
}

#[test]
fn what_is_no_resource_is_named() {
    let error = |container: &str, name: &str| {
        resource(&pod(), json!({"containerName": container, "resource": name})).unwrap_err().to_string()
    };
    assert_eq!(error("app", "limits.gpu"), "unsupported container resource : limits.gpu");
    assert_eq!(error("app", "cpu"), "unsupported container resource : cpu");
    assert_eq!(error("app", "usage.cpu"), "unsupported container resource : usage.cpu");
    assert_eq!(error("gone", "limits.cpu"), "container gone not found");
}
