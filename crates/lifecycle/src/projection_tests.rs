#![expect(clippy::needless_pass_by_value, reason = "what `json!` makes is passed on as it is")]

use k8s_openapi::ByteString;
use serde_json::{Value, json};

use super::*;

fn pod() -> Pod {
    let metadata = json!({
        "name": "web", "namespace": "default", "uid": "u-1",
        "labels": {"b": "2", "a": "x\"y"}, "annotations": {"note": "one\ntwo\u{1}", "empty": ""},
    });
    serde_json::from_value(json!({ "metadata": metadata })).unwrap()
}

fn fetched() -> Fetched {
    let map = |data: Value| serde_json::from_value::<ConfigMap>(json!({ "data": data })).unwrap();
    let mut binary = map(json!({"text": "t"}));
    binary.binary_data = Some([("bytes".to_owned(), ByteString(vec![0, 255]))].into());
    Fetched {
        tokens: vec!["first".to_owned(), "second".to_owned()],
        config_maps: [
            ("kube-root-ca.crt".to_owned(), map(json!({"ca.crt": "CA", "other": "no"}))),
            ("binary".to_owned(), binary),
            ("escape".to_owned(), map(json!({"../up": "no"}))),
        ]
        .into(),
    }
}

fn files(source: Value) -> Result<Files, ProjectionError> {
    project(&pod(), &serde_json::from_value(source).unwrap(), &fetched())
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
fn fields_of_the_pod() {
    let field = |path: &str| {
        let items = json!([{"path": "f", "fieldRef": {"fieldPath": path}}]);
        let files = sources(json!([{"downwardAPI": {"items": items}}]))?;
        Ok(String::from_utf8(files["f"].content.clone()).unwrap())
    };
    let check = |path: &str, expected: &str| assert_eq!(field(path), Ok(expected.to_owned()), "{path}");
    check("metadata.name", "web");
    check("metadata.namespace", "default");
    check("metadata.uid", "u-1");
    check("metadata.labels", "a=\"x\\\"y\"\nb=\"2\"");
    check("metadata.annotations", "empty=\"\"\nnote=\"one\\ntwo\\x01\"");
    check("metadata.labels['b']", "2");
    check("metadata.labels['absent']", "");
    check("metadata.annotations['note']", "one\ntwo\u{1}");
    let unsupported = field("status.podIP");
    assert_eq!(unsupported, Err(ProjectionError::UnsupportedField("status.podIP".to_owned())));
}

#[test]
fn sources_of_later_versions_are_named() {
    let check = |source: Value, kind| {
        assert_eq!(sources(json!([source])), Err(ProjectionError::UnsupportedSource(kind)));
    };
    check(json!({"secret": {"name": "s"}}), "secret");
    check(json!({"clusterTrustBundle": {"path": "p"}}), "clusterTrustBundle");
    check(
        json!({"downwardAPI": {"items": [{"path": "p", "resourceFieldRef": {"resource": "limits.cpu"}}]}}),
        "resourceFieldRef",
    );
    check(json!({}), "of this kind");
}
