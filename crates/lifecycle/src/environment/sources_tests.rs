#![expect(clippy::needless_pass_by_value, reason = "what `json!` makes is passed on as it is")]

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::*;

fn given() -> Given {
    let config_map = json!({"data": {"colour": "blue", "size": "$(colour)"}});
    let secret = json!({"data": {"password": "aHVudGVyMg==", "bytes": "/w==", "zero": "YQBi"}});
    let open = json!({"data": {"user": "cm9vdA=="}});
    let mut services = Variables::default();
    services.set("DB_SERVICE_HOST", "10.0.0.5".to_owned());
    Given {
        objects: Objects {
            config_maps: [("settings".to_owned(), Arc::new(serde_json::from_value(config_map).unwrap()))]
                .into(),
            secrets: [("keys", secret), ("open", open)]
                .map(|(name, secret)| (name.to_owned(), Arc::new(serde_json::from_value(secret).unwrap())))
                .into(),
        },
        files: [("A='one'", "env"), ("broken", "bad")]
            .map(|(content, path)| (("work".to_owned(), path.to_owned()), content.as_bytes().to_vec()))
            .into(),
        services,
    }
}

fn resolve(container: Value) -> Result<Vec<(String, String)>, EnvironmentError> {
    let mut container = container;
    container["name"] = "app".into();
    let pod = json!({
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"containers": [container, {"name": "other", "resources": {"limits": {"cpu": "3"}}}]},
    });
    let pod: Pod = serde_json::from_value(pod).unwrap();
    let facts = Facts { pod: &pod, addresses: &[], host_addresses: &[], allocatable: None };
    variables(&facts, &pod.container("app").unwrap(), &given()).map(Into::into)
}

#[track_caller]
fn check(container: Value, expected: &[(&str, &str)]) {
    let service = ("DB_SERVICE_HOST", "10.0.0.5");
    let expected = [expected, &[service]].concat();
    let expected: Vec<_> =
        expected.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    assert_eq!(resolve(container), Ok(expected));
}

#[track_caller]
fn error(container: Value, expected: &str) {
    assert_eq!(resolve(container).unwrap_err().to_string(), expected);
}

fn from(source: &str, reference: Value) -> Value {
    json!({"env": [{"name": "V", "valueFrom": {source: reference}}]})
}

#[test]
fn variables_see_those_before_them_and_of_services() {
    let env = json!([
        {"name": "B", "value": "$(A)"}, {"name": "A", "value": "1"}, {"name": "C", "value": "$(A)$(B)"},
        {"name": "A", "value": "$(A)2"}, {"name": "D", "value": "$(DB_SERVICE_HOST)"}, {"name": "E"},
    ]);
    check(json!({"env": env}), &[("B", "$(A)"), ("A", "12"), ("C", "1$(A)"), ("D", "10.0.0.5"), ("E", "")]);
}

#[test]
fn whole_objects_come_first_and_are_overridden() {
    let env_from = json!([
        {"configMapRef": {"name": "settings"}}, {"prefix": "X_", "secretRef": {"name": "open"}},
        {"configMapRef": {"name": "gone", "optional": true}}, {"secretRef": {"name": "gone", "optional": true}},
    ]);
    let env = json!([{"name": "colour", "value": "red and $(X_user)"}]);
    check(
        json!({"envFrom": env_from, "env": env}),
        &[("colour", "red and root"), ("size", "$(colour)"), ("X_user", "root")],
    );
}

#[test]
fn every_source_of_one_value() {
    check(from("configMapKeyRef", json!({"name": "settings", "key": "size"})), &[("V", "$(colour)")]);
    check(from("secretKeyRef", json!({"name": "keys", "key": "password"})), &[("V", "hunter2")]);
    check(from("fieldRef", json!({"fieldPath": "metadata.name"})), &[("V", "web")]);
    check(from("resourceFieldRef", json!({"resource": "requests.cpu"})), &[("V", "0")]);
    let other = json!({"containerName": "other", "resource": "limits.cpu", "divisor": "1m"});
    check(from("resourceFieldRef", other), &[("V", "3000")]);
    check(from("fileKeyRef", json!({"volumeName": "work", "path": "env", "key": "A"})), &[("V", "one")]);
}

