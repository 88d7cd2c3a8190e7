//! The variables of containers, from every source, and what becomes of a pod that lacks one.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service};
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::scene::Scene;
use crate::{guests, manifests, states};

fn config_map(name: &str, data: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

fn secret(name: &str, data: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data})
}

/// The variables a guest printed.
async fn variables(scene: &Scene<'_>, pod: &str) -> BTreeMap<String, String> {
    let log = scene.logs(pod, &[]).await.unwrap();
    let lines = log.lines().filter_map(|line| line.strip_prefix("env ")?.split_once('='));
    lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Variables from each kind of source.
fn every_source() -> Value {
    let field = |path: &str| json!({"fieldRef": {"fieldPath": path}});
    json!([
        {"name": "ONE", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "size"}}},
        {"name": "TWO", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "password"}}},
        {"name": "NONE", "valueFrom": {"secretKeyRef": {"name": "gone", "key": "k", "optional": true}}},
        {"name": "NAME", "valueFrom": field("metadata.name")},
        {"name": "UID", "valueFrom": field("metadata.uid")},
        {"name": "NODE", "valueFrom": field("spec.nodeName")},
        {"name": "ACCOUNT", "valueFrom": field("spec.serviceAccountName")},
        {"name": "LABEL", "valueFrom": field("metadata.labels['absent']")},
        {"name": "NAMESPACE", "valueFrom": field("metadata.namespace")},
        {"name": "NOTE", "valueFrom": field("metadata.annotations['absent']")},
        {"name": "HOSTS", "valueFrom": field("status.hostIPs")},
        {"name": "PODS", "valueFrom": field("status.podIPs")},
        {"name": "HOST", "valueFrom": field("status.hostIP")},
        {"name": "POD", "valueFrom": field("status.podIP")},
        {"name": "MEMORY", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
        {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
        {"name": "ASKED", "valueFrom": {"resourceFieldRef": {"resource": "requests.cpu", "divisor": "1m"}}},
        {"name": "DISK", "valueFrom": {"resourceFieldRef": {"resource": "requests.ephemeral-storage"}}},
        {"name": "BOTH", "value": "$(ONE)-$(P_colour)-$(MY_DB_SERVICE_PORT_SQL)"},
    ])
}

