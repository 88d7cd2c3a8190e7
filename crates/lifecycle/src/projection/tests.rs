#![expect(clippy::needless_pass_by_value, reason = "what `json!` makes is passed on as it is")]

use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::*;

fn pod(spec: Value) -> Pod {
    let metadata = json!({"name": "web", "namespace": "default", "uid": "u-1", "labels": {"a": "1"}});
    serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap()
}

/// A chain as a signer may give it, and what is left of it.
const CHAIN: &str = "leaf:\n-----BEGIN CERTIFICATE-----\nA: header\n\nBBBB\n-----END CERTIFICATE-----\nnext\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----";
const CLEAN: &str = "-----BEGIN CERTIFICATE-----\nBBBB\n-----END CERTIFICATE-----\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

fn fetched() -> Fetched {
    let map = |data: Value| serde_json::from_value::<ConfigMap>(json!({ "data": data })).unwrap();
    let mut binary = map(json!({"text": "t"}));
    binary.binary_data = Some([("bytes".to_owned(), ByteString(vec![0, 255]))].into());
    let secret = serde_json::from_value(json!({"data": {"key": "aHVudGVyMg=="}})).unwrap();
    let config_maps = [
        ("kube-root-ca.crt", map(json!({"ca.crt": "CA", "other": "no"}))),
        ("binary", binary),
        ("escape", map(json!({"../up": "no"}))),
    ];
    Fetched {
        objects: Objects {
            config_maps: config_maps.map(|(name, map)| (name.to_owned(), Arc::new(map))).into(),
            secrets: [("keys".to_owned(), Arc::new(secret))].into(),
        },
        tokens: vec!["first".to_owned(), "second".to_owned()],
        trust_bundles: vec![Some("PEM".to_owned()), None],
        certificates: vec![
            PodCertificate::new("KEY\n".to_owned(), CHAIN),
            PodCertificate::new("OTHER\n".to_owned(), ""),
        ],
    }
}

fn of_volume(pod: &Pod, volume: Value) -> Result<Files, ProjectionError> {
    let mut volume = volume;
    volume["name"] = "v".into();
    let facts = Facts { pod, addresses: &[], host_addresses: &[], allocatable: None };
    super::files(&facts, &serde_json::from_value(volume).unwrap(), &fetched()).unwrap()
}

fn files(source: Value) -> Result<Files, ProjectionError> {
    of_volume(&pod(json!({"containers": [{"name": "app"}]})), json!({ "projected": source }))
}

fn sources(sources: Value) -> Result<Files, ProjectionError> {
    files(json!({ "sources": sources }))
}

fn texts(files: &Files) -> Vec<(&str, String, u32)> {
    let text = |file: &File| String::from_utf8_lossy(&file.content).into_owned();
    files.iter().map(|(path, file)| (path.as_str(), text(file), file.mode)).collect()
}

/// The volume that admission gives to every ordinary pod.
#[test]
fn the_volume_of_the_service_account() {
    let volume = files(json!({
        "defaultMode": 420,
        "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
        ],
    }));
    let expected = [("ca.crt", "CA"), ("namespace", "default"), ("token", "first")];
    let expected = expected.map(|(path, text)| (path, text.to_owned(), 0o644));
    assert_eq!(texts(&volume.unwrap()), expected);
}

#[test]
fn tokens_come_in_the_order_of_their_sources_and_are_never_empty() {
    let token = |path: &str| json!({"serviceAccountToken": {"path": path}});
    let two = sources(json!([token("b"), token("a")])).unwrap();
    assert_eq!(two["b"].content, b"first");
    assert_eq!(two["a"].content, b"second");
    let three = sources(json!([token("b"), token("a"), token("c")]));
    assert_eq!(three, Err(ProjectionError::MissingToken("c".to_owned())));
}

