//! What Kubernetes' own tests of a node ask of volumes, variables and names, with guests in the place of their images. Modes are
//! looked at on the node, because WASI shows a guest none.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::files::{outcomes, ran, spec};
use crate::scene::Scene;
use crate::states;

async fn config_map(scene: &Scene<'_>, name: &str, data: Value) {
    scene.create::<ConfigMap>(json!({"metadata": {"name": name}, "data": data})).await.unwrap();
}

async fn secret(scene: &Scene<'_>, name: &str, data: Value) {
    scene.create::<Secret>(json!({"metadata": {"name": name}, "stringData": data})).await.unwrap();
}

/// A spec with these volumes, each mounted at its name.
async fn mounted(volumes: Value, commands: &[&str]) -> Value {
    let names = volumes.as_array().unwrap().iter().map(|volume| volume["name"].as_str().unwrap().to_owned());
    let mounts = names.map(|name| json!({"name": name, "mountPath": format!("/{name}")})).collect();
    spec(volumes, mounts, commands).await
}

fn projected(name: &str, sources: &Value) -> Value {
    json!({"name": name, "projected": {"sources": sources}})
}

/// The paths, modes and groups of a volume's files, as they lie on the node.
fn modes(volume: &Path) -> BTreeMap<String, (u32, u32)> {
    let (mut found, mut left) = (BTreeMap::new(), vec![volume.join("..data")]);
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::metadata(&path).unwrap();
            if metadata.is_dir() {
                assert_eq!(metadata.permissions().mode() & 0o777, 0o700, "{}", path.display());
                left.push(path);
            } else {
                let name = path.strip_prefix(volume.join("..data")).unwrap().display().to_string();
                found.insert(name, (metadata.permissions().mode() & 0o777, metadata.gid()));
            }
        }
    }
    found
}

/// `[NodeConformance]` defaultMode, item mode and fsGroup of config maps, secrets, the downward API and projections.
#[tokio::test]
async fn files_have_the_modes_they_were_given() {
    let scene = Scene::new("modes").await.unwrap();
    config_map(&scene, "map", json!({"a": "1", "b": "2"})).await;
    secret(&scene, "keys", json!({"a": "1"})).await;
    let items = json!([{"key": "a", "path": "deep/a", "mode": 0o400}, {"key": "b", "path": "b"}]);
    let token = json!({"serviceAccountToken": {"path": "token", "expirationSeconds": 600}});
    let name = json!({"path": "name", "fieldRef": {"fieldPath": "metadata.name"}, "mode": 0o440});
    let volumes = json!([
        {"name": "plain", "configMap": {"name": "map"}},
        {"name": "items", "configMap": {"name": "map", "defaultMode": 0o640, "items": items}},
        {"name": "secret", "secret": {"secretName": "keys", "defaultMode": 0o400}},
        {"name": "shows", "downwardAPI": {"items": [name]}},
        {"name": "all", "projected": {"defaultMode": 0o600, "sources": [{"secret": {"name": "keys"}}]}},
        {"name": "token", "projected": {"sources": [token]}},
    ]);
    let own = rustix::process::getgid().as_raw();
    let group = if rustix::process::geteuid().is_root() { 1234 } else { own };
    let expected = |items_a: u32, secret: u32, all: u32, token: u32, items_b: u32| {
        [
            ("configmap/plain", vec![("a", 0o644), ("b", 0o644)]),
            ("configmap/items", vec![("b", items_b), ("deep/a", items_a)]),
            ("secret/secret", vec![("a", secret)]),
            ("downward-api/shows", vec![("name", 0o440)]),
            ("projected/all", vec![("a", all)]),
            ("projected/token", vec![("token", token)]),
        ]
    };
    for (name, context, group, expected) in [
        ("plain", json!({}), own, expected(0o400, 0o400, 0o600, 0o644, 0o640)),
        ("group", json!({"fsGroup": group}), group, expected(0o440, 0o440, 0o640, 0o640, 0o640)),
        ("user", json!({"runAsUser": 1000}), own, expected(0o400, 0o400, 0o600, 0o600, 0o640)),
    ] {
        let mut pod = mounted(volumes.clone(), &["sleep 600"]).await;
        pod["securityContext"] = context;
        let pod = scene.run_until(name, pod, states::is_running).await.unwrap();
        for (volume, files) in expected {
            let place = scene.pod_directory(&pod).join(format!("volumes/kubernetes.io~{volume}"));
            let files = files.into_iter().map(|(file, mode)| (file.to_owned(), (mode, group)));
            assert_eq!(modes(&place), files.collect(), "{name}: {volume}");
        }
    }
}

