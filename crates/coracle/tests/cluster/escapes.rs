//! Guests that try to leave what they were given, on each kind of volume.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use coracle_testing::registry::{Artifact, Files};
use coracle_testing::{Cluster, NodeOptions};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::{Value, json};

use crate::scene::{Scene, options};
use crate::{files, guests, manifests, states};

/// A file that nobody may make, wherever a guest gets to.
const TRACE: &str = "coracle-escaped";

/// A node whose operator lets pods have one directory, in which there are links out of it and a pipe.
async fn scene(name: &str) -> (Scene<'static>, tempfile::TempDir) {
    let open = tempfile::tempdir().unwrap();
    let prefix = open.path().canonicalize().unwrap();
    let data = prefix.join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("file"), "x").unwrap();
    symlink("/etc", data.join("planted")).unwrap();
    symlink("../../../../../../../../../../etc", data.join("planted-up")).unwrap();
    mknodat(CWD, data.join("pipe"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    let arguments = vec!["--allowed-host-path".to_owned(), prefix.display().to_string()];
    let options = NodeOptions { arguments, ..options(name).await.unwrap() };
    (Scene::with(Cluster::shared().await.unwrap(), options).await.unwrap(), open)
}

/// One volume of each kind.
async fn volumes(host: &Path) -> BTreeMap<&'static str, Value> {
    let files = Files::default()
        .file("file", b"x")
        .link("planted", "/etc")
        .link("planted-up", "../../../../../../../../../../etc");
    let image = Artifact::image(vec![files], &json!({})).unwrap();
    let image = guests::push("links", "v1", &image).await.unwrap();
    let items = json!([{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]);
    [
        ("empty", json!({"emptyDir": {}})),
        ("memory", json!({"emptyDir": {"medium": "Memory"}})),
        ("map", json!({"configMap": {"name": "settings"}})),
        ("secret", json!({"secret": {"secretName": "keys"}})),
        ("shows", json!({"downwardAPI": {"items": items}})),
        ("all", json!({"projected": {"sources": [{"configMap": {"name": "settings"}}]}})),
        ("host", json!({"hostPath": {"path": host}})),
        ("read-only", json!({"hostPath": {"path": host}})),
        ("image", json!({"image": {"reference": image}})),
    ]
    .into()
}

/// What a guest tries with the directory at `at`: links are made where it may write, and nothing may come of the rest.
fn tries(at: &str) -> (Vec<String>, Vec<String>) {
    let up = "../../../../../../../../../../..";
    let links = vec![format!("symlink {up}/etc {at}/up"), format!("symlink /etc {at}/absolute")];
    let mut rest = vec![
        format!("read {at}/{up}/etc/passwd"),
        format!("list {at}/.."),
        format!("write {at}/{up}/tmp/{TRACE} x"),
        format!("hardlink {at}/{up}/etc/passwd /passwd"),
    ];
    for link in ["up", "absolute", "planted", "planted-up"] {
        rest.extend([
            format!("read {at}/{link}/passwd"),
            format!("list {at}/{link}"),
            format!("write {at}/{link}/{TRACE} x"),
            format!("mkdir {at}/{link}/{TRACE}"),
        ]);
    }
    (links, rest)
}

#[tokio::test]
async fn no_guest_leaves_a_volume_of_any_kind() {
    let (scene, open) = scene("escapes").await;
    let settings = json!({"data": {"colour": "blue"}, "metadata": {"name": "settings"}});
    scene.create::<ConfigMap>(settings).await.unwrap();
    let keys = json!({"stringData": {"password": "hunter2"}, "metadata": {"name": "keys"}});
    scene.create::<Secret>(keys).await.unwrap();
    let host = open.path().canonicalize().unwrap().join("data");
    let volumes = volumes(&host).await;
    let (mut commands, mut refused) = (vec!["write /own x".to_owned()], Vec::new());
    for kind in volumes.keys() {
        let (links, rest) = tries(&format!("/{kind}"));
        commands.extend(links);
        refused.extend(rest);
    }
    // Another name in a directory that a guest may write to would make a file that it only reads its own.
    for file in ["map/colour", "secret/password", "shows/name", "all/colour", "image/file", "read-only/file"]
    {
        refused.extend([format!("hardlink /{file} /taken"), format!("rename /{file} /taken")]);
    }
    commands.extend(refused.iter().cloned());
    let mount = |kind: &&str| json!({"name": kind, "mountPath": format!("/{kind}"), "readOnly": *kind == "read-only"});
    let mounts: Vec<Value> = volumes.keys().map(mount).collect();
    let image = guests::image("disk-rust").await.unwrap();
    let mut spec = manifests::of("Never", &json!({"image": image, "args": commands, "volumeMounts": mounts}));
    let named = volumes.into_iter().map(|(kind, mut source)| {
        source["name"] = kind.into();
        source
    });
    spec["volumes"] = named.collect();
    let pod = scene.run_until("p", spec, states::has_ended).await.unwrap();
    assert_eq!(states::exit(&pod), Some((0, "Completed")));
    let log = scene.logs("p", &[]).await.unwrap();
    let found: BTreeMap<&str, &str> = log.lines().filter_map(|line| line.split_once(": ")).collect();
    assert_eq!(found["write /own x"], "ok");
    for command in &refused {
        assert!(found[command.as_str()].starts_with("error"), "{command}: {}", found[command.as_str()]);
    }
    for directory in ["/etc", "/tmp", "/"] {
        assert!(!Path::new(directory).join(TRACE).exists(), "{directory}");
    }
}

#[tokio::test]
async fn who_waits_for_a_pipe_for_ever_can_be_ended() {
    let (scene, open) = scene("pipes").await;
    let image = guests::image("disk-rust").await.unwrap();
    let mounts = json!([{"name": "v", "mountPath": "/v"}]);
    let host = open.path().canonicalize().unwrap().join("data");
    let volumes = json!([{"name": "v", "hostPath": {"path": host}}]);
    let spec = files::spec(volumes, mounts, &["read /v/pipe"]).await;
    scene.run_until("p", spec, |pod| states::is_running(pod) || states::has_ended(pod)).await.unwrap();
    let other = manifests::once(&image, &["list /"]);
    scene.run_until("q", other, states::has_ended).await.unwrap();
    scene.delete("p", Some(1)).await.unwrap();
    scene.gone("p").await.unwrap();
}
