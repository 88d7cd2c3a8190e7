//! What is on disk, what survives a kill, and what goes.

use std::fs;

use coracle_lifecycle::{Images, LocalImage};
use coracle_oci::{OpenError, Settings, Store};

use crate::fixture::{CNCF, Fixture, Image, digest};
use crate::server::ok;

async fn listed(fixture: &Fixture) -> Vec<LocalImage> {
    fixture.store.list().await.unwrap()
}

async fn with_image(tag: &str) -> (Fixture, Image, LocalImage) {
    let fixture = Fixture::start().await;
    let image = Image::new(CNCF, "hello");
    image.push(&fixture.server, "app", tag);
    let pulled = fixture.pull(&format!("app:{tag}")).await.unwrap();
    (fixture, image, pulled)
}

#[tokio::test]
async fn images_survive_the_process() {
    let (fixture, _, pulled) = with_image("1").await;
    let fixture = fixture.reopen();
    assert_eq!(fixture.find("app:1").await, Some(pulled.clone()));
    assert_eq!(listed(&fixture).await, [pulled]);
    assert_eq!(fixture.server.asked().len(), 3);
}

#[tokio::test]
async fn what_a_kill_left_half_made_is_not_used_and_goes() {
    let (fixture, image, pulled) = with_image("1").await;
    let root = fixture.directory.path().to_owned();
    let half = serde_json::json!({ "reference": fixture.reference("app:2") }).to_string();
    let half_name = digest(fixture.reference("app:2").as_bytes()).hex().to_owned();
    fs::write(root.join("unfinished/.tmp123"), b"\0asm").unwrap();
    fs::write(root.join(format!("references/{half_name}.json")), &half[..half.len() / 2]).unwrap();
    fs::write(root.join("references/empty.json"), b"").unwrap();
    // A module that was whole when the process was killed, but whose record was not yet written.
    let other = Image::new(CNCF, "other");
    fs::write(root.join("blobs/sha256").join(digest(&other.module).hex()), &other.module).unwrap();

    let fixture = fixture.reopen();
    assert_eq!(listed(&fixture).await, [pulled]);
    assert_eq!(fixture.find("app:2").await, None);
    assert_eq!(fixture.files("unfinished"), Vec::<String>::new());
    assert_eq!(fixture.files("references").len(), 2, "the tag and the digest");
    let mut expected =
        [image.digest(), digest(&image.config), digest(&image.module)].map(|digest| digest.hex().to_owned());
    let mut blobs = fixture.files("blobs/sha256");
    expected.sort();
    blobs.sort();
    assert_eq!(blobs, expected);
}

#[tokio::test]
async fn a_damaged_image_is_forgotten_and_pulled_again() {
    for damage in [
        (|image, path| fs::write(path, &image.bytes()[1..]).map(|()| "manifest")) as fn(&Image, _) -> _,
        |image: &Image, path: std::path::PathBuf| {
            fs::write(path.with_file_name(digest(&image.module).hex()), b"\0asm").map(|()| "module")
        },
        |image, path| {
            let module: Vec<u8> = image.module.iter().map(|byte| byte ^ 1).collect();
            fs::write(path.with_file_name(digest(&image.module).hex()), module).map(|()| "as long a module")
        },
        |image, path| fs::remove_file(path.with_file_name(digest(&image.config).hex())).map(|()| "config"),
    ] {
        let (fixture, image, pulled) = with_image("1").await;
        let path = fixture.directory.path().join("blobs/sha256").join(image.digest().hex());
        let damaged: &str = damage(&image, path).unwrap();
        let fixture = fixture.reopen();
        assert_eq!(fixture.find("app:1").await, None, "{damaged}");
        assert_eq!(fixture.pull("app:1").await.unwrap(), pulled, "{damaged}");
        assert_eq!(fs::read(&pulled.program().unwrap().path).unwrap(), image.module);
    }
}

#[tokio::test]
async fn a_damaged_module_is_not_taken_for_that_of_another_image() {
    let (fixture, image, pulled) = with_image("1").await;
    let path = pulled.program().unwrap().path.clone();
    let damaged: Vec<u8> = image.module.iter().map(|byte| byte ^ 1).collect();
    fs::write(&path, damaged).unwrap();
    let fixture = fixture.reopen();
    image.push(&fixture.server, "twin", "1");
    fixture.pull("twin:1").await.unwrap();
    assert_eq!(fs::read(&path).unwrap(), image.module);
}