#[test]
fn config_maps_whole_and_in_part() {
    let whole = sources(json!([{"configMap": {"name": "binary"}}])).unwrap();
    assert_eq!(whole["bytes"].content, [0, 255]);
    assert_eq!(whole["text"].content, b"t");
    let part = sources(json!([{"configMap": {"name": "binary", "items": [
        {"key": "bytes", "path": "deep/er/file", "mode": 256},
    ]}}]));
    let part = part.unwrap();
    assert_eq!(part.keys().collect::<Vec<_>>(), ["deep/er/file"]);
    assert_eq!(part["deep/er/file"].mode, 0o400);
}

#[test]
fn what_is_missing_is_named_unless_it_is_optional() {
    let map = |name: &str, key: &str, optional: bool| {
        sources(
            json!([{"configMap": {"name": name, "optional": optional, "items": [{"key": key, "path": "p"}]}}]),
        )
    };
    assert_eq!(map("absent", "k", true), Ok(Files::new()));
    assert_eq!(map("binary", "k", true), Ok(Files::new()));
    assert_eq!(map("absent", "k", false).unwrap_err().to_string(), "configmap \"absent\" not found");
    let missing = map("binary", "k", false).unwrap_err().to_string();
    assert_eq!(missing, "configmap references non-existent config key: k");
}

#[test]
fn no_path_leaves_the_volume() {
    let item = |path: &str| {
        sources(json!([{"configMap": {"name": "binary", "items": [{"key": "text", "path": path}]}}]))
    };
    for path in ["", "/etc/passwd", "..", "../x", "a/../../x", "a/..", "./a", "a//b", "a/", "..data", "a\0b"]
    {
        assert_eq!(item(path), Err(ProjectionError::InvalidPath(path.to_owned())), "{path:?}");
    }
    assert!(item("a..b/c").is_ok());
    let token = sources(json!([{"serviceAccountToken": {"path": "../token"}}]));
    assert_eq!(token, Err(ProjectionError::InvalidPath("../token".to_owned())));
    let keys = sources(json!([{"configMap": {"name": "escape"}}]));
    assert_eq!(keys, Err(ProjectionError::InvalidPath("../up".to_owned())));
    let field = sources(
        json!([{"downwardAPI": {"items": [{"path": "/x", "fieldRef": {"fieldPath": "metadata.uid"}}]}}]),
    );
    assert_eq!(field, Err(ProjectionError::InvalidPath("/x".to_owned())));
}

#[test]
fn fields_and_amounts_of_the_pod() {
    let items = json!([
        {"path": "name", "fieldRef": {"fieldPath": "metadata.name"}},
        {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}, "mode": 256},
        {"path": "cpu", "resourceFieldRef": {"containerName": "app", "resource": "requests.cpu"}},
    ]);
    let downward =
        of_volume(&pod(json!({"containers": [{"name": "app"}]})), json!({"downwardAPI": {"items": items}}));
    let expected = [("cpu", "0", 0o644), ("labels", "a=\"1\"", 0o400), ("name", "web", 0o644)];
    assert_eq!(texts(&downward.unwrap()), expected.map(|(path, text, mode)| (path, text.to_owned(), mode)));
    let unsupported = sources(
        json!([{"downwardAPI": {"items": [{"path": "f", "fieldRef": {"fieldPath": "status.podIP"}}]}}]),
    );
    assert_eq!(unsupported.unwrap_err().to_string(), "unsupported fieldPath: status.podIP");
}