/// `[NodeConformance]` "optional updates should be reflected in volume", for config maps and secrets, plain and projected.
#[tokio::test]
async fn what_is_optional_comes_changes_and_goes() {
    let scene = Scene::new("optional").await.unwrap();
    for name in ["goes", "changes"] {
        config_map(&scene, name, json!({"data": "one"})).await;
        secret(&scene, name, json!({"data": "one"})).await;
    }
    let (mut volumes, mut commands) = (Vec::new(), Vec::new());
    for name in ["goes", "changes", "comes"] {
        let named = json!({"name": name, "optional": true});
        volumes.extend([
            json!({"name": format!("map-{name}"), "configMap": named}),
            json!({"name": format!("secret-{name}"), "secret": {"secretName": name, "optional": true}}),
            projected(&format!("pmap-{name}"), &json!([{"configMap": named}])),
            projected(&format!("psecret-{name}"), &json!([{"secret": named}])),
        ]);
        let until = if name == "goes" { "No such file or directory (os error 44)" } else { "two" };
        for kind in ["map", "secret", "pmap", "psecret"] {
            commands.push(format!("follow /{kind}-{name}/data {until}"));
        }
    }
    commands.push("list /map-goes".to_owned());
    let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
    scene.run_until("p", mounted(json!(volumes), &commands).await, states::is_running).await.unwrap();
    scene.api::<ConfigMap>().delete("goes", &DeleteParams::default()).await.unwrap();
    scene.api::<Secret>().delete("goes", &DeleteParams::default()).await.unwrap();
    let two = Patch::Merge(json!({"data": {"data": "two"}}));
    scene.api::<ConfigMap>().patch("changes", &PatchParams::default(), &two).await.unwrap();
    let two = Patch::Merge(json!({"stringData": {"data": "two"}}));
    scene.api::<Secret>().patch("changes", &PatchParams::default(), &two).await.unwrap();
    config_map(&scene, "comes", json!({"data": "two"})).await;
    secret(&scene, "comes", json!({"data": "two"})).await;
    scene.pod("p", states::has_ended).await.unwrap();
    let found = outcomes(&scene, "p").await;
    assert!(!found["list /map-goes"].contains("data "), "{found:?}");
    assert_eq!(
        commands.iter().filter(|command| found.get(**command).is_some_and(|said| said == "ok")).count(),
        12
    );
}

/// What is used and not optional stays as it was when it is deleted, and goes on when it is there again. What is immutable is
/// not looked at again.
#[tokio::test]
async fn what_is_deleted_while_it_is_used_stays() {
    let scene = Scene::new("deleted").await.unwrap();
    config_map(&scene, "used", json!({"data": "one"})).await;
    let fixed = json!({"metadata": {"name": "fixed"}, "immutable": true, "data": {"data": "for-ever"}});
    scene.create::<ConfigMap>(fixed).await.unwrap();
    let volumes = json!([
        {"name": "used", "configMap": {"name": "used"}}, {"name": "fixed", "configMap": {"name": "fixed"}},
    ]);
    let commands = ["follow /used/data two", "read /fixed/data"];
    let pod = scene.run_until("p", mounted(volumes, &commands).await, states::is_running).await.unwrap();
    for name in ["used", "fixed"] {
        scene.api::<ConfigMap>().delete(name, &DeleteParams::default()).await.unwrap();
    }
    let message = "MountVolume.SetUp failed for volume \"used\" : configmap \"used\" not found";
    scene.event("p", "FailedMount", message).await.unwrap();
    let used = scene.pod_directory(&pod).join("volumes/kubernetes.io~configmap/used/data");
    assert_eq!(fs::read_to_string(used).unwrap(), "one");
    assert!(states::is_running(&scene.api::<Pod>().get("p").await.unwrap()));
    config_map(&scene, "used", json!({"data": "two"})).await;
    scene.pod("p", states::has_ended).await.unwrap();
    let log = scene.logs("p", &[]).await.unwrap();
    assert!(log.contains("/used/data holds one\n/used/data holds two\n"), "{log}");
    assert_eq!(outcomes(&scene, "p").await["read /fixed/data"], "for-ever");
}

