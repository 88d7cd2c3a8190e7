//! The node as a process without any right but those of its user.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use coracle_testing::registry::{Artifact, Files};
use coracle_testing::{Cluster, http, ports};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use serde_json::json;

use crate::scene::{Scene, options};
use crate::{files, guests, manifests, states, until};

/// A node whose process has no capability and can never get one again. It keeps its user, whose files the test has made.
async fn scene(name: &str, folder: &Path) -> Scene<'static> {
    let script = folder.join("without-rights");
    let program = env!("CARGO_BIN_EXE_coracle");
    let setpriv = "setpriv --bounding-set=-all --inh-caps=-all --ambient-caps=-all --no-new-privs";
    fs::write(&script, format!("#!/bin/sh\nexec {setpriv} '{program}' \"$@\"\n")).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let mut options = options(name).await.unwrap();
    // Without the right to change them, capabilities cannot be dropped, and there are none.
    if rustix::process::geteuid().is_root() {
        options.binary = script;
    }
    let scene = Scene::with(Cluster::shared().await.unwrap(), options).await.unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", scene.node.process_id())).unwrap();
    for set in ["CapPrm", "CapEff", "CapAmb"] {
        assert!(status.contains(&format!("{set}:\t0000000000000000\n")), "{status}");
    }
    scene
}

/// An image with a program that does things with files, and some files.
async fn image() -> String {
    let layer = Files::default()
        .file("bin/disk", &guests::wasm("disk-rust").unwrap())
        .link("bin/link", "/bin/disk")
        .file("data/one", b"of-the-image");
    let image = Artifact::image(vec![layer], &json!({"Entrypoint": ["/bin/link"]})).unwrap();
    guests::push("unprivileged", "v1", &image).await.unwrap()
}

#[tokio::test]
async fn pods_have_the_nodes_address_and_everything_else() {
    let folder = tempfile::tempdir().unwrap();
    let scene = scene("unprivileged", folder.path()).await;
    let conditions = scene.node_object().await.unwrap().status.unwrap().conditions.unwrap();
    let ready = conditions.into_iter().find(|condition| condition.type_ == "Ready").unwrap().message.unwrap();
    assert!(ready.contains("pods have the node's address"), "{ready}");

    let port = ports::free().unwrap();
    let server = guests::image("http-test-rust").await.unwrap();
    let server = manifests::of("Always", &json!({"image": server, "ports": [{"containerPort": port}]}));
    let pod = scene.run_until("server", server, states::is_running).await.unwrap();
    let address = pod.status.as_ref().unwrap().pod_ip.as_ref().unwrap();
    let address: IpAddr = address.parse().unwrap();
    assert_eq!(http::get((address, port).into(), "/count").await.unwrap().body, "1\n");

    scene.delete("server", None).await.unwrap();
    scene.gone("server").await.unwrap();
}

#[tokio::test]
async fn containers_have_their_files_and_volumes() {
    let folder = tempfile::tempdir().unwrap();
    let scene = scene("unprivileged-files", folder.path()).await;
    scene.create::<ConfigMap>(json!({"metadata": {"name": "c"}, "data": {"key": "first"}})).await.unwrap();
    scene
        .create::<Secret>(json!({"metadata": {"name": "s"}, "stringData": {"key": "hidden"}}))
        .await
        .unwrap();
    let volumes = json!([
        {"name": "c", "configMap": {"name": "c"}}, {"name": "s", "secret": {"secretName": "s"}},
        {"name": "disk", "emptyDir": {}}, {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        {"name": "i", "image": {"reference": image().await}},
        {"name": "d", "downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}},
    ]);
    let mounts = json!([
        {"name": "c", "mountPath": "/c"}, {"name": "s", "mountPath": "/s"}, {"name": "d", "mountPath": "/d"},
        {"name": "disk", "mountPath": "/disk"}, {"name": "memory", "mountPath": "/memory"},
        {"name": "i", "mountPath": "/i"}, {"name": "c", "mountPath": "/one", "subPath": "key"},
    ]);
    let token = "/var/run/secrets/kubernetes.io/serviceaccount";
    let list = format!("list {token}");
    let allowed = [
        ("read /c/key", "first"),
        ("read /s/key", "hidden"),
        ("read /d/name", "p"),
        ("read /one", "first"),
        ("read /i/data/one", "of-the-image"),
        ("read /data/one", "of-the-image"),
        (&*list, "..0 ..data ca.crt namespace token"),
    ];
    let written = ["write /data/one changed", "write /disk/a a", "write /memory/a a", "write /tmp/a a"];
    let refused = ["write /c/key x", "write /s/key x", "write /i/data/one x", "remove /i/data/one"];
    let commands: Vec<&str> =
        allowed.iter().map(|(command, _)| *command).chain(written).chain(refused).collect();
    let container = json!({"image": image().await, "args": commands, "volumeMounts": mounts});
    let mut spec = manifests::of("Never", &container);
    spec["volumes"] = volumes;
    for pod in ["p", "q"] {
        let found = files::ran(&scene, pod, spec.clone()).await;
        for (command, outcome) in allowed {
            let outcome = if command == "read /d/name" { pod } else { outcome };
            assert_eq!(found[command], outcome, "{command}: {found:?}");
        }
        for (commands, is_error) in [(&written[..], false), (&refused[..], true)] {
            for command in commands {
                assert_eq!(found[*command].starts_with("error"), is_error, "{command}: {found:?}");
            }
        }
    }
    let pod = scene.pod("p", states::has_ended).await.unwrap();
    let directory = scene.pod_directory(&pod);
    scene.delete("p", None).await.unwrap();
    scene.gone("p").await.unwrap();
    until::so("its directory is gone", || !directory.exists()).await.unwrap();
}