#[test]
fn what_is_optional_and_missing_sets_nothing() {
    let optional = |source: &str, mut reference: Value| {
        reference["optional"] = true.into();
        check(from(source, reference), &[]);
    };
    optional("configMapKeyRef", json!({"name": "gone", "key": "k"}));
    optional("configMapKeyRef", json!({"name": "settings", "key": "k"}));
    optional("secretKeyRef", json!({"name": "gone", "key": "k"}));
    optional("secretKeyRef", json!({"name": "keys", "key": "k"}));
    optional("fileKeyRef", json!({"volumeName": "work", "path": "gone", "key": "A"}));
    optional("fileKeyRef", json!({"volumeName": "work", "path": "env", "key": "B"}));
}

#[test]
fn what_is_mandatory_and_missing_is_named_as_the_kubelet_names_it() {
    error(from("configMapKeyRef", json!({"name": "gone", "key": "k"})), "configmap \"gone\" not found");
    error(from("secretKeyRef", json!({"name": "gone", "key": "k"})), "secret \"gone\" not found");
    let missing = |source: &str, name: &str| from(source, json!({"name": name, "key": "k"}));
    error(missing("configMapKeyRef", "settings"), "couldn't find key k in ConfigMap shop/settings");
    error(missing("secretKeyRef", "keys"), "couldn't find key k in Secret shop/keys");
    error(json!({"envFrom": [{"configMapRef": {"name": "gone"}}]}), "configmap \"gone\" not found");
    error(json!({"envFrom": [{"secretRef": {"name": "gone"}}]}), "secret \"gone\" not found");
    let file =
        |path: &str, key: &str| from("fileKeyRef", json!({"volumeName": "work", "path": path, "key": key}));
    error(file("gone", "A"), "couldn't find the env file gone in volume \"work\"");
    error(file("env", "B"), "couldn't find key B in the env file env of volume \"work\"");
    error(
        file("bad", "B"),
        "couldn't parse the env file bad of volume \"work\": line 1: not of the form NAME='value'",
    );
    error(from("fieldRef", json!({"fieldPath": "status.phase"})), "unsupported fieldPath: status.phase");
    error(
        json!({"env": [{"name": "V", "valueFrom": {}}]}),
        "env \"V\": a source of this kind is not supported by this node",
    );
}

#[test]
fn a_value_that_is_no_text_is_refused_without_being_told() {
    for key in ["bytes", "zero"] {
        let expected =
            format!("key {key} in Secret shop/keys is not text, as an environment variable has to be");
        error(from("secretKeyRef", json!({"name": "keys", "key": key})), &expected);
    }
    error(
        json!({"envFrom": [{"secretRef": {"name": "keys"}}]}),
        "key bytes in Secret shop/keys is not text, as an environment variable has to be",
    );
}

#[test]
fn what_a_container_refers_to() {
    let container = json!({
        "name": "app",
        "envFrom": [{"configMapRef": {"name": "a"}}, {"secretRef": {"name": "b"}}],
        "env": [
            {"name": "1", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}},
            {"name": "2", "valueFrom": {"secretKeyRef": {"name": "d", "key": "k"}}},
            {"name": "3", "valueFrom": {"fileKeyRef": {"volumeName": "v", "path": "p", "key": "k"}}},
            {"name": "4", "value": "x"},
        ],
    });
    let container: Container = serde_json::from_value(container).unwrap();
    let names = object_names(&container);
    assert_eq!(names.config_maps.iter().collect::<Vec<_>>(), ["a", "c"]);
    assert_eq!(names.secrets.iter().collect::<Vec<_>>(), ["b", "d"]);
    assert_eq!(file_references(&container), [("v".to_owned(), "p".to_owned())].into());
}