/// `[NodeConformance]` "should fail", "should be pending": each source that is missing is named, and the pod goes on when it is
/// there.
#[tokio::test]
async fn every_source_that_is_missing_is_named_and_awaited() {
    let scene = Scene::new("missing").await.unwrap();
    let item = |key: &str| json!([{"key": key, "path": "f"}]);
    let volume = |name: &str, source: Value| {
        let mut volume = source;
        volume["name"] = name.into();
        volume
    };
    let cases = [
        ("map", json!({"configMap": {"name": "late"}}), "configmap \"late\" not found"),
        ("secret", json!({"secret": {"secretName": "late"}}), "secret \"late\" not found"),
        (
            "key",
            json!({"configMap": {"name": "there", "items": item("k")}}),
            "configmap references non-existent config key: k",
        ),
        (
            "secret-key",
            json!({"secret": {"secretName": "there", "items": item("k")}}),
            "references non-existent secret key: k",
        ),
        (
            "both",
            json!({"projected": {"sources": [
                {"configMap": {"name": "late"}}, {"secret": {"name": "there", "items": item("k")}},
            ]}}),
            "[configmap \"late\" not found, references non-existent secret key: k]",
        ),
    ];
    config_map(&scene, "there", json!({"other": "x"})).await;
    secret(&scene, "there", json!({"other": "x"})).await;
    for (name, source, _) in &cases {
        scene.run(name, mounted(json!([volume("v", source.clone())]), &["list /v"]).await).await.unwrap();
    }
    // A volume that no container mounts is nobody's business.
    let mut unused =
        mounted(json!([volume("v", json!({"secret": {"secretName": "never"}}))]), &["list /"]).await;
    unused["containers"][0]["volumeMounts"] = json!([]);
    scene.run_until("unused", unused, states::has_ended).await.unwrap();
    for (name, _, message) in &cases {
        let message = format!("MountVolume.SetUp failed for volume \"v\" : {message}");
        let event = scene.event(name, "FailedMount", &message).await.unwrap();
        assert_eq!(
            (event.message.as_deref(), event.type_.as_deref()),
            (Some(message.as_str()), Some("Warning"))
        );
        let pod = scene.pod(name, |pod| states::waiting_reason(pod) == "ContainerCreating").await.unwrap();
        assert_eq!(states::phase(&pod), "Pending");
    }
    config_map(&scene, "late", json!({"k": "x"})).await;
    secret(&scene, "late", json!({"k": "x"})).await;
    let key = |field: &str| Patch::Merge(json!({field: {"k": "x"}}));
    scene.api::<ConfigMap>().patch("there", &PatchParams::default(), &key("data")).await.unwrap();
    scene.api::<Secret>().patch("there", &PatchParams::default(), &key("stringData")).await.unwrap();
    for (name, ..) in &cases {
        scene.pod(name, states::has_ended).await.unwrap();
    }
}