#[tokio::test]
async fn a_record_cannot_lead_a_digest_to_another_image() {
    let (fixture, image, _) = with_image("1").await;
    let wanted = Image::new(CNCF, "wanted");
    let reference = fixture.reference(&format!("app@{}", wanted.digest()));
    let record = serde_json::json!({ "reference": reference, "target": image.digest() }).to_string();
    let name = digest(reference.as_bytes()).hex().to_owned();
    fs::write(fixture.directory.path().join(format!("references/{name}.json")), record).unwrap();
    let fixture = fixture.reopen();
    assert_eq!(fixture.store.find(&reference).await, Ok(None));
}

#[tokio::test]
async fn a_module_that_somebody_took_away_is_not_found_and_comes_back() {
    let (fixture, _, pulled) = with_image("1").await;
    fs::remove_file(&pulled.program().unwrap().path).unwrap();
    assert_eq!(fixture.find("app:1").await, None);
    assert_eq!(fixture.pull("app:1").await.unwrap(), pulled);
    assert_eq!(fixture.find("app:1").await, Some(pulled));
}

#[tokio::test]
async fn removing_an_image_keeps_what_others_share() {
    let (fixture, image, pulled) = with_image("1").await;
    let mut twin = Image::new(CNCF, "hello");
    twin.manifest["annotations"] = serde_json::json!({ "twin": "yes" });
    twin.push(&fixture.server, "twin", "1");
    let kept = fixture.pull("twin:1").await.unwrap();
    assert_eq!(kept.program().unwrap().digest, pulled.program().unwrap().digest);

    fixture.store.remove(&pulled.digest).await.unwrap();
    assert_eq!(
        (fixture.find("app:1").await, fixture.find(&format!("app@{}", image.digest())).await),
        (None, None)
    );
    assert_eq!(fs::read(&kept.program().unwrap().path).unwrap(), image.module);
    let fixture = fixture.reopen();
    assert_eq!(listed(&fixture).await, std::slice::from_ref(&kept));

    fixture.store.remove(&kept.digest).await.unwrap();
    fixture.store.remove(&kept.digest).await.unwrap();
    for folder in ["unfinished", "blobs/sha256", "references"] {
        assert_eq!(fixture.files(folder), Vec::<String>::new(), "{folder}");
    }
}

#[tokio::test]
async fn what_a_pull_counts_on_is_not_removed_under_it() {
    let (fixture, image, pulled) = with_image("1").await;
    let mut twin = Image::of(CNCF, image.module.clone(), "twin");
    twin.manifest["annotations"] = serde_json::json!({ "twin": "yes" });
    twin.push(&fixture.server, "app", "twin");
    let path = twin.config_path("app");
    let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let (waiting, config) = (gate.clone(), twin.config.clone());
    fixture.server.route(&path, move |_| {
        let (waiting, config) = (waiting.clone(), config.clone());
        async move {
            waiting.acquire().await.unwrap().forget();
            ok(config)
        }
    });
    let remove = async {
        fixture.server.until_asked(&path).await;
        fixture.store.remove(&pulled.digest).await.unwrap();
        gate.add_permits(1);
    };
    let (twin, ()) = futures::join!(fixture.pull("app:twin"), remove);
    assert_eq!(fs::read(&twin.unwrap().program().unwrap().path).unwrap(), image.module);
    assert_eq!(fixture.find("app:1").await, None);
    assert_eq!(fixture.server.count(&image.module_path("app")), 1);
}

#[tokio::test]
async fn tags_are_listed_each_and_an_untagged_image_once() {
    let (fixture, old, _) = with_image("1").await;
    let new = Image::new(CNCF, "new");
    for tag in ["1", "2"] {
        new.push(&fixture.server, "app", tag);
        fixture.pull(&format!("app:{tag}")).await.unwrap();
    }
    let references: Vec<String> = listed(&fixture).await.into_iter().map(|image| image.reference).collect();
    let expected = ["app:1".to_owned(), "app:2".to_owned(), format!("app@{}", old.digest())];
    assert_eq!(references, expected.map(|image| fixture.reference(&image)));
}

#[cfg(unix)]
#[tokio::test]
async fn the_directories_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let (fixture, ..) = with_image("1").await;
    for folder in ["", "blobs", "blobs/sha256", "references", "unfinished"] {
        let mode = fs::metadata(fixture.directory.path().join(folder)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{folder:?}");
    }
}

#[tokio::test]
async fn a_directory_that_cannot_be_made_is_named() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("file"), b"").unwrap();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let Err(error) = Store::open(Settings::new(directory.path().join("file/images"))) else {
        panic!("opened")
    };
    assert!(matches!(error, OpenError::Directory { .. }));
    assert!(error.to_string().contains("file/images"), "{error}");
}
