use serde_json::{Value, json};

use super::*;

const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn part(media_type: &str, size: i64) -> Value {
    json!({ "mediaType": media_type, "digest": format!("sha256:{HEX}"), "size": size })
}

fn manifest(config: &str, layers: &[&str]) -> Value {
    let layers: Vec<Value> = layers.iter().map(|layer| part(layer, 9)).collect();
    json!({ "schemaVersion": 2, "mediaType": OCI_IMAGE_MEDIA_TYPE, "config": part(config, 2), "layers": layers })
}

fn index(platforms: &[(&str, &str)]) -> Value {
    let entry = |(os, architecture): &(&str, &str)| {
        let mut entry = part(OCI_IMAGE_MEDIA_TYPE, i64::try_from(os.len()).unwrap());
        entry["platform"] = json!({ "os": os, "architecture": architecture });
        entry
    };
    json!({ "schemaVersion": 2, "manifests": platforms.iter().map(entry).collect::<Vec<_>>() })
}

fn result(document: &Value) -> Result<Document, ManifestError> {
    read(document.to_string().as_bytes())
}

fn refusal(document: &Value) -> String {
    result(document).unwrap_err().to_string()
}

#[test]
fn both_layouts_are_taken() {
    for (config, layer) in [
        (CNCF_CONFIG, CNCF_LAYER),
        ("application/vnd.wasm.config.v1+json", WASM_LAYER_MEDIA_TYPE),
        ("application/vnd.oci.empty.v1+json", WASM_LAYER_MEDIA_TYPE),
        ("application/vnd.unknown.config.v1+json", WASM_LAYER_MEDIA_TYPE),
    ] {
        let Ok(Document::Artifact(artifact)) = result(&manifest(config, &[layer])) else {
            panic!("{config} with {layer}");
        };
        assert_eq!((artifact.config.size, artifact.module.size, artifact.title), (2, 9, None));
    }
}

#[test]
fn the_title_of_the_layer_is_kept() {
    let mut document = manifest(CNCF_CONFIG, &[CNCF_LAYER]);
    document["layers"][0]["annotations"] = json!({ TITLE: "hello.wasm" });
    let Ok(Document::Artifact(artifact)) = result(&document) else { panic!("refused") };
    assert_eq!(artifact.title.as_deref(), Some("hello.wasm"));
}

#[test]
fn what_is_not_supported_is_named_with_what_is() {
    const TAR: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    const IMAGE: &str = "application/vnd.oci.image.config.v1+json";
    for (config, layers, found) in [
        (
            IMAGE,
            &[TAR][..],
            "config application/vnd.oci.image.config.v1+json with layer application/vnd.oci.image.layer.v1.tar+gzip",
        ),
        (
            IMAGE,
            &[TAR, TAR, CNCF_LAYER],
            "with 3 layers of application/vnd.oci.image.layer.v1.tar+gzip, application/wasm",
        ),
        (CNCF_CONFIG, &[], "without a layer"),
        (CNCF_CONFIG, &[CNCF_LAYER, CNCF_LAYER], "with 2 layers of application/wasm"),
        (
            "application/vnd.cncf.helm.config.v1+json",
            &["application/vnd.cncf.helm.chart.content.v1.tar+gzip"],
            "helm.chart",
        ),
        (IMAGE, &[CNCF_LAYER], "config application/vnd.oci.image.config.v1+json with layer application/wasm"),
    ] {
        let message = refusal(&manifest(config, layers));
        assert!(message.contains(found) && message.contains("supported are config"), "{message}");
        assert!(message.contains(WASM_LAYER_MEDIA_TYPE), "{message}");
    }
}

#[test]
fn a_message_repeats_only_so_much_of_a_manifest() {
    let long = "x".repeat(100_000);
    let layers: Vec<String> = (0..20_000).map(|number| format!("{number}/\n")).collect();
    let layers: Vec<&str> = layers.iter().map(String::as_str).collect();
    let message = refusal(&manifest(&long, &layers));
    assert!(message.len() < 1000 && message.contains("19992 more") && !message.contains('\n'), "{message}");
}

#[test]
fn an_index_leads_to_its_wasm_platform() {
    let chosen = |platforms: &[(&str, &str)]| match result(&index(platforms)) {
        Ok(Document::Index(descriptor)) => descriptor.size,
        other => panic!("{other:?}"),
    };
    assert_eq!(chosen(&[("linux", "amd64"), ("wasi", "wasm")]), 4);
    assert_eq!(chosen(&[("wasip2", "wasm"), ("wasi", "wasm32")]), 6);
    let message = refusal(&index(&[("linux", "arm64"), ("linux", "amd64"), ("windows", "amd64")]));
    assert!(message.ends_with("it is for linux/amd64, linux/arm64, windows/amd64"), "{message}");
    assert!(refusal(&index(&[])).ends_with("it is for nothing"));
}

#[test]
fn malformed_documents_are_refused() {
    let mut negative = manifest(CNCF_CONFIG, &[CNCF_LAYER]);
    negative["layers"][0]["size"] = json!(-5);
    assert!(refusal(&negative).contains("impossible size -5"));
    let mut path = manifest(CNCF_CONFIG, &[CNCF_LAYER]);
    path["layers"][0]["digest"] = json!("../../../etc/passwd");
    assert!(refusal(&path).contains("is not a digest"));
    let mut both = manifest(CNCF_CONFIG, &[CNCF_LAYER]);
    both["manifests"] = json!([]);
    assert!(refusal(&both).contains("both manifests and layers"));
    for bytes in [&b"<html><body>Not Found</body></html>"[..], b"", b"{", b"[]", b"null", b"\xff"] {
        assert!(matches!(read(bytes), Err(ManifestError::Malformed(_))), "{bytes:?}");
    }
    assert!(
        refusal(&json!({ "schemaVersion": 1, "fsLayers": [] })).contains("schema version 1 is not supported")
    );
    assert!(refusal(&json!({ "schemaVersion": 2 })).contains("neither"));
    assert!(refusal(&json!({ "schemaVersion": 2, "mediaType": "text/x", "layers": [] })).contains("text/x"));
}