/// `[NodeConformance]` "should update labels on modification", "should update annotations on modification", limits and what
/// stands for them.
#[tokio::test]
async fn the_downward_api_follows_the_pod() {
    let scene = Scene::new("downward").await.unwrap();
    let field = |path: &str, field: &str| json!({"path": path, "fieldRef": {"fieldPath": field}});
    let resource = |path: &str, resource: &str, divisor: &str| {
        let reference = json!({"containerName": "app", "resource": resource, "divisor": divisor});
        json!({"path": path, "resourceFieldRef": reference})
    };
    let items = json!([
        field("labels", "metadata.labels"),
        field("one", "metadata.labels['one']"),
        field("annotations", "metadata.annotations"),
        field("uid", "metadata.uid"),
        resource("cpu", "limits.cpu", "1m"),
        resource("memory", "limits.memory", "1"),
        resource("asked", "requests.memory", "1Mi"),
        resource("node", "limits.ephemeral-storage", "1"),
    ]);
    let volumes = json!([{"name": "v", "downwardAPI": {"items": items}}, projected("w", &json!([{"downwardAPI": {"items": [field("one", "metadata.labels['one']")]}}]))]);
    let commands = [
        "read /v/annotations",
        "read /v/labels",
        "read /v/uid",
        "read /v/cpu",
        "read /v/memory",
        "read /v/asked",
        "read /v/node",
        "follow /v/one two",
        "follow /w/one two",
        "follow /v/annotations note=\"a \\\"b\\\"\\n\"",
    ];
    let mut pod = mounted(volumes, &commands).await;
    pod["containers"][0]["resources"] =
        json!({"limits": {"cpu": "1250m", "memory": "64Mi"}, "requests": {"memory": "32Mi"}});
    let metadata =
        json!({"name": "p", "labels": {"one": "1", "another": "x"}, "annotations": {"note": "first"}});
    let pod = json!({"metadata": metadata, "spec": scene.placed(pod)});
    let pod = scene.create::<Pod>(pod).await.unwrap();
    scene.pod("p", states::is_running).await.unwrap();
    let change = json!({"metadata": {"labels": {"one": "two"}, "annotations": {"note": "a \"b\"\n"}}});
    scene.api::<Pod>().patch("p", &PatchParams::default(), &Patch::Merge(change)).await.unwrap();
    scene.pod("p", states::has_ended).await.unwrap();
    let log = scene.logs("p", &[]).await.unwrap();
    assert!(log.contains("read /v/labels: another=\"x\"\none=\"1\"\n"), "{log}");
    let found = outcomes(&scene, "p").await;
    let node = scene.node_object().await.unwrap().status.unwrap().allocatable.unwrap();
    let disk = coracle_lifecycle::quantity::whole(&node["ephemeral-storage"]).unwrap().to_string();
    for (command, outcome) in [
        ("read /v/annotations", "note=\"first\""),
        ("read /v/uid", pod.metadata.uid.as_deref().unwrap()),
        ("read /v/cpu", "1250"),
        ("read /v/memory", "67108864"),
        ("read /v/asked", "32"),
        ("read /v/node", &disk),
    ] {
        assert_eq!(found[command], outcome, "{command}");
    }
}

