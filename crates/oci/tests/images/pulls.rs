//! What is pulled, and under which names it is then found.

use coracle_lifecycle::{ImageError, Images};
use coracle_oci::Settings;
use serde_json::json;

use crate::fixture::{CNCF, Fixture, Image, OLDER, descriptor, digest, manifest_path, open};
use crate::server::{Server, ok, status, with_header};

#[tokio::test]
async fn both_layouts_are_pulled_verified_and_found() {
    for layout in [CNCF, OLDER] {
        let fixture = Fixture::start().await;
        let mut image = Image::new(layout, "hello");
        image.manifest["layers"][0]["annotations"] =
            json!({ "org.opencontainers.image.title": "x/hello.wasm" });
        image.push(&fixture.server, "team/app", "1");
        assert_eq!(fixture.find("team/app:1").await, None);

        let pulled = fixture.pull("team/app:1").await.unwrap();
        assert_eq!(pulled.digest, image.digest());
        assert_eq!(pulled.reference, fixture.reference("team/app:1"));
        assert_eq!(pulled.repo_digest, fixture.reference(&format!("team/app@{}", image.digest())));
        assert_eq!(pulled.size, (image.bytes().len() + image.config.len() + image.module.len()) as u64);
        assert_eq!(
            (pulled.program().unwrap().name.as_str(), &pulled.program().unwrap().digest),
            ("hello.wasm", &digest(&image.module))
        );
        assert_eq!(std::fs::read(&pulled.program().unwrap().path).unwrap(), image.module);
        assert_eq!(fixture.find("team/app:1").await.as_ref(), Some(&pulled));
        fixture.store.root_file_system(&pulled, fixture.directory.path()).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_here_is_not_downloaded_again() {
    let fixture = Fixture::start().await;
    let image = Image::new(CNCF, "hello");
    image.push(&fixture.server, "app", "latest");
    let first = fixture.pull("app").await.unwrap();
    let again = fixture.pull("app:latest").await.unwrap();
    assert_eq!(first, again);
    assert_eq!(fixture.server.count(&manifest_path("app", "latest")), 2, "the registry is asked each time");
    assert_eq!(fixture.server.count(&image.module_path("app")), 1);
    assert_eq!(fixture.server.count(&image.config_path("app")), 1);
}

#[tokio::test]
async fn a_tag_that_moved_leads_to_the_new_module_and_a_digest_to_its_own() {
    let fixture = Fixture::start().await;
    let (old, new) = (Image::new(CNCF, "old"), Image::new(CNCF, "new"));
    old.push(&fixture.server, "app", "latest");
    let by_digest = format!("app@{}", old.digest());
    fixture.pull("app").await.unwrap();
    new.push(&fixture.server, "app", "latest");
    assert_eq!(fixture.find("app").await.unwrap().digest, old.digest(), "until it is pulled");
    assert_eq!(fixture.pull("app").await.unwrap().program().unwrap().digest, digest(&new.module));

    let fixture = fixture.reopen();
    assert_eq!(fixture.find("app").await.unwrap().program().unwrap().digest, digest(&new.module));
    let found = fixture.find(&by_digest).await.unwrap();
    assert_eq!(std::fs::read(&found.program().unwrap().path).unwrap(), old.module);
    let found = fixture.find(&format!("app:latest@{}", old.digest())).await.unwrap();
    assert_eq!(found.program().unwrap().digest, digest(&old.module), "the digest overrules the tag");
    assert_eq!(found.reference, fixture.reference(&format!("app:latest@{}", old.digest())));
    assert_eq!(fixture.find(&format!("other@{}", old.digest())).await, None);
}

#[tokio::test]
async fn a_digest_reference_never_gets_another_manifest() {
    let fixture = Fixture::start().await;
    let (wanted, other) = (Image::new(CNCF, "wanted"), Image::new(CNCF, "other"));
    other.push(&fixture.server, "app", "1");
    fixture.server.content(&manifest_path("app", wanted.digest().as_str()), other.bytes());
    let error = fixture.pull(&format!("app@{}", wanted.digest())).await.unwrap_err();
    assert!(
        matches!(&error, ImageError::Corrupt(text) if text.contains(wanted.digest().as_str())),
        "{error}"
    );
    assert_eq!(fixture.server.count(&other.module_path("app")), 0);
}

#[tokio::test]
async fn an_index_leads_to_its_wasm_image() {
    let fixture = Fixture::start().await;
    let image = Image::new(CNCF, "hello");
    image.push(&fixture.server, "app", "bare");
    let manifest = "application/vnd.oci.image.manifest.v1+json";
    let mut linux = descriptor(manifest, b"linux");
    linux["platform"] = json!({ "os": "linux", "architecture": "amd64" });
    let mut wasm = descriptor(manifest, &image.bytes());
    wasm["platform"] = json!({ "os": "wasi", "architecture": "wasm" });
    let index = json!({ "schemaVersion": 2, "manifests": [linux, wasm] }).to_string();
    let by_digest = format!("app@{}", digest(index.as_bytes()));
    fixture.server.content(&manifest_path("app", "multi"), index.clone());
    fixture.server.content(&manifest_path("app", digest(index.as_bytes()).as_str()), index);

    assert_eq!(fixture.pull("app:multi").await.unwrap().digest, image.digest());
    assert_eq!(fixture.pull(&by_digest).await.unwrap().digest, image.digest());
    let fixture = fixture.reopen();
    assert_eq!(fixture.find("app:multi").await.unwrap().program().unwrap().digest, digest(&image.module));
    assert_eq!(fixture.find(&by_digest).await.unwrap().digest, image.digest());
    assert_eq!(fixture.find(&format!("app@{}", image.digest())).await.unwrap().digest, image.digest());
}

/// Puts an index of what `bytes` are under `tag` and under its digest.
fn push_index(fixture: &Fixture, tag: &str, bytes: &[u8]) -> Vec<u8> {
    let entry = descriptor("application/vnd.oci.image.index.v1+json", bytes);
    let index = json!({ "schemaVersion": 2, "manifests": [entry] }).to_string().into_bytes();
    fixture.server.content(&manifest_path("app", tag), index.clone());
    fixture.server.content(&manifest_path("app", digest(&index).as_str()), index.clone());
    index
}

#[tokio::test]
async fn indexes_may_be_nested_but_not_on_and_on() {
    let fixture = Fixture::start().await;
    let image = Image::new(CNCF, "hello");
    image.push(&fixture.server, "app", "bare");
    let mut bytes = image.bytes().to_vec();
    for depth in 1..=4 {
        bytes = push_index(&fixture, &depth.to_string(), &bytes);
    }
    assert_eq!(fixture.pull("app:3").await.unwrap().digest, image.digest());
    let refused = fixture.pull("app:4").await.unwrap_err();
    assert!(matches!(&refused, ImageError::Unsupported(_)), "{refused:?}");
    assert!(refused.to_string().ends_with("its indexes are nested too deep"), "{refused}");
    let fixture = fixture.reopen();
    assert_eq!(fixture.find("app:3").await.unwrap().digest, image.digest());
}

#[tokio::test]
async fn what_cannot_run_here_is_refused_by_name_and_nothing_of_it_is_downloaded() {
    let fixture = Fixture::start().await;
    let chart =
        ("application/vnd.cncf.helm.config.v1+json", "application/vnd.cncf.helm.chart.content.v1.tar+gzip");
    let image = Image::new(chart, "chart");
    image.push(&fixture.server, "app", "1");
    let error = fixture.pull("app:1").await.unwrap_err();
    assert!(matches!(error, ImageError::Unsupported(_)));
    let text = error.to_string();
    assert!(
        text.contains(&fixture.reference("app:1")) && text.contains(chart.1) && text.contains(CNCF.1),
        "{text}"
    );
    assert_eq!(fixture.server.count(&image.module_path("app")), 0);
}

#[tokio::test]
async fn blobs_may_lie_elsewhere_and_no_credential_goes_there() {
    let fixture = Fixture::start().await;
    let elsewhere = Server::start().await;
    let image = Image::new(CNCF, "hello");
    image.push(&fixture.server, "app", "1");
    elsewhere.content("/store", image.module.clone());
    let location = format!("http://localhost:{}/store?signature=abc", elsewhere.address.port());
    fixture.server.route(&image.module_path("app"), move |_| {
        std::future::ready(with_header(status(307, ""), "location", &location))
    });
    fixture.server.guard(|asked| {
        let challenge = || with_header(status(401, ""), "www-authenticate", "Basic realm=\"x\"");
        asked.authorization.is_none().then(challenge)
    });
    fixture.pull_as("app:1", &[("me", "secret")]).await.unwrap();
    let [asked] = &elsewhere.asked()[..] else { panic!("asked once") };
    assert_eq!(asked.authorization, None);
}

#[tokio::test]
async fn loopback_is_no_reason_to_go_without_tls() {
    let server = Server::start().await;
    Image::new(CNCF, "hello").push(&server, "app", "1");
    let directory = tempfile::tempdir().unwrap();
    let store = open(Settings::new(directory.path()));
    let error = store.pull(&format!("{}/app:1", server.host()), &[]).await.unwrap_err();
    assert!(matches!(error, ImageError::RegistryUnavailable(_)), "{error}");
    assert_eq!(server.asked(), []);
}

#[tokio::test]
async fn an_invalid_name_is_told_as_the_kubelet_tells_it() {
    let fixture = Fixture::start().await;
    let expected =
        ImageError::InvalidName("couldn't parse image name \"a b\": invalid reference format".to_owned());
    assert_eq!(fixture.store.find("a b").await, Err(expected.clone()));
    assert_eq!(fixture.store.pull("a b", &[]).await, Err(expected));
}

#[tokio::test]
async fn content_that_is_here_as_a_config_does_not_pass_for_a_program() {
    let fixture = Fixture::start().await;
    let good = Image::new(CNCF, "hello");
    good.push(&fixture.server, "app", "good");
    fixture.pull("app:good").await.unwrap();
    let bad = Image::of(CNCF, good.config.clone(), "bad");
    fixture.server.route(&manifest_path("app", "bad"), {
        let bytes = bad.bytes();
        move |_| std::future::ready(ok(bytes.clone()))
    });
    fixture.server.content(&bad.config_path("app"), bad.config.clone());
    let error = fixture.pull("app:bad").await.unwrap_err();
    assert!(error.to_string().contains("is not WebAssembly"), "{error}");
}
