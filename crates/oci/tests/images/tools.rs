//! What real tools push is taken as it is: `tests/tools/README.md` says how each image was made.

use std::fs;
use std::path::PathBuf;

use coracle_lifecycle::{ImageConfig, ImageContent, LocalImage};
use serde_json::Value;

use crate::fixture::{Fixture, blob_path, digest, manifest_path};

/// Puts the image that `tool` made into the registry, each part as a blob and as a manifest of its digest, and pulls it.
async fn pulled(fixture: &Fixture, tool: &str) -> LocalImage {
    let layout = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/tools").join(tool);
    let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    let tagged = index["manifests"][0]["digest"].as_str().unwrap();
    for entry in fs::read_dir(layout.join("blobs/sha256")).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        let digest = digest(&bytes);
        if digest.as_str() == tagged {
            fixture.server.content(&manifest_path(tool, "1"), bytes.clone());
        }
        fixture.server.content(&manifest_path(tool, digest.as_str()), bytes.clone());
        fixture.server.content(&blob_path(tool, &bytes), bytes);
    }
    fixture.pull(&format!("{tool}:1")).await.unwrap()
}

const MODULE: &str = "sha256:87799c1b578e1ef444797b90bd09efe88f1af0b1810d578f9ccf03df9b1de499";

#[tokio::test]
async fn artifacts_of_wkg_oras_and_wasm_to_oci() {
    let fixture = Fixture::start().await;
    for tool in ["wkg-module", "oras-cncf", "oras-plain", "oras-type", "wasm-to-oci"] {
        let image = pulled(&fixture, tool).await;
        let module = image.program().unwrap();
        assert_eq!((module.digest.as_str(), &*module.name), (MODULE, "hello.wasm"), "{tool}");
        assert_eq!(digest(&fs::read(&module.path).unwrap()).as_str(), MODULE, "{tool}");
    }
    let component = pulled(&fixture, "wkg-component").await;
    assert_eq!(component.program().unwrap().name, "component.wasm");
}

/// Pulls an image that a tool built of `app.wasm`, `data/beside.txt` and a few settings.
async fn check_image(tool: &str, environment: &[(&str, &str)]) {
    let fixture = Fixture::start().await;
    let image = pulled(&fixture, tool).await;
    let ImageContent::Files(files) = &image.content else { panic!("{tool}: {image:?}") };
    let read = |path: &str| fs::read(files.directory.join(path)).unwrap();
    assert_eq!(digest(&read("app.wasm")).as_str(), MODULE, "{tool}");
    assert_eq!(read("data/beside.txt"), b"beside\n", "{tool}");
    let variable = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let expected = ImageConfig {
        entrypoint: vec!["/app.wasm".to_owned()],
        env: environment.iter().map(variable).collect(),
        working_directory: Some("/data".to_owned()),
        ..ImageConfig::default()
    };
    assert_eq!(files.config, expected, "{tool}");
}

#[tokio::test]
async fn images_of_buildah() {
    for tool in ["buildah-oci", "buildah-docker", "buildah-multi"] {
        check_image(tool, &[("GREETING", "hello")]).await;
    }
}

#[tokio::test]
async fn images_of_docker_buildx() {
    let path = ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    for tool in ["buildx-attested", "buildx-plain", "buildx-zstd", "buildx-docker", "buildx-multi"] {
        check_image(tool, &[path, ("GREETING", "hello")]).await;
    }
}