/// `[NodeConformance]` Variable Expansion: composition, arguments, commands, parts of volumes by variables, and a part that comes to
/// be known when the pod is changed.
#[tokio::test]
async fn variables_expand_also_in_parts_of_volumes_and_later() {
    let scene = Scene::new("expansion").await.unwrap();
    let variables = json!([
        {"name": "FOO", "value": "foo-value"}, {"name": "BAR", "value": "bar-value"},
        {"name": "FOOBAR", "value": "$(FOO);;$(BAR)"}, {"name": "ESCAPED", "value": "$$(FOO)-$(NONE)-$(LATER)"},
        {"name": "LATER", "value": "x"},
        {"name": "PART", "valueFrom": {"fieldRef": {"fieldPath": "metadata.annotations['part']"}}},
    ]);
    let mounts = json!([
        {"name": "v", "mountPath": "/part", "subPathExpr": "$(PART)/$(FOO)"}, {"name": "v", "mountPath": "/all"},
    ]);
    let commands = ["write /part/$(FOO) $(FOOBAR) $(ESCAPED)", "read /all/deep/foo-value/foo-value"];
    let mut pod = spec(json!([{"name": "v", "emptyDir": {}}]), mounts, &commands).await;
    pod["containers"][0]["env"] = variables.clone();
    let waits = |pod: &Pod| {
        states::waiting_reason(pod) == "CreateContainerConfigError"
            && states::waiting(pod).unwrap().message.as_deref() == Some("missing value for PART")
    };
    scene.run_until("p", pod.clone(), waits).await.unwrap();
    let part = Patch::Merge(json!({"metadata": {"annotations": {"part": "deep"}}}));
    scene.api::<Pod>().patch("p", &PatchParams::default(), &part).await.unwrap();
    scene.pod("p", states::has_ended).await.unwrap();
    let found = outcomes(&scene, "p").await;
    assert_eq!(found["read /all/deep/foo-value/foo-value"], "foo-value;;bar-value $(FOO)-$(NONE)-$(LATER)");
    for (name, value, message) in [
        ("absolute", "/tmp", "error SubPath `/tmp` must not be an absolute path"),
        ("back", "..", "unable to provision SubPath `..`: must not contain '..'"),
    ] {
        pod["containers"][0]["env"] = json!([{"name": "PART", "value": value}]);
        pod["containers"][0]["volumeMounts"][0]["subPathExpr"] = "$(PART)".into();
        let waits = |pod: &Pod| states::waiting_reason(pod) == "CreateContainerConfigError";
        let seen = scene.run_until(name, pod.clone(), waits).await.unwrap();
        assert_eq!(states::waiting(&seen).unwrap().message.as_deref(), Some(message));
        scene.event(name, "Failed", &format!("Error: {message}")).await.unwrap();
    }
}

/// `[NodeConformance]` Subpath: atomic writer volumes, a file over one of the image's directories' own, and no updates.
#[tokio::test]
async fn parts_of_every_kind_of_content_are_mounted_and_stay_as_they_were() {
    let scene = Scene::new("subpaths").await.unwrap();
    config_map(&scene, "map", json!({"file": "map"})).await;
    secret(&scene, "keys", json!({"file": "secret"})).await;
    let name = json!({"path": "deep/file", "fieldRef": {"fieldPath": "metadata.name"}});
    let volumes = json!([
        {"name": "map", "configMap": {"name": "map"}}, {"name": "secret", "secret": {"secretName": "keys"}},
        {"name": "shows", "downwardAPI": {"items": [name]}},
        projected("all", &json!([{"configMap": {"name": "map", "items": [{"key": "file", "path": "deep/er/file"}]}}])),
    ]);
    let mounts = json!([
        {"name": "map", "mountPath": "/etc/hosts", "subPath": "file"},
        {"name": "secret", "mountPath": "/one/secret", "subPath": "file"},
        {"name": "shows", "mountPath": "/shows", "subPath": "deep"},
        {"name": "all", "mountPath": "/all", "subPath": "deep/er"}, {"name": "map", "mountPath": "/whole"},
    ]);
    let commands = [
        "follow /whole/file changed",
        "read /etc/hosts",
        "read /one/secret",
        "read /shows/file",
        "read /all/file",
        "write /all/file x",
        "write /shows/new x",
    ];
    let pod = spec(volumes, mounts, &commands).await;
    scene.run_until("p", pod, states::is_running).await.unwrap();
    let changed = Patch::Merge(json!({"data": {"file": "changed"}}));
    scene.api::<ConfigMap>().patch("map", &PatchParams::default(), &changed).await.unwrap();
    scene.pod("p", states::has_ended).await.unwrap();
    let found = outcomes(&scene, "p").await;
    for (command, outcome) in [
        ("read /etc/hosts", "map"),
        ("read /one/secret", "secret"),
        ("read /shows/file", "p"),
        ("read /all/file", "map"),
    ] {
        assert_eq!(found[command], outcome, "{command}");
    }
    for command in ["write /all/file x", "write /shows/new x"] {
        assert!(found[command].starts_with("error"), "{command}: {found:?}");
    }
}

