//! Everything a registry can do wrong. After each of it the store is as it was, and takes a good image.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use coracle_lifecycle::{ImageError, Images};
use serde_json::json;

use crate::fixture::{CNCF, Fixture, Image, digest, manifest_path};
use crate::server::{Answer, cut_off, endless, ok, stalled, status, with_header};

const MEBIBYTE: u64 = 1024 * 1024;

/// Pulls an image after `damage` was done to it, and then the whole one.
async fn failure(damage: impl FnOnce(&Fixture, &Image)) -> ImageError {
    let fixture = Fixture::with(|settings| settings.module_limit = 64 * MEBIBYTE).await;
    let image = Image::new(CNCF, "hello");
    image.push(&fixture.server, "app", "1");
    damage(&fixture, &image);
    let error = fixture.pull("app:1").await.unwrap_err();
    assert!(error.to_string().contains(&fixture.reference("app:1")), "no image named: {error}");
    assert_eq!(fixture.find("app:1").await, None);
    for folder in ["unfinished", "blobs/sha256", "references"] {
        assert_eq!(fixture.files(folder), Vec::<String>::new(), "{folder}: {error}");
    }
    image.push(&fixture.server, "app", "1");
    assert_eq!(fixture.pull("app:1").await.unwrap().digest, image.digest(), "after {error}");
    error
}

/// Pulls an image whose module's blob is answered so.
async fn blob_failure(answer: impl Fn(&Image) -> Answer + Send + Sync + 'static) -> ImageError {
    failure(|fixture, image| {
        let copy = Image::new(CNCF, "hello");
        fixture.server.route(&image.module_path("app"), move |_| std::future::ready(answer(&copy)));
    })
    .await
}

async fn manifest_failure(answer: impl Fn() -> Answer + Send + Sync + 'static) -> ImageError {
    failure(|fixture, _| {
        fixture.server.route(&manifest_path("app", "1"), move |_| std::future::ready(answer()));
    })
    .await
}

fn check_corrupt(error: &ImageError, what: &str) {
    assert!(matches!(error, ImageError::Corrupt(text) if text.contains(what)), "{error:?}");
}

fn check_unavailable(error: &ImageError, what: &str) {
    assert!(matches!(error, ImageError::RegistryUnavailable(text) if text.contains(what)), "{error:?}");
}

fn module_digest() -> String {
    digest(&Image::new(CNCF, "hello").module).to_string()
}

#[tokio::test]
async fn a_blob_with_the_wrong_digest() {
    let error = blob_failure(|image| ok(image.module.to_ascii_uppercase())).await;
    check_corrupt(&error, &module_digest());
    check_corrupt(&error, "wrong digest");
}

#[tokio::test]
async fn a_truncated_blob() {
    let error = blob_failure(|image| cut_off(image.module.slice(..5))).await;
    check_corrupt(&error, &format!("{} is truncated: 5 of 13 bytes came", module_digest()));
    let error = blob_failure(|image| ok(image.module.slice(..5))).await;
    check_corrupt(&error, "is truncated: 5 of 13 bytes came");
}

#[tokio::test]
async fn an_endless_blob_is_cut_off() {
    let sent = Arc::new(AtomicU64::new(0));
    let counter = sent.clone();
    let error = blob_failure(move |image| endless(image.module.clone(), counter.clone())).await;
    check_corrupt(&error, "is longer than the 13 bytes");
    assert!(sent.load(Ordering::SeqCst) < 16 * MEBIBYTE);
}

#[tokio::test]
async fn a_blob_longer_than_it_was_declared() {
    let error = blob_failure(|image| ok([&image.module[..], b"x"].concat())).await;
    check_corrupt(&error, "is longer than the 13 bytes");
}

/// Pulls an image while `path` is answered with a part, and no more.
async fn stall(path: impl FnOnce(&Image) -> String) {
    let fixture = Fixture::start().await;
    let image = Image::new(CNCF, "hello");
    image.push(&fixture.server, "app", "1");
    let path = path(&image);
    fixture.server.route(&path, |_| std::future::ready(stalled("{")));
    let silence = async {
        fixture.server.until_asked(&path).await;
        // From here on the clock jumps to the next time-out whenever nothing moves.
        tokio::time::pause();
    };
    let began = tokio::time::Instant::now();
    let (result, ()) = futures::join!(fixture.pull("app:1"), silence);
    check_unavailable(&result.unwrap_err(), "timed out");
    assert!(began.elapsed().as_secs() >= 60, "after {:?}", began.elapsed());
    tokio::time::resume();
    assert_eq!(fixture.files("unfinished"), Vec::<String>::new());
    image.push(&fixture.server, "app", "1");
    fixture.pull("app:1").await.unwrap();
}

