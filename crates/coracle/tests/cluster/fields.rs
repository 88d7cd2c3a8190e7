//! The page that says what becomes of each field of a pod, against the API server's own description of a pod.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use coracle_testing::{Cluster, workspace};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::scene::Scene;
use crate::{guests, manifests, states};

/// One row of the page.
struct Row {
    field: String,
    is: String,
    tests: Vec<String>,
}

/// The words in backticks of a cell.
fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(ToOwned::to_owned).collect()
}

/// The page's rows by the type that their heading names.
fn rows(page: &str) -> BTreeMap<String, Vec<Row>> {
    let mut rows: BTreeMap<String, Vec<Row>> = BTreeMap::new();
    let mut heading = String::new();
    for line in page.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            title.clone_into(&mut heading);
        } else if line.starts_with("| `") {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let (field, is) = (quoted(cells[1]).remove(0), cells[2].to_owned());
            rows.entry(heading.clone()).or_default().push(Row { field, is, tests: quoted(cells[4]) });
        }
    }
    rows
}

/// The sources of all crates, one after the other.
fn sources(folder: &Path, into: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push_str(&std::fs::read_to_string(&path).unwrap());
        }
    }
}

/// What the API server says that a type of the core API has.
async fn description(cluster: &Cluster) -> Value {
    let request = http::Request::get("/openapi/v3/api/v1").body(Vec::new()).unwrap();
    cluster.admin().await.unwrap().request(request).await.unwrap()
}

#[tokio::test]
async fn the_page_of_fields_has_them_all_and_names_their_tests() {
    let description = description(Cluster::shared().await.unwrap()).await;
    let page = std::fs::read_to_string(workspace().join("docs/pod-fields.md")).unwrap();
    let mut code = String::new();
    sources(&workspace().join("crates"), &mut code);
    let rows = rows(&page);
    assert!(rows.contains_key("PodSpec") && rows.contains_key("Container"));
    for (kind, rows) in rows {
        let schema =
            &description["components"]["schemas"][format!("io.k8s.api.core.v1.{kind}")]["properties"];
        let known: BTreeSet<&str> = schema.as_object().unwrap().keys().map(String::as_str).collect();
        let listed: Vec<&str> = rows.iter().map(|row| row.field.as_str()).collect();
        assert_eq!(listed, known.into_iter().collect::<Vec<_>>(), "the rows of {kind}");
        for Row { field, is, tests } in &rows {
            assert!(["works", "accepted", "refused", "later"].contains(&is.as_str()), "{kind}.{field}: {is}");
            assert!(!tests.is_empty(), "{kind}.{field} names no test");
            for test in tests {
                assert!(code.contains(&format!("fn {test}(")), "{kind}.{field}: there is no test {test}");
            }
        }
    }
}

#[tokio::test]
async fn everything_that_is_accepted_runs() {
    let scene = Scene::new("accepts").await.unwrap();
    let image = guests::image("hello").await.unwrap();
    let container = json!({
        "image": image, "stdin": true, "stdinOnce": true, "tty": true,
        "terminationMessagePath": "/dev/elsewhere",
        "ports": [{"name": "web", "containerPort": 80}],
        "resizePolicy": [{"resourceName": "cpu", "restartPolicy": "NotRequired"}],
        "securityContext": {
            "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "procMount": "Default",
            "readOnlyRootFilesystem": true, "runAsGroup": 1000, "runAsNonRoot": true, "runAsUser": 1000,
            "seLinuxOptions": {"level": "s0:c123,c456"}, "seccompProfile": {"type": "RuntimeDefault"},
            "appArmorProfile": {"type": "RuntimeDefault"},
        },
    });
    let mut spec = manifests::of("Never", &container);
    for (field, value) in [
        ("dnsPolicy", json!("None")),
        ("dnsConfig", json!({"nameservers": ["192.0.2.53"], "searches": ["example.com"]})),
        ("hostUsers", json!(false)),
        ("hostname", json!("boat")),
        ("subdomain", json!("fleet")),
        ("preemptionPolicy", json!("PreemptLowerPriority")),
        ("schedulerName", json!("default-scheduler")),
        ("runtimeClassName", json!("accepted")),
        // Alpha: an API server that does not know it drops it.
        ("schedulingGroup", json!({"podGroupName": "group"})),
        ("shareProcessNamespace", json!(true)),
        ("topologySpreadConstraints", spread()),
        ("securityContext", security_context()),
    ] {
        spec[field] = value;
    }
    let class = json!({"metadata": {"name": "accepted"}, "handler": "wasmtime"});
    let class: RuntimeClass = serde_json::from_value(class).unwrap();
    Api::all(scene.client.clone()).create(&PostParams::default(), &class).await.unwrap();
    let pod = scene.run_until("modest", spec, states::has_ended).await.unwrap();
    assert_eq!(states::phase(&pod), "Succeeded", "{:?}", pod.status);
    assert_eq!(scene.logs("modest", &[]).await.unwrap(), "hello from a guest\n");
}

#[tokio::test]
async fn a_pod_of_a_foreign_runtime_class_waits() {
    let scene = Scene::new("foreign-class").await.unwrap();
    let class = json!({"metadata": {"name": "foreign"}, "handler": "unconfigured"});
    let class: RuntimeClass = serde_json::from_value(class).unwrap();
    Api::all(scene.client.clone()).create(&PostParams::default(), &class).await.unwrap();
    let mut spec = manifests::once(&guests::image("hello").await.unwrap(), &[]);
    spec["runtimeClassName"] = json!("foreign");
    scene.run("foreign", spec).await.unwrap();
    let why = "RuntimeHandler \"unconfigured\" not supported";
    scene.event("foreign", "FailedCreatePodSandBox", why).await.unwrap();
    let waits = |pod: &Pod| states::waiting_reason(pod) == "ContainerCreating";
    let pod = scene.pod("foreign", waits).await.unwrap();
    assert_eq!((states::phase(&pod), states::restarts(&pod)), ("Pending", 0));
    scene.delete("foreign", None).await.unwrap();
}

#[tokio::test]
async fn a_pod_with_a_gate_comes_when_it_is_open() {
    let scene = Scene::new("gated").await.unwrap();
    let image = guests::image("hello").await.unwrap();
    let mut spec = manifests::once(&image, &[]);
    spec["schedulingGates"] = json!([{"name": "example.com/wait"}]);
    let is_gated = |pod: &Pod| {
        let scheduled = states::condition(pod, "PodScheduled").and_then(|it| it.reason.clone());
        scheduled.as_deref() == Some("SchedulingGated")
    };
    scene.run_until("gated", spec, is_gated).await.unwrap();
    let open = Patch::Json::<()>(
        serde_json::from_value(json!([{"op": "remove", "path": "/spec/schedulingGates"}])).unwrap(),
    );
    scene.api::<Pod>().patch("gated", &PatchParams::default(), &open).await.unwrap();
    scene.pod("gated", states::has_ended).await.unwrap();
}

fn spread() -> Value {
    json!([{
        "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {"app": "modest"}},
    }])
}

fn security_context() -> Value {
    json!({
        "fsGroup": 1000, "fsGroupChangePolicy": "OnRootMismatch", "runAsGroup": 1000, "runAsNonRoot": true,
        "runAsUser": 1000, "seLinuxOptions": {"level": "s0:c123,c456"}, "seccompProfile": {"type": "RuntimeDefault"},
        "seLinuxChangePolicy": "Recursive", "supplementalGroups": [2000], "supplementalGroupsPolicy": "Merge",
        "sysctls": [{"name": "kernel.shm_rmid_forced", "value": "1"}],
    })
}
