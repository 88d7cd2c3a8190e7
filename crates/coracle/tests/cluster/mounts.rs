//! Scratch space, the node's own paths, parts of volumes, and what containers find in `/etc` and `/dev`.

use std::collections::BTreeMap;
use std::fs;

use coracle_testing::NodeOptions;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use serde_json::{Value, json};

use crate::files::{outcomes, ran, spec};
use crate::scene::{Scene, options};
use crate::states;

#[track_caller]
fn fails(found: &BTreeMap<String, String>, commands: &[&str]) {
    for command in commands {
        assert!(found[*command].starts_with("error"), "{command}: {found:?}");
    }
}

#[tokio::test]
async fn scratch_space_is_shared_nested_and_left_by_no_link() {
    let scene = Scene::new("scratch").await.unwrap();
    let volumes =
        json!([{"name": "disk", "emptyDir": {}}, {"name": "memory", "emptyDir": {"medium": "Memory"}}]);
    let mounts = json!([
        {"name": "disk", "mountPath": "/data"}, {"name": "disk", "mountPath": "/again", "readOnly": true},
        {"name": "memory", "mountPath": "/data/deep/memory"}, {"name": "disk", "mountPath": "/part", "subPath": "a/b"},
    ]);
    let escapes = [
        "symlink ../../../../../../../../etc /data/up",
        "symlink /etc /data/absolute",
        "read /data/up/passwd",
        "read /data/absolute/passwd",
        "read /data/../../../../../etc/passwd",
        "write /data/up/coracle-was-here x",
    ];
    let mut commands = vec![
        "list /",
        "list /data",
        "write /data/file text",
        "read /again/file",
        "write /again/file other",
        "write /data/deep/memory/file in-memory",
        "read /data/deep/memory/file",
        "list /data/deep/memory",
        "write /part/file of-part",
        "read /data/a/b/file",
        "rename /data/file /data/moved",
        "read /again/moved",
        "hardlink /data/moved /data/linked",
        "read /data/linked",
        "hardlink /data/moved /again/linked",
    ];
    commands.extend(escapes);
    let pod_spec = spec(volumes, mounts, &commands).await;
    let found = ran(&scene, "p", pod_spec).await;
    let root: Vec<_> = found["list /"].split(' ').collect();
    for name in ["again", "data", "dev", "etc", "part", "tmp", "var"] {
        assert!(root.contains(&name), "{name}: {root:?}");
    }
    let expected = [
        ("list /data", "a deep"),
        ("read /again/file", "text"),
        ("read /data/deep/memory/file", "in-memory"),
        ("list /data/deep/memory", "file"),
        ("read /data/a/b/file", "of-part"),
        ("read /again/moved", "text"),
        ("read /data/linked", "text"),
    ];
    for (command, outcome) in expected {
        assert_eq!(found[command], outcome, "{command}");
    }
    fails(&found, &["write /again/file other", "hardlink /data/moved /again/linked"]);
    fails(&found, &escapes[2..]);
    assert!(!fs::exists("/etc/coracle-was-here").unwrap());
}

#[tokio::test]
async fn scratch_space_outlives_a_container_and_not_its_pod() {
    let scene = Scene::new("scratch-lives").await.unwrap();
    let commands =
        ["read /data/file", "list /tmp", "write /data/file kept", "write /tmp/file gone", "exit 1"];
    let mut pod_spec =
        spec(json!([{"name": "v", "emptyDir": {}}]), json!([{"name": "v", "mountPath": "/data"}]), &commands)
            .await;
    pod_spec["restartPolicy"] = "OnFailure".into();
    let pod = scene.run_until("p", pod_spec, |pod: &Pod| states::restarts(pod) > 0).await.unwrap();
    let log = scene.logs("p", &[]).await.unwrap();
    assert!(log.contains("read /data/file: kept\nlist /tmp: \n"), "{log}");
    let directory = scene.pod_directory(&pod).join("volumes");
    assert!(directory.exists());
    scene.delete("p", Some(1)).await.unwrap();
    scene.gone("p").await.unwrap();
    assert!(!directory.exists());
}

#[tokio::test]
async fn who_fills_a_bounded_volume_is_evicted() {
    let scene = Scene::new("bounded").await.unwrap();
    for medium in ["", "Memory"] {
        let name = format!("fills-{}", medium.to_lowercase().len());
        let volumes = json!([{"name": "v", "emptyDir": {"medium": medium, "sizeLimit": "1Mi"}}]);
        let commands = ["fill /data/file 3000000", "sleep 600"];
        let pod_spec = spec(volumes, json!([{"name": "v", "mountPath": "/data"}]), &commands).await;
        let pod = scene.run_until(&name, pod_spec, states::has_ended).await.unwrap();
        let status = pod.status.unwrap();
        assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Failed"), Some("Evicted")));
        let message = "Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". ";
        assert_eq!(status.message.as_deref(), Some(message));
        scene.event(&name, "Evicted", message).await.unwrap();
    }
}