#[tokio::test]
async fn variables_come_from_every_source() {
    let scene = Scene::new("sources").await.unwrap();
    let image = guests::image("env-rust").await.unwrap();
    scene
        .create::<ConfigMap>(config_map("settings", &json!({"colour": "blue", "size": "big"})))
        .await
        .unwrap();
    scene.create::<Secret>(secret("keys", &json!({"password": "hunter2"}))).await.unwrap();
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "my-db"},
        "spec": {"ports": [{"name": "sql", "port": 5432}]},
    });
    let service = scene.create::<Service>(service).await.unwrap();
    let env = every_source();
    let env_from =
        json!([{"prefix": "P_", "configMapRef": {"name": "settings"}}, {"secretRef": {"name": "keys"}}]);
    let resources = json!({"limits": {"memory": "64Mi"}, "requests": {"cpu": "150m"}});
    let container = json!({"image": image, "env": env, "envFrom": env_from, "resources": resources});
    let pod = scene.run_until("p", manifests::of("Never", &container), states::has_ended).await.unwrap();
    assert_eq!(states::exit(&pod), Some((0, "Completed")));

    let found = variables(&scene, "p").await;
    let status = pod.status.as_ref().unwrap();
    let node = scene.node_object().await.unwrap();
    let cores = node.status.unwrap().allocatable.unwrap()["cpu"].0.clone();
    let address = service.spec.unwrap().cluster_ip.unwrap();
    let expected = [
        ("ONE", "big"),
        ("TWO", "hunter2"),
        ("P_colour", "blue"),
        ("password", "hunter2"),
        ("NAME", "p"),
        ("UID", &pod.uid().unwrap()),
        ("NODE", scene.node.name()),
        ("ACCOUNT", "default"),
        ("LABEL", ""),
        ("NOTE", ""),
        ("NAMESPACE", &scene.namespace),
        ("HOSTS", status.host_ip.as_deref().unwrap()),
        ("PODS", status.pod_ip.as_deref().unwrap()),
        ("ASKED", "150"),
        ("DISK", "0"),
        ("HOST", status.host_ip.as_deref().unwrap()),
        ("POD", status.pod_ip.as_deref().unwrap()),
        ("MEMORY", "64"),
        ("CPU", &cores),
        ("BOTH", "big-blue-5432"),
        ("HOSTNAME", "p"),
        ("MY_DB_SERVICE_HOST", &address),
        ("MY_DB_PORT", &format!("tcp://{address}:5432")),
        ("KUBERNETES_SERVICE_PORT", "443"),
    ];
    for (name, value) in expected {
        assert_eq!(found.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert!(!found.contains_key("NONE") && !found.contains_key("size"), "{found:?}");
    assert!(!scene.node.log().unwrap().contains("hunter2"));
}

#[tokio::test]
async fn who_wants_no_links_sees_no_services_but_the_api_server() {
    let scene = Scene::new("links").await.unwrap();
    let image = guests::image("env-rust").await.unwrap();
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "db"}, "spec": {"ports": [{"port": 1}]},
    });
    scene.create::<Service>(service).await.unwrap();
    let mut spec = manifests::once(&image, &[]);
    spec["enableServiceLinks"] = json!(false);
    scene.run_until("p", spec, states::has_ended).await.unwrap();
    let found = variables(&scene, "p").await;
    assert!(
        found.contains_key("KUBERNETES_SERVICE_HOST") && !found.contains_key("DB_SERVICE_HOST"),
        "{found:?}"
    );
}

#[tokio::test]
async fn a_container_waits_for_what_it_lacks_and_starts_when_it_appears() {
    let scene = Scene::new("lacks").await.unwrap();
    let image = guests::image("env-rust").await.unwrap();
    let variable = |kind: &str| json!([{"name": "V", "valueFrom": {kind: {"name": "late", "key": "k"}}}]);
    let container = |kind: &str| manifests::of("Never", &json!({"image": image, "env": variable(kind)}));
    let waits = |message: String| {
        move |pod: &Pod| {
            let waiting = states::waiting(pod);
            waiting.is_some_and(|waiting| {
                waiting.reason.as_deref() == Some("CreateContainerConfigError")
                    && waiting.message.as_deref() == Some(&message)
            })
        }
    };
    scene.run("map", container("configMapKeyRef")).await.unwrap();
    scene.run("secret", container("secretKeyRef")).await.unwrap();
    for (pod, kind) in [("map", "configmap"), ("secret", "secret")] {
        let message = format!("{kind} \"late\" not found");
        scene.pod(pod, waits(message.clone())).await.unwrap();
        scene.event(pod, "Failed", &format!("Error: {message}")).await.unwrap();
    }
    scene.create::<ConfigMap>(config_map("late", &json!({"other": "x"}))).await.unwrap();
    scene.create::<Secret>(secret("late", &json!({"other": "x"}))).await.unwrap();
    for (pod, kind) in [("map", "ConfigMap"), ("secret", "Secret")] {
        let message = format!("couldn't find key k in {kind} {}/late", scene.namespace);
        scene.pod(pod, waits(message)).await.unwrap();
    }
    let patch = |field: &str| Patch::Merge(json!({field: {"k": "here"}}));
    let parameters = PatchParams::default();
    scene.api::<ConfigMap>().patch("late", &parameters, &patch("data")).await.unwrap();
    scene.api::<Secret>().patch("late", &parameters, &patch("stringData")).await.unwrap();
    for pod in ["map", "secret"] {
        let ended = scene.pod(pod, states::has_ended).await.unwrap();
        assert_eq!(states::exit(&ended), Some((0, "Completed")));
        assert_eq!(variables(&scene, pod).await["V"], "here");
    }
}