/// `[NodeConformance]` names that are too long, and whole names as host names.
#[tokio::test]
async fn whole_names_are_host_names_where_they_are_short_enough() {
    let scene = Scene::new("fqdn").await.unwrap();
    let mut pod = spec(json!([]), json!([]), &["read /etc/hostname"]).await;
    pod["setHostnameAsFQDN"] = true.into();
    pod["hostname"] = "h".into();
    pod["subdomain"] = "s".into();
    let found = ran(&scene, "short", pod.clone()).await;
    assert_eq!(found["read /etc/hostname"], format!("h.s.{}.svc.cluster.local", scene.namespace));
    pod["hostname"] = "h".repeat(50).into();
    scene.run("long", pod).await.unwrap();
    let message = "Failed to create pod sandbox: failed to construct FQDN from pod hostname and cluster domain, FQDN hhh";
    scene.event("long", "FailedCreatePodSandBox", message).await.unwrap();
    let pod = scene.pod("long", |pod| states::waiting_reason(pod) == "ContainerCreating").await.unwrap();
    assert_eq!(states::phase(&pod), "Pending");
}

/// `[NodeConformance]` `EmptyDir`: "pod should support shared volumes between containers", and two containers with different
/// rights to one.
#[tokio::test]
async fn containers_share_a_volume_each_with_its_own_rights() {
    let scene = Scene::new("shared").await.unwrap();
    let volumes = json!([{"name": "v", "emptyDir": {}}, {"name": "m", "emptyDir": {"medium": "Memory", "sizeLimit": "8Mi"}}]);
    let mounts = |read_only: bool| {
        json!([
            {"name": "v", "mountPath": "/v", "readOnly": read_only}, {"name": "m", "mountPath": "/m", "readOnly": read_only},
        ])
    };
    let reads = [
        "follow /v/file shared",
        "follow /m/file in-memory",
        "write /v/own x",
        "write /m/own x",
        "remove /m/file",
    ];
    let mut pod = spec(volumes, mounts(true), &reads).await;
    let mut writer = pod["containers"][0].clone();
    writer["name"] = "writer".into();
    writer["volumeMounts"] = mounts(false);
    writer["args"] = json!(["write /v/file shared", "write /m/file in-memory"]);
    pod["containers"].as_array_mut().unwrap().push(writer);
    scene.run_until("p", pod, states::has_ended).await.unwrap();
    let log = scene.logs("p", &["--container=app"]).await.unwrap();
    for command in &reads[..2] {
        assert!(log.contains(&format!("{command}: ok\n")), "{log}");
    }
    for command in &reads[2..] {
        assert!(log.contains(&format!("{command}: error: ")), "{log}");
    }
}

/// `[NodeConformance]` Sysctls.
#[tokio::test]
async fn a_parameter_of_the_kernel_is_seen_by_its_container() {
    let scene = Scene::new("sysctls").await.unwrap();
    let read = "read /proc/sys/kernel/shm_rmid_forced";
    let mut pod = spec(json!([]), json!([]), &[read]).await;
    pod["securityContext"] = json!({"sysctls": [{"name": "kernel.shm_rmid_forced", "value": "1"}]});
    scene.run_until("p", pod, states::has_ended).await.unwrap();
    assert_eq!(outcomes(&scene, "p").await[read], "1");
}

