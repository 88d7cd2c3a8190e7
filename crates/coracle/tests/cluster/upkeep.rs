//! Volumes while what they show appears, changes and goes, and mounts where an image has files, links or other mounts.

use std::fs;

use coracle_testing::registry::{Artifact, Files};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::files::{outcomes, ran, spec};
use crate::scene::Scene;
use crate::{guests, manifests, states};

async fn put(scene: &Scene<'_>, name: &str, data: Value) {
    scene.create::<ConfigMap>(json!({"metadata": {"name": name}, "data": data})).await.unwrap();
}

/// As Kubernetes' own end-to-end tests: one optional source goes, one changes, one appears, and a key goes.
#[tokio::test]
async fn optional_sources_come_and_go_while_a_guest_runs() {
    let scene = Scene::new("optional").await.unwrap();
    put(&scene, "goes", json!({"a": "1"})).await;
    put(&scene, "changes", json!({"b": "1", "lost": "1"})).await;
    let source = |name: &str| json!({"configMap": {"name": name, "optional": true}});
    let secret = json!({"secret": {"name": "appears-too", "optional": true}});
    let sources = json!([source("goes"), source("changes"), source("appears"), secret]);
    let volumes = json!([
        {"name": "all", "projected": {"sources": sources}},
        {"name": "map", "configMap": {"name": "appears", "optional": true}},
        {"name": "gone", "configMap": {"name": "goes", "optional": true}},
    ]);
    let mounts = json!([
        {"name": "all", "mountPath": "/all"}, {"name": "map", "mountPath": "/map"},
        {"name": "gone", "mountPath": "/gone"},
    ]);
    let commands = [
        "list /map",
        "follow /all/b 2",
        "follow /all/c 3",
        "follow /map/c 3",
        "follow /all/password word",
        "list /all",
        "list /gone",
    ];
    let pod_spec = spec(volumes, mounts, &commands).await;
    scene.run_until("p", pod_spec, states::is_running).await.unwrap();
    scene.api::<ConfigMap>().delete("goes", &DeleteParams::default()).await.unwrap();
    let changed = Patch::Merge(json!({"data": {"b": "2", "lost": null}}));
    scene.api::<ConfigMap>().patch("changes", &PatchParams::default(), &changed).await.unwrap();
    put(&scene, "appears", json!({"c": "3"})).await;
    let keys = json!({"metadata": {"name": "appears-too"}, "stringData": {"password": "word"}});
    scene.create::<Secret>(keys).await.unwrap();
    scene.pod("p", states::has_ended).await.unwrap();
    let found = outcomes(&scene, "p").await;
    for (command, outcome) in
        [("list /map", "..data"), ("list /all", "..data b c password"), ("list /gone", "..data")]
    {
        assert!(found[command].ends_with(outcome), "{command}: {found:?}");
    }
}

/// A part of a volume is what it was when its container started, and new when the container starts again.
#[tokio::test]
async fn a_part_of_a_volume_changes_with_the_next_start_only() {
    let scene = Scene::new("parts").await.unwrap();
    put(&scene, "settings", json!({"colour": "blue", "again": "no"})).await;
    let volumes = json!([{"name": "v", "configMap": {"name": "settings"}}]);
    let mounts = json!([
        {"name": "v", "mountPath": "/whole"}, {"name": "v", "mountPath": "/part/colour", "subPath": "colour"},
    ]);
    let commands = ["read /part/colour", "follow /whole/colour red", "read /part/colour", "exit 1"];
    let mut pod_spec = spec(volumes, mounts, &commands).await;
    pod_spec["restartPolicy"] = "OnFailure".into();
    scene.run_until("p", pod_spec, states::is_running).await.unwrap();
    let red = Patch::Merge(json!({"data": {"colour": "red"}}));
    scene.api::<ConfigMap>().patch("settings", &PatchParams::default(), &red).await.unwrap();
    let pod = scene.pod("p", |pod: &Pod| states::restarts(pod) > 0).await.unwrap();
    let first = fs::read_to_string(scene.log_file(&pod, "app", 0)).unwrap();
    assert_eq!(first.matches("read /part/colour: blue").count(), 2, "{first}");
    let waits = |pod: &Pod| states::waiting_reason(pod) == "CrashLoopBackOff" && states::restarts(pod) > 0;
    let pod = scene.pod("p", waits).await.unwrap();
    let second = fs::read_to_string(scene.log_file(&pod, "app", 1)).unwrap();
    assert_eq!(second.matches("read /part/colour: red").count(), 2, "{second}");
}

/// Where a path leads through links of the image, what is mounted there is found by both paths.
#[tokio::test]
async fn mounts_lie_over_what_an_image_has() {
    let scene = Scene::new("over-image").await.unwrap();
    put(&scene, "settings", json!({"colour": "blue"})).await;
    let program = guests::wasm("disk-rust").unwrap();
    let files = Files::default()
        .file("app.wasm", &program)
        .file("etc/app/of-image", b"image")
        .file("target/of-image", b"image")
        .link("linked", "/target")
        .link("dangling", "/nowhere/at/all")
        .link("var/run", "/run")
        .file("run/of-image", b"image");
    let image = Artifact::image(vec![files], &json!({"Entrypoint": ["/app.wasm"]})).unwrap();
    let image = guests::push("over", "v1", &image).await.unwrap();
    let expected = [
        ("read /etc/app/colour", "blue"),
        ("read /etc/app/of-image", "error"),
        ("read /linked/colour", "blue"),
        ("read /linked/of-image", "error"),
        ("read /target/colour", "blue"),
        ("read /target/of-image", "error"),
        ("read /dangling/colour", "blue"),
        ("read /var/run/sub/colour", "blue"),
        ("read /run/sub/colour", "blue"),
        ("read /run/sub/deep/colour", "blue"),
        ("write /run/sub/colour red", "error"),
        ("read /run/of-image", "image"),
        ("read /single", "blue"),
        ("read /run/single", "blue"),
        ("read /var/run/single", "blue"),
    ];
    let commands = expected.map(|(command, _)| command);
    let mounts: Vec<Value> = ["/etc/app", "/linked", "/dangling", "/var/run/sub", "/var/run/sub/deep"]
        .iter()
        .map(|path| json!({"name": "v", "mountPath": path}))
        .chain([
            json!({"name": "v", "mountPath": "/single", "subPath": "colour"}),
            json!({"name": "v", "mountPath": "/var/run/single", "subPath": "colour"}),
        ])
        .collect();
    let mut pod_spec =
        manifests::of("Never", &json!({"image": image, "args": commands, "volumeMounts": mounts}));
    pod_spec["volumes"] = json!([{"name": "v", "configMap": {"name": "settings"}}]);
    let found = ran(&scene, "p", pod_spec).await;
    for (command, outcome) in expected {
        assert!(found[command].starts_with(outcome), "{command}: {found:?}");
    }
}