#[test]
fn volumes_of_one_source() {
    let pod = pod(json!({"containers": [{"name": "app"}]}));
    let secret = of_volume(&pod, json!({"secret": {"secretName": "keys", "defaultMode": 256}})).unwrap();
    assert_eq!(texts(&secret), [("key", "hunter2".to_owned(), 0o400)]);
    let items = json!([{"key": "ca.crt", "path": "tls/ca.pem"}]);
    let map = of_volume(&pod, json!({"configMap": {"name": "kube-root-ca.crt", "items": items}})).unwrap();
    assert_eq!(texts(&map), [("tls/ca.pem", "CA".to_owned(), 0o644)]);
    let all = of_volume(&pod, json!({"configMap": {"name": "kube-root-ca.crt", "items": []}})).unwrap();
    assert_eq!(all.keys().collect::<Vec<_>>(), ["ca.crt", "other"]);
    let error = |volume: Value| of_volume(&pod, volume).unwrap_err().to_string();
    assert_eq!(error(json!({"secret": {"secretName": "gone"}})), "secret \"gone\" not found");
    let items = json!([{"key": "gone", "path": "p"}]);
    assert_eq!(
        error(json!({"secret": {"secretName": "keys", "items": items}})),
        "references non-existent secret key: gone"
    );
    let optional = |kind: &str, name: &str| json!({kind: {name: "gone", "optional": true}});
    assert_eq!(of_volume(&pod, optional("secret", "secretName")), Ok(Files::new()));
    assert_eq!(of_volume(&pod, optional("configMap", "name")), Ok(Files::new()));
}

#[test]
fn trust_bundles_come_in_the_order_of_their_sources() {
    let bundle = |path: &str, optional: bool| json!({"clusterTrustBundle": {"name": "n", "path": path, "optional": optional}});
    let both = sources(json!([bundle("a", false), bundle("b", true)])).unwrap();
    assert_eq!(texts(&both), [("a", "PEM".to_owned(), 0o644), ("b", String::new(), 0o644)]);
    let missing = sources(json!([bundle("a", false), bundle("b", false)]));
    assert_eq!(missing.unwrap_err().to_string(), "clustertrustbundle \"n\" not found");
}

#[test]
fn owners_of_a_pods_files_change_their_modes() {
    let token = json!({"projected": {"sources": [
        {"serviceAccountToken": {"path": "token"}}, {"configMap": {"name": "binary", "items": [
            {"key": "text", "path": "text", "mode": 256},
        ]}},
    ]}});
    let modes = |spec: Value| {
        let files = of_volume(&pod(spec), token.clone()).unwrap();
        (files["token"].mode, files["text"].mode)
    };
    let app = |context: Value| json!({"name": "app", "securityContext": context});
    assert_eq!(modes(json!({"containers": [app(json!({}))]})), (0o644, 0o400));
    assert_eq!(modes(json!({"containers": [app(json!({"runAsUser": 5}))]})), (0o600, 0o400));
    let mixed = [app(json!({"runAsUser": 5})), app(json!({"runAsUser": 6}))];
    assert_eq!(modes(json!({"containers": mixed})), (0o644, 0o400));
    let pods = json!({"securityContext": {"runAsUser": 5}, "containers": [app(json!({})), app(json!({}))]});
    assert_eq!(modes(pods), (0o600, 0o400));
    let group = json!({"securityContext": {"fsGroup": 7}, "containers": [app(json!({}))]});
    assert_eq!(modes(group), (0o640, 0o440));
}

#[test]
fn a_file_is_no_directory() {
    let item =
        |path: &str| json!({"configMap": {"name": "binary", "items": [{"key": "text", "path": path}]}});
    for paths in [["a", "a/b"], ["a/b", "a"]] {
        let crossed = sources(json!([item(paths[0]), item(paths[1])]));
        assert_eq!(crossed, Err(ProjectionError::InsideFile(paths[1].to_owned())));
    }
    assert!(sources(json!([item("a"), item("ab/c"), item("a")])).is_ok());
}

#[test]
fn what_a_volume_refers_to() {
    let volume: Volume = serde_json::from_value(json!({"name": "v", "projected": {"sources": [
        {"secret": {"name": "s"}}, {"configMap": {"name": "c"}}, {"serviceAccountToken": {"path": "t"}},
        {"clusterTrustBundle": {"signerName": "x", "path": "p"}}, {"downwardAPI": {}},
    ]}}))
    .unwrap();
    let names = object_names(&volume);
    assert_eq!((names.config_maps, names.secrets), (["c".to_owned()].into(), ["s".to_owned()].into()));
    assert_eq!(tokens(&volume).len(), 1);
    assert_eq!(trust_bundles(&volume).len(), 1);
    assert!(needs_privacy(&volume));
    let plain: Volume = serde_json::from_value(json!({"name": "v", "configMap": {"name": "c"}})).unwrap();
    assert!(!needs_privacy(&plain));
    let other: Volume = serde_json::from_value(json!({"name": "v", "emptyDir": {}})).unwrap();
    assert_eq!(object_names(&other), crate::ObjectNames::default());
}

