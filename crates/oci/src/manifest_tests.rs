use serde_json::{Value, json};

use super::*;

/// The config of the CNCF's layout.
const CNCF_CONFIG: &str = "application/vnd.wasm.config.v0+json";
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

/// What a manifest with these media types is taken for: its program, or so many layers of files.
fn taken(config: &str, layers: &[&str], titles: &[&str]) -> Result<(u64, Option<String>), usize> {
    let mut document = manifest(config, layers);
    for (index, title) in titles.iter().enumerate() {
        document["layers"][index]["annotations"] = json!({ TITLE: title });
        document["layers"][index]["size"] = json!(index);
    }
    match result(&document) {
        Ok(Document::Image(Manifest { body: Body::Program { module, title }, .. })) => {
            Ok((module.size, title))
        }
        Ok(Document::Image(Manifest { body: Body::Files(layers), .. })) => Err(layers.len()),
        other => panic!("{config} with {layers:?}: {other:?}"),
    }
}

#[test]
fn programs_are_taken_as_all_tools_push_them() {
    for (config, layer) in [
        // wkg
        (CNCF_CONFIG, CNCF_LAYER),
        // wasm-to-oci
        ("application/vnd.wasm.config.v1+json", WASM_LAYER_MEDIA_TYPE),
        // oras, with and without a config
        ("application/vnd.oci.empty.v1+json", WASM_LAYER_MEDIA_TYPE),
        ("application/vnd.unknown.config.v1+json", WASM_LAYER_MEDIA_TYPE),
        ("application/vnd.oci.empty.v1+json", CNCF_LAYER),
        // runwasi's oci-tar-builder
        (IMAGE_CONFIG_MEDIA_TYPE, "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm"),
        (IMAGE_CONFIG_MEDIA_TYPE, CNCF_LAYER),
    ] {
        assert_eq!(taken(config, &[layer], &[]), Ok((9, None)), "{config} with {layer}");
    }
    // `oras push registry/app:1 app.wasm` says no more than this.
    let oras = "application/vnd.oci.empty.v1+json";
    let expected = Ok((0, Some("app.wasm".to_owned())));
    assert_eq!(taken(oras, &[IMAGE_LAYER_MEDIA_TYPE], &["app.wasm"]), expected);
    // What lies beside the program is not for a runtime.
    let layers = ["text/markdown", CNCF_LAYER, "application/wit"];
    let expected = Ok((1, Some("app.wasm".to_owned())));
    assert_eq!(taken(CNCF_CONFIG, &layers, &["README.md", "app.wasm", "app.wit"]), expected);
}

#[test]
fn archives_are_files() {
    for (config, layer) in [
        (IMAGE_CONFIG_MEDIA_TYPE, IMAGE_LAYER_GZIP_MEDIA_TYPE),
        (IMAGE_CONFIG_MEDIA_TYPE, "application/vnd.oci.image.layer.v1.tar+zstd"),
        (IMAGE_CONFIG_MEDIA_TYPE, IMAGE_LAYER_MEDIA_TYPE),
        (IMAGE_DOCKER_CONFIG_MEDIA_TYPE, IMAGE_DOCKER_LAYER_GZIP_MEDIA_TYPE),
        (IMAGE_DOCKER_CONFIG_MEDIA_TYPE, "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"),
        (IMAGE_CONFIG_MEDIA_TYPE, "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"),
    ] {
        assert_eq!(taken(config, &[layer, layer], &[]), Err(2), "{config} with {layer}");
    }
    assert_eq!(taken(IMAGE_CONFIG_MEDIA_TYPE, &[IMAGE_LAYER_MEDIA_TYPE], &["app.wasm"]), Err(1));
}

#[test]
fn what_is_not_supported_is_named_with_what_is() {
    const TAR: &str = IMAGE_LAYER_GZIP_MEDIA_TYPE;
    for (config, layers, found) in [
        (
            "application/vnd.oci.empty.v1+json",
            &[TAR][..],
            "with layer application/vnd.oci.image.layer.v1.tar+gzip",
        ),
        (
            IMAGE_CONFIG_MEDIA_TYPE,
            &[TAR, TAR, "text/x"],
            "with 3 layers of application/vnd.oci.image.layer.v1.tar+gzip, text/x",
        ),
        (CNCF_CONFIG, &[], "without a layer"),
        (IMAGE_CONFIG_MEDIA_TYPE, &[], "without a layer"),
        (
            "application/vnd.cncf.helm.config.v1+json",
            &["application/vnd.cncf.helm.chart.content.v1.tar+gzip"],
            "helm.chart",
        ),
    ] {
        let message = refusal(&manifest(config, layers));
        assert!(message.contains(found) && message.contains("supported are"), "{message}");
        assert!(message.contains(WASM_LAYER_MEDIA_TYPE), "{message}");
    }
    let message = refusal(&manifest(IMAGE_CONFIG_MEDIA_TYPE, &vec![TAR; 20_000]));
    assert_eq!(message, "the image has 20000 layers, this node takes no more than 128");
}

#[test]
fn a_message_repeats_only_so_much_of_a_manifest() {
    let long = "x".repeat(100_000);
    let layers: Vec<String> = (0..100).map(|number| format!("{number}/\n")).collect();
    let layers: Vec<&str> = layers.iter().map(String::as_str).collect();
    let message = refusal(&manifest(&long, &layers));
    assert!(message.len() < 1000 && message.contains("92 more") && !message.contains('\n'), "{message}");
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
    assert_eq!(chosen(&[("linux", "arm64"), ("linux", "wasm32-wasi")]), 5);
    // What docker says of the proofs it puts beside images.
    let message = refusal(&index(&[("linux", "amd64"), ("unknown", "unknown")]));
    assert!(message.ends_with("it is for linux/amd64"), "{message}");
    assert!(refusal(&index(&[])).ends_with("it is for nothing"));
}

#[test]
fn the_only_entry_of_an_index_needs_no_platform() {
    let entry = part(OCI_IMAGE_MEDIA_TYPE, 7);
    let one = json!({ "schemaVersion": 2, "manifests": [entry] });
    assert!(matches!(result(&one), Ok(Document::Index(Descriptor { size: 7, .. }))));
    let mut proof = entry.clone();
    proof["platform"] = json!({ "os": "unknown", "architecture": "unknown" });
    let proven = json!({ "schemaVersion": 2, "manifests": [proof, entry, proof] });
    assert!(matches!(result(&proven), Ok(Document::Index(Descriptor { size: 7, .. }))));
    let two = json!({ "schemaVersion": 2, "manifests": [entry, entry] });
    assert!(refusal(&two).ends_with("it is for no platform"));
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