/// `[NodeConformance]` `KubeletManagedEtcHosts` and DNS: whose file is whose, and exactly what is in it.
#[tokio::test]
async fn names_are_kept_by_the_node_unless_the_pod_brings_its_own() {
    let scene = Scene::new("etc-files").await.unwrap();
    config_map(&scene, "own", json!({"hosts": "127.0.0.1 mine"})).await;
    let commands = ["read /etc/hosts", "read /etc/resolv.conf", "append /etc/hosts x", "write /etc/new x"];
    let mut plain = spec(json!([{"name": "own", "configMap": {"name": "own"}}]), json!([]), &commands).await;
    plain["dnsPolicy"] = "None".into();
    plain["dnsConfig"] = json!({
        "nameservers": ["192.0.2.1"], "searches": ["resolv.conf.local"],
        "options": [{"name": "ndots", "value": "2"}, {"name": "debug"}],
    });
    let mut brings = plain["containers"][0].clone();
    brings["name"] = "brings".into();
    brings["volumeMounts"] = json!([{"name": "own", "mountPath": "/etc/hosts", "subPath": "hosts"}]);
    plain["containers"].as_array_mut().unwrap().push(brings);
    scene.run_until("plain", plain, states::has_ended).await.unwrap();
    let log = scene.logs("plain", &["--container=app"]).await.unwrap();
    assert!(log.starts_with("read /etc/hosts: # Kubernetes-managed hosts file.\n"), "{log}");
    let resolv =
        "read /etc/resolv.conf: search resolv.conf.local\nnameserver 192.0.2.1\noptions ndots:2 debug\n";
    assert!(log.contains(resolv), "{log}");
    assert!(log.contains("append /etc/hosts x: ok\nwrite /etc/new x: ok\n"), "{log}");
    let log = scene.logs("plain", &["--container=brings"]).await.unwrap();
    assert!(log.starts_with("read /etc/hosts: 127.0.0.1 mine\n"), "{log}");

    let mut host = spec(json!([]), json!([]), &["read /etc/hosts"]).await;
    host["hostNetwork"] = true.into();
    host["hostAliases"] = json!([{"ip": "192.0.2.7", "hostnames": ["foo", "bar"]}]);
    scene.run_until("host", host, states::has_ended).await.unwrap();
    let log = scene.logs("host", &[]).await.unwrap();
    assert!(log.starts_with("read /etc/hosts: # Kubernetes-managed hosts file (host network).\n"), "{log}");
    assert!(log.ends_with("\n# Entries added by HostAliases.\n192.0.2.7\tfoo\tbar\n"), "{log}");
}

/// `[NodeConformance]` Secrets and `ConfigMap` "should be consumable via the environment", with prefixes, keys that no shell
/// knows, what is optional, and which of two wins.
#[tokio::test]
async fn whole_objects_are_variables_in_their_order() {
    let scene = Scene::new("env-from").await.unwrap();
    config_map(&scene, "map", json!({"data-1": "map", "both": "map", "a.b": "dots"})).await;
    secret(&scene, "keys", json!({"data-1": "secret", "both": "secret"})).await;
    let mut pod =
        spec(json!([]), json!([]), &["read /$(p-data-1)/$(data-1)/$(both)/$(a.b)/$(LAST)/$(gone)"]).await;
    pod["containers"][0]["envFrom"] = json!([
        {"configMapRef": {"name": "map"}}, {"prefix": "p-", "secretRef": {"name": "keys"}},
        {"secretRef": {"name": "keys"}}, {"configMapRef": {"name": "gone", "optional": true}},
    ]);
    pod["containers"][0]["env"] = json!([
        {"name": "LAST", "value": "$(both)"}, {"name": "both", "value": "own"},
        {"name": "gone", "valueFrom": {"configMapKeyRef": {"name": "map", "key": "gone", "optional": true}}},
    ]);
    let found = ran(&scene, "p", pod.clone()).await;
    let (command, _) = found.iter().next().unwrap();
    assert_eq!(command, "read /secret/secret/own/dots/secret/$(gone)");
    pod["containers"][0]["envFrom"][3]["configMapRef"]["optional"] = false.into();
    let waits = |pod: &Pod| states::waiting_reason(pod) == "CreateContainerConfigError";
    let pod = scene.run_until("lacks", pod, waits).await.unwrap();
    assert_eq!(states::waiting(&pod).unwrap().message.as_deref(), Some("configmap \"gone\" not found"));
    config_map(&scene, "gone", json!({"late": "x"})).await;
    scene.pod("lacks", states::has_ended).await.unwrap();
}