#[tokio::test]
async fn paths_of_the_machine_are_given_where_the_operator_allows_it() {
    let open = tempfile::tempdir().unwrap();
    let prefix = open.path().canonicalize().unwrap();
    fs::create_dir(prefix.join("data")).unwrap();
    fs::write(prefix.join("data/file"), "of the machine").unwrap();
    std::os::unix::fs::symlink("/etc", prefix.join("data/out")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        prefix.join("data/pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    let arguments = vec!["--allowed-host-path".to_owned(), prefix.display().to_string()];
    let options = NodeOptions { arguments, ..options("host-paths").await.unwrap() };
    let scene = Scene::with(coracle_testing::Cluster::shared().await.unwrap(), options).await.unwrap();
    let path = |path: &str, kind: &str| json!([{"name": "v", "hostPath": {"path": prefix.join(path), "type": kind}}]);
    let mount = json!([{"name": "v", "mountPath": "/v"}]);

    let commands = ["read /v/file", "write /v/new by-guest", "read /v/out/passwd", "list /v"];
    let found = ran(&scene, "given", spec(path("data", "Directory"), mount.clone(), &commands).await).await;
    assert_eq!(found["read /v/file"], "of the machine");
    assert_eq!(fs::read_to_string(prefix.join("data/new")).unwrap(), "by-guest");
    fails(&found, &["read /v/out/passwd"]);

    let read_only = json!([
        {"name": "v", "mountPath": "/v", "readOnly": true, "recursiveReadOnly": "Enabled"},
        {"name": "v", "mountPath": "/etc/one.conf", "subPath": "file", "readOnly": true},
    ]);
    let commands = ["write /v/file x", "remove /v/file", "read /etc/one.conf", "write /etc/one.conf x"];
    found_read_only(&scene, spec(path("data", ""), read_only, &commands).await).await;
    assert_eq!(fs::read_to_string(prefix.join("data/file")).unwrap(), "of the machine");

    let refused = [
        ("outside", json!([{"name": "v", "hostPath": {"path": "/etc"}}]), "is not allowed on this node"),
        ("link", path("data/out", ""), "is not allowed on this node"),
        ("no-file", path("data", "File"), "hostPath type check failed"),
        ("missing", path("none", "Directory"), "is not a directory"),
    ];
    for (name, volumes, message) in refused {
        scene.run(name, spec(volumes, mount.clone(), &["list /v"]).await).await.unwrap();
        scene.event(name, "FailedMount", message).await.unwrap();
    }
    let pipe = spec(path("data/pipe", ""), mount, &["list /v"]).await;
    let waits = |pod: &Pod| states::waiting_reason(pod) == "CreateContainerConfigError";
    scene.run_until("pipe", pipe, waits).await.unwrap();
}

async fn found_read_only(scene: &Scene<'_>, spec: Value) {
    let pod = scene.run_until("read-only", spec, states::has_ended).await.unwrap();
    let found = outcomes(scene, "read-only").await;
    fails(&found, &["write /v/file x", "remove /v/file"]);
    assert_eq!(found["read /etc/one.conf"], "of the machine");
    let mounts = states::status(&pod).unwrap().volume_mounts.clone().unwrap();
    assert_eq!(mounts[0].recursive_read_only.as_deref(), Some("Enabled"));
}

#[tokio::test]
async fn parts_of_volumes_are_given_by_name_and_by_variable() {
    let scene = Scene::new("parts").await.unwrap();
    let settings = json!({"data": {"app.conf": "colour=blue"}, "metadata": {"name": "settings"}});
    scene.create::<ConfigMap>(settings).await.unwrap();
    let volumes =
        json!([{"name": "work", "emptyDir": {}}, {"name": "settings", "configMap": {"name": "settings"}}]);
    let mounts = json!([
        {"name": "settings", "mountPath": "/etc/app/app.conf", "subPath": "app.conf"},
        {"name": "work", "mountPath": "/mine", "subPathExpr": "pods/$(NAME)"},
        {"name": "work", "mountPath": "/all"},
    ]);
    let commands = ["read /etc/app/app.conf", "list /etc/app", "write /mine/file x", "list /all/pods/p"];
    let mut pod_spec = spec(volumes.clone(), mounts, &commands).await;
    let name = json!([{"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]);
    pod_spec["containers"][0]["env"] = name;
    let found = ran(&scene, "p", pod_spec).await;
    assert_eq!(found["read /etc/app/app.conf"], "colour=blue");
    assert_eq!([&found["list /etc/app"], &found["list /all/pods/p"]], ["app.conf", "file"]);

    let missing = json!([{"name": "work", "mountPath": "/v", "subPathExpr": "$(NOTHING)"}]);
    let waits = |pod: &Pod| states::waiting_reason(pod) == "CreateContainerConfigError";
    let pod = scene.run_until("missing", spec(volumes, missing, &[]).await, waits).await.unwrap();
    assert_eq!(states::waiting(&pod).unwrap().message.as_deref(), Some("missing value for NOTHING"));
}

#[tokio::test]
async fn containers_know_their_names_and_the_clusters_name_servers() {
    let arguments =
        ["--cluster-dns", "10.96.0.10", "--cluster-domain", "example.org"].map(str::to_owned).into();
    let options = NodeOptions { arguments, ..options("names").await.unwrap() };
    let scene = Scene::with(coracle_testing::Cluster::shared().await.unwrap(), options).await.unwrap();
    let commands = ["read /etc/hosts", "read /etc/hostname", "read /etc/resolv.conf"];
    let mut pod_spec = spec(json!([]), json!([]), &commands).await;
    pod_spec["hostname"] = "db".into();
    pod_spec["subdomain"] = "peers".into();
    pod_spec["hostAliases"] = json!([{"ip": "192.0.2.1", "hostnames": ["other", "another"]}]);
    pod_spec["dnsConfig"] = json!({"options": [{"name": "ndots", "value": "2"}]});
    let pod = scene.run_until("p", pod_spec, states::has_ended).await.unwrap();
    let (log, namespace) = (scene.logs("p", &[]).await.unwrap(), &scene.namespace);
    let address = pod.status.unwrap().pod_ip.unwrap();
    for part in [
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n".to_owned(),
        format!("{address}\tdb.peers.{namespace}.svc.example.org\tdb\n"),
        "# Entries added by HostAliases.\n192.0.2.1\tother\tanother\n".to_owned(),
        "read /etc/hostname: db\n".to_owned(),
        format!("search {namespace}.svc.example.org svc.example.org example.org"),
        "nameserver 10.96.0.10\noptions ndots:2\n".to_owned(),
    ] {
        assert!(log.contains(&part), "{part}: {log}");
    }
}

#[tokio::test]
async fn last_words_are_told() {
    let scene = Scene::new("last-words").await.unwrap();
    let commands = ["write /dev/termination-log it broke", "write /dev/null x", "size /dev/null", "exit 3"];
    let pod =
        scene.run_until("p", spec(json!([]), json!([]), &commands).await, states::has_ended).await.unwrap();
    assert_eq!(states::terminated(&pod).unwrap().message.as_deref(), Some("it broke"));
    assert_eq!(outcomes(&scene, "p").await["write /dev/null x"], "ok");
    let commands = ["write /dev/termination-log kept", "write /file x", "write /dev/null x"];
    let mut read_only = spec(json!([]), json!([]), &commands).await;
    read_only["containers"][0]["securityContext"] = json!({"readOnlyRootFilesystem": true});
    let pod = scene.run_until("read-only", read_only, states::has_ended).await.unwrap();
    assert_eq!(states::terminated(&pod).unwrap().message.as_deref(), Some("kept"));
    fails(&outcomes(&scene, "read-only").await, &["write /file x"]);
    let mut falls_back = spec(json!([]), json!([]), &["list /nowhere", "exit 3"]).await;
    falls_back["containers"][0]["terminationMessagePolicy"] = "FallbackToLogsOnError".into();
    let pod = scene.run_until("log", falls_back, states::has_ended).await.unwrap();
    let message = states::terminated(&pod).unwrap().message.clone().unwrap();
    assert!(message.starts_with("list /nowhere: error: ") && message.ends_with('\n'), "{message}");
}

#[tokio::test]
async fn variables_come_from_a_file_that_a_container_wrote() {
    let scene = Scene::new("env-files").await.unwrap();
    let volumes = json!([{"name": "work", "emptyDir": {}}]);
    let mounts = json!([{"name": "work", "mountPath": "/work"}]);
    let commands = ["read /work/$(FROM_FILE)", "write /work/env FROM_FILE='env'", "exit 1"];
    let mut pod_spec = spec(volumes, mounts, &commands).await;
    pod_spec["restartPolicy"] = "OnFailure".into();
    let file = json!({"volumeName": "work", "path": "env", "key": "FROM_FILE", "optional": true});
    pod_spec["containers"][0]["env"] = json!([{"name": "FROM_FILE", "valueFrom": {"fileKeyRef": file}}]);
    scene.run_until("p", pod_spec, |pod: &Pod| states::restarts(pod) > 0).await.unwrap();
    let log = scene.logs("p", &[]).await.unwrap();
    assert!(log.contains("read /work/env: FROM_FILE='env'\n"), "{log}");
}