#[tokio::test]
async fn a_blob_that_stops_coming() {
    stall(|image| image.module_path("app")).await;
}

#[tokio::test]
async fn a_manifest_that_stops_coming() {
    stall(|_| manifest_path("app", "1")).await;
}

#[tokio::test]
async fn a_cut_off_manifest() {
    check_corrupt(&manifest_failure(|| cut_off("{")).await, "truncated");
}

#[tokio::test]
async fn a_manifest_of_64_megabytes() {
    check_corrupt(&manifest_failure(|| ok(vec![b' '; 64_000_000])).await, "longer than 4194304 bytes");
}

#[tokio::test]
async fn endless_answers_are_cut_off() {
    let sent = Arc::new(AtomicU64::new(0));
    let counter = sent.clone();
    let error = manifest_failure(move || endless("{", counter.clone())).await;
    check_corrupt(&error, "longer than 4194304 bytes");
    assert!(sent.load(Ordering::SeqCst) < 32 * MEBIBYTE);

    let counter = sent.clone();
    let error = manifest_failure(move || {
        let mut answer = endless("{", counter.clone());
        *answer.status_mut() = hyper::StatusCode::INTERNAL_SERVER_ERROR;
        answer
    })
    .await;
    check_unavailable(&error, "500");
    assert!(sent.load(Ordering::SeqCst) < 64 * MEBIBYTE);
}

#[tokio::test]
async fn a_page_in_the_place_of_a_manifest() {
    check_corrupt(&manifest_failure(|| ok("<html><body>Welcome</body></html>")).await, "malformed");
}

#[tokio::test]
async fn a_manifest_other_than_its_header_says() {
    let wrong = digest(b"another").to_string();
    let error = manifest_failure(move || {
        with_header(ok(Image::new(CNCF, "hello").bytes()), "docker-content-digest", &wrong)
    })
    .await;
    check_corrupt(&error, "wrong digest");
}

#[tokio::test]
async fn impossible_sizes() {
    let with_size = |size: i64| {
        move || {
            let mut image = Image::new(CNCF, "hello");
            image.manifest["layers"][0]["size"] = json!(size);
            ok(image.bytes())
        }
    };
    check_corrupt(&manifest_failure(with_size(-13)).await, "impossible size -13");
    for size in [i64::MAX, 64 * 1024 * 1024 + 1] {
        let error = manifest_failure(with_size(size)).await;
        assert!(
            matches!(&error, ImageError::Unsupported(text) if text.contains(&size.to_string())),
            "{error}"
        );
    }
    check_corrupt(&manifest_failure(with_size(14)).await, "truncated: 13 of 14");
}

#[tokio::test]
async fn a_module_that_is_not_wasm() {
    let error = failure(|fixture, _| {
        Image::of(CNCF, Bytes::from_static(b"#!/bin/sh"), "script").push(&fixture.server, "app", "1");
    })
    .await;
    assert!(
        matches!(&error, ImageError::Unsupported(text) if text.contains("is not WebAssembly")),
        "{error}"
    );
}

#[tokio::test]
async fn an_image_that_is_not_there() {
    let error = failure(|fixture, _| fixture.server.status(&manifest_path("app", "1"), 404)).await;
    let ImageError::NotFound(text) = error else { panic!("{error}") };
    assert!(text.starts_with("failed to resolve reference \"127.0.0.1:"), "{text}");
    assert!(text.ends_with("/app:1\": not found"), "{text}");
}

#[tokio::test]
async fn a_blob_that_is_not_there() {
    let error = blob_failure(|_| status(404, "")).await;
    assert!(matches!(&error, ImageError::NotFound(text) if text.contains(&module_digest())), "{error}");
}

#[tokio::test]
async fn a_registry_in_trouble() {
    for code in [429, 500, 502, 503] {
        check_unavailable(&manifest_failure(move || status(code, "<html>")).await, &code.to_string());
        check_unavailable(&blob_failure(move |_| status(code, "")).await, &code.to_string());
    }
    let limited = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"come back later"}]}"#;
    check_unavailable(&manifest_failure(move || status(429, limited)).await, "(TOOMANYREQUESTS)");
}

#[tokio::test]
async fn a_redirect_that_goes_in_circles() {
    let path = manifest_path("app", "1");
    let circle = move || with_header(status(307, ""), "location", &path);
    check_unavailable(&manifest_failure(circle).await, "too many redirects");
}

#[tokio::test]
async fn a_registry_that_is_not_there() {
    let fixture = Fixture::start().await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = nobody.local_addr().unwrap();
    let reference = format!("{address}/app:1");
    drop(nobody);
    let error = fixture.store.pull(&reference, &[]).await.unwrap_err();
    check_unavailable(&error, &format!("cannot reach {address}: Connection refused"));
    check_unavailable(&error, &reference);
}
