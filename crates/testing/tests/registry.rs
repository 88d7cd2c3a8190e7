//! The registry that tests are given.

use coracle_testing::registry::Blob;
use coracle_testing::{Artifact, Registry};
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};

const MODULE: &[u8] = b"\0asm\x01\0\0\0";

fn client() -> Client {
    Client::new(ClientConfig { protocol: ClientProtocol::Http, ..ClientConfig::default() })
}

async fn pulled(registry: &Registry, name: &str, auth: &RegistryAuth) -> anyhow::Result<(String, Vec<u8>)> {
    let reference: Reference = registry.image(name).parse()?;
    let client = client();
    let (manifest, _) = client.pull_image_manifest(&reference, auth).await?;
    let mut data = Vec::new();
    client.pull_blob(&reference, &manifest.layers[0], &mut data).await?;
    Ok((manifest.layers[0].media_type.clone(), data))
}

#[tokio::test]
async fn both_layouts_come_back_as_they_were_pushed() {
    let registry = Registry::start().await.unwrap();
    for (artifact, media_type) in [
        (Artifact::cncf(MODULE), "application/wasm"),
        (Artifact::wasm_to_oci(MODULE), "application/vnd.wasm.content.layer.v1+wasm"),
    ] {
        let digest = registry.push("demo/hello", "v1", &artifact).await.unwrap();
        let expected = (media_type.to_owned(), MODULE.to_vec());
        for name in ["demo/hello:v1".to_owned(), format!("demo/hello@{digest}")] {
            assert_eq!(pulled(&registry, &name, &RegistryAuth::Anonymous).await.unwrap(), expected, "{name}");
        }
    }
    assert!(registry.log().unwrap().contains("/v2/demo/hello/manifests/v1"));
}

#[tokio::test]
async fn a_login_is_needed_where_it_was_asked_for() {
    let registry = Registry::with_login("anna", "secret").await.unwrap();
    registry.push("private", "v1", &Artifact::cncf(MODULE)).await.unwrap();
    let login = |password: &str| RegistryAuth::Basic("anna".to_owned(), password.to_owned());
    assert!(pulled(&registry, "private:v1", &login("secret")).await.is_ok());
    assert!(pulled(&registry, "private:v1", &login("guessed")).await.is_err());
    assert!(pulled(&registry, "private:v1", &RegistryAuth::Anonymous).await.is_err());
}

#[tokio::test]
async fn a_blob_can_be_made_to_differ_from_its_digest() {
    let registry = Registry::start().await.unwrap();
    let artifact = Artifact::cncf(MODULE);
    registry.push("tampered", "v1", &artifact).await.unwrap();
    registry.overwrite_blob(&artifact.layers[0].digest(), b"\0asm\x01\0\0\x01").unwrap();
    let error = pulled(&registry, "tampered:v1", &RegistryAuth::Anonymous).await.unwrap_err();
    assert!(format!("{error:#}").to_lowercase().contains("digest"), "{error:#}");
}

#[tokio::test]
async fn manifests_of_any_kind_can_be_pushed() {
    let registry = Registry::start().await.unwrap();
    let config = Blob::new("application/vnd.oci.empty.v1+json", "{}");
    registry.push_blob("bare", config.data.clone()).await.unwrap();
    let manifest = Artifact { config, layers: Vec::new() }.manifest().to_string();
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let digest = registry.push_manifest("bare", "v1", media_type, manifest).await.unwrap();
    assert!(digest.starts_with("sha256:") && digest.len() == 71, "{digest}");
}