#[test]
fn certificates_are_written_in_one_file_and_in_two() {
    let certificate = |paths: Value| {
        let mut source = paths;
        source["keyType"] = "ED25519".into();
        source["signerName"] = "example.com/s".into();
        json!({ "podCertificate": source })
    };
    let both = json!({"credentialBundlePath": "all/bundle.pem", "keyPath": "key.pem", "certificateChainPath": "chain.pem"});
    let two = json!([certificate(both), certificate(json!({"keyPath": "other.pem"}))]);
    let volume = json!({ "projected": { "sources": two, "defaultMode": 0o444 } });
    let bundle = format!("KEY\n{CLEAN}");
    let expected = [
        ("all/bundle.pem", bundle.as_str()),
        ("chain.pem", CLEAN),
        ("key.pem", "KEY\n"),
        ("other.pem", "OTHER\n"),
    ];
    for (spec, mode) in [
        (json!({ "containers": [{}] }), 0o444),
        (json!({ "containers": [{}], "securityContext": { "runAsUser": 7 } }), 0o600),
        (json!({ "containers": [{}], "securityContext": { "fsGroup": 7 } }), 0o640),
    ] {
        let mut spec = spec;
        spec["containers"][0]["name"] = "c".into();
        let files = of_volume(&pod(spec), volume.clone()).unwrap();
        let found: Vec<_> = files
            .iter()
            .map(|(path, file)| (path.as_str(), str::from_utf8(&file.content).unwrap()))
            .collect();
        assert_eq!(found, expected);
        assert!(files.values().all(|file| file.mode == mode), "{files:?}");
    }
    let third = json!([certificate(json!({})), certificate(json!({})), certificate(json!({}))]);
    let missing = ProjectionError::MissingCertificate("example.com/s".to_owned());
    assert_eq!(sources(third), Err(missing));
    let volume: Volume =
        serde_json::from_value(json!({"name": "v", "projected": {"sources": [certificate(json!({}))]}}))
            .unwrap();
    assert!(needs_privacy(&volume));
    assert_eq!(pod_certificates(&volume).len(), 1);
    assert_eq!(format!("{:?}", fetched().certificates[0]), "PodCertificate");
}

#[test]
fn sources_that_this_node_does_not_know_are_named() {
    let check = |source: Value, kind| {
        assert_eq!(sources(json!([source])), Err(ProjectionError::UnsupportedSource(kind)));
    };
    check(json!({}), "of this kind");
}

#[test]
fn content_is_never_shown() {
    let file = File { content: b"hunter2".to_vec(), mode: 0o600 };
    assert_eq!(format!("{file:?}"), "File(7 bytes, 600)");
}

#[test]
fn what_a_volume_shows_of_its_pod_may_change() {
    let pod = |label: &str, volumes: Value| -> Pod {
        let metadata = json!({"name": "web", "labels": {"a": label}});
        serde_json::from_value(json!({"metadata": metadata, "spec": {"containers": [], "volumes": volumes}}))
            .unwrap()
    };
    let shows = json!([{"name": "v", "projected": {"sources": [{"downwardAPI": {"items": []}}]}}]);
    assert!(shows_change(&pod("1", shows.clone()), &pod("2", shows.clone())));
    assert!(!shows_change(&pod("1", shows.clone()), &pod("1", shows)));
    let plain = json!([{"name": "v", "emptyDir": {}}]);
    assert!(!shows_change(&pod("1", plain.clone()), &pod("2", plain)));
}
