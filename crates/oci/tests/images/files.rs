//! Images with files: what of them is in the store, what containers get of them, and what they share.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use coracle_lifecycle::{ImageError, ImageFiles, Images, LocalImage};
use futures::future::join_all;
use serde_json::json;

use crate::fixture::{Fixture, descriptor, digest, manifest_path};
use crate::layers::{Layer, Layered};
use crate::server::{ok, stalled};

const PROGRAM: &[u8] = b"\0asm\x01\0\0\0program";

fn base() -> Layer {
    Layer::new(&[("app.wasm", PROGRAM), ("data/kept", b"kept"), ("data/gone", b"gone")])
}

fn top() -> Layer {
    Layer::new(&[("data/.wh.gone", b""), ("data/new", b"new")])
}

fn files(image: &LocalImage) -> &ImageFiles {
    image.files().unwrap()
}

fn read(directory: &Path, path: &str) -> Option<String> {
    fs::read_to_string(directory.join(path)).ok()
}

/// The files of an image as a container gets them; taken away from there when it is dropped.
struct Root(PathBuf);

impl Root {
    async fn of(fixture: &Fixture, image: &LocalImage, name: &str) -> Self {
        let directory = fixture.directory.path().join("containers").join(name);
        fs::create_dir_all(&directory).unwrap();
        fixture.store.root_file_system(image, &directory).await.unwrap();
        Self(directory)
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn ensure_empty(fixture: &Fixture) {
    for folder in ["unfinished", "blobs/sha256", "references", "trees"] {
        assert_eq!(fixture.files(folder), Vec::<String>::new(), "{folder}");
    }
}

#[tokio::test]
async fn layers_are_unpacked_and_the_configuration_is_told() {
    let fixture = Fixture::start().await;
    let image = Layered::new([base(), top()]);
    image.push(&fixture.server, "app", "1");
    let pulled = fixture.pull("app:1").await.unwrap();
    assert_eq!(pulled.digest, image.digest());
    let ImageFiles { directory, config, .. } = files(&pulled);
    assert_eq!(read(directory, "data/kept").as_deref(), Some("kept"));
    assert_eq!(read(directory, "data/new").as_deref(), Some("new"));
    assert_eq!(read(directory, "data/gone"), None);
    assert_eq!(fs::read(directory.join("app.wasm")).unwrap(), PROGRAM);
    assert_eq!(
        (&*config.entrypoint, &*config.command),
        (&["/app.wasm".to_owned()][..], &["serve".to_owned()][..])
    );
    assert_eq!(config.working_directory.as_deref(), Some("/srv"));
    let documents = image.manifest().to_string().len() + image.config.to_string().len();
    assert_eq!(pulled.size, (documents + PROGRAM.len() + "keptgonenew".len()) as u64);

    let fixture = fixture.reopen();
    assert_eq!(fixture.find("app:1").await, Some(pulled.clone()));
    assert_eq!(fixture.store.list().await.unwrap(), std::slice::from_ref(&pulled));
    assert_eq!(fixture.files("blobs/sha256").len(), 2, "layers are not kept beside what they hold");
    fixture.store.remove(&pulled.digest).await.unwrap();
    ensure_empty(&fixture);
}

#[tokio::test]
async fn docker_and_zstd_and_several_platforms_are_taken() {
    let fixture = Fixture::start().await;
    let mut docker = Layered::new([base()]);
    docker.manifest_type = "application/vnd.docker.distribution.manifest.v2+json";
    docker.config_type = "application/vnd.docker.container.image.v1+json";
    docker.layer_type = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    docker.push(&fixture.server, "docker", "1");
    let pulled = fixture.pull("docker:1").await.unwrap();
    assert_eq!(read(&files(&pulled).directory, "data/kept").as_deref(), Some("kept"));

    let mut layer = base();
    let mut archive = Vec::new();
    std::io::copy(&mut flate2::read::GzDecoder::new(&layer.bytes[..]), &mut archive).unwrap();
    layer.bytes = zstd::encode_all(&archive[..], 3).unwrap().into();
    let mut image = Layered::new([layer, top()]);
    image.layer_type = "application/vnd.oci.image.layer.v1.tar+zstd";
    image.push(&fixture.server, "zstd", "platform");
    let entry = |os: &str, architecture: &str, bytes: &[u8]| {
        let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", bytes);
        entry["platform"] = json!({ "os": os, "architecture": architecture });
        entry
    };
    let wasm = entry("wasi", "wasm", image.manifest().to_string().as_bytes());
    let index = json!({ "schemaVersion": 2, "manifests": [entry("linux", "amd64", b"x"), wasm] }).to_string();
    fixture.server.content(&manifest_path("zstd", "1"), index);
    let pulled = fixture.pull("zstd:1").await.unwrap();
    assert_eq!(pulled.digest, image.digest());
    assert_eq!(read(&files(&pulled).directory, "data/new").as_deref(), Some("new"));
}

#[tokio::test]
async fn shared_layers_are_downloaded_and_kept_once() {
    let fixture = Fixture::start().await;
    let (one, two) = (Layered::new([base(), top()]), Layered::new([base(), Layer::new(&[("two", b"two")])]));
    one.push(&fixture.server, "one", "1");
    two.push(&fixture.server, "two", "1");
    let pulled = [fixture.pull("one:1").await.unwrap(), fixture.pull("two:1").await.unwrap()];
    assert_eq!(fixture.server.count(&two.layer_path("two", 0)), 0, "what is here is not asked for");
    let [first, second] =
        pulled.each_ref().map(|image| fs::metadata(files(image).directory.join("app.wasm")).unwrap());
    assert_eq!(first.ino(), second.ino());
    fixture.store.remove(&pulled[0].digest).await.unwrap();
    assert_eq!(read(&files(&pulled[1]).directory, "data/gone").as_deref(), Some("gone"));
    fixture.store.remove(&pulled[1].digest).await.unwrap();
    ensure_empty(&fixture);
}

#[tokio::test]
async fn twenty_pulls_of_one_image_unpack_it_once() {
    let fixture = Fixture::start().await;
    let image = Layered::new([base(), top()]);
    image.push(&fixture.server, "app", "1");
    image.push(&fixture.server, "app", "2");
    let pulled =
        join_all((0..20).map(|number| fixture.pull(if number % 2 == 0 { "app:1" } else { "app:2" }))).await;
    assert!(pulled.iter().all(|result| result.as_ref().unwrap().digest == image.digest()));
    assert_eq!(fixture.server.count(&image.layer_path("app", 0)), 1);
    assert_eq!(fixture.files("trees").len(), 2);
}

#[tokio::test]
async fn containers_change_their_own_files_only() {
    let fixture = Fixture::start().await;
    Layered::new([base(), top()]).push(&fixture.server, "app", "1");
    let pulled = fixture.pull("app:1").await.unwrap();
    let one = Root::of(&fixture, &pulled, "one").await;
    let two = Root::of(&fixture, &pulled, "two").await;
    fs::write(one.0.join("data/kept"), "changed").unwrap();
    fs::remove_file(one.0.join("data/new")).unwrap();
    fs::write(one.0.join("own"), "own").unwrap();
    for directory in [&two.0, &files(&pulled).directory] {
        assert_eq!(read(directory, "data/kept").as_deref(), Some("kept"));
        assert_eq!(read(directory, "data/new").as_deref(), Some("new"));
        assert_eq!(read(directory, "own"), None);
    }
    assert_eq!((read(&one.0, "data/kept").as_deref(), read(&one.0, "data/new")), (Some("changed"), None));
}

#[tokio::test]
async fn what_a_container_uses_is_not_removed_under_it() {
    let fixture = Fixture::start().await;
    Layered::new([base()]).push(&fixture.server, "app", "1");
    let pulled = fixture.pull("app:1").await.unwrap();
    let root = Root::of(&fixture, &pulled, "one").await;
    fixture.store.remove(&pulled.digest).await.unwrap();
    assert_eq!(fixture.find("app:1").await, None);
    assert_eq!(read(&root.0, "data/kept").as_deref(), Some("kept"));
    assert_eq!(fixture.files("trees").len(), 1);
    drop(root);
    fixture.store.remove(&pulled.digest).await.unwrap();
    ensure_empty(&fixture);
}

#[tokio::test]
async fn what_a_kill_left_half_made_is_not_used_and_goes() {
    let fixture = Fixture::start().await;
    let image = Layered::new([base(), top()]);
    image.push(&fixture.server, "app", "1");
    let pulled = fixture.pull("app:1").await.unwrap();
    let root = fixture.directory.path().to_owned();
    // A tree that was being unpacked, one that was being removed, and one that no image was recorded for.
    for half in ["unfinished/.tmpabc/files/d", "unfinished/ab.tree.removed/files"] {
        fs::create_dir_all(root.join(half)).unwrap();
        fs::write(root.join(half).join("half"), b"half").unwrap();
    }
    fs::create_dir_all(root.join("trees").join(digest(b"unknown").hex()).join("files")).unwrap();
    let fixture = fixture.reopen();
    assert_eq!(fixture.find("app:1").await, Some(pulled));
    assert_eq!(fixture.files("trees").len(), 2);
    assert_eq!(fixture.files("unfinished"), Vec::<String>::new());
}

#[tokio::test]
async fn files_that_are_damaged_since_are_found_so_and_pulled_again() {
    // As a machine leaves them that went down, or a disk that forgets.
    let damages: [fn(&Path); 5] = [
        |tree| fs::write(tree.join("files/data/kept"), "kepT").unwrap(),
        |tree| fs::write(tree.join("files/data/kept"), "").unwrap(),
        |tree| fs::remove_file(tree.join("files/data/kept")).unwrap(),
        |tree| fs::remove_dir_all(tree.join("files")).unwrap(),
        |tree| fs::write(tree.join("facts.json"), "").unwrap(),
    ];
    let fixture = Fixture::start().await;
    let image = Layered::new([base(), top()]);
    image.push(&fixture.server, "app", "1");
    let pulled = fixture.pull("app:1").await.unwrap();
    let tree = files(&pulled).directory.parent().unwrap().to_owned();
    let mut fixture = fixture;
    for (number, damage) in damages.into_iter().enumerate() {
        damage(&tree);
        fixture = fixture.reopen();
        assert_eq!(fixture.find("app:1").await, None, "{number}");
        assert_eq!(fixture.pull("app:1").await.unwrap(), pulled, "{number}");
        assert_eq!(read(&files(&pulled).directory, "data/kept").as_deref(), Some("kept"), "{number}");
        assert_eq!(fixture.find("app:1").await.as_ref(), Some(&pulled), "{number}");
    }
    fixture = fixture.reopen();
    let asked = fixture.server.asked().len();
    assert_eq!(fixture.find("app:1").await.as_ref(), Some(&pulled));
    assert_eq!(fixture.server.asked().len(), asked, "what is right is not pulled again");
}

#[tokio::test]
async fn nothing_is_made_of_layers_that_are_damaged_since() {
    let fixture = Fixture::start().await;
    Layered::new([base()]).push(&fixture.server, "app", "1");
    let pulled = fixture.pull("app:1").await.unwrap();
    fs::write(files(&pulled).directory.join("data/kept"), "kepT").unwrap();
    let fixture = fixture.reopen();
    Layered::new([base(), top()]).push(&fixture.server, "app", "2");
    let above = fixture.pull("app:2").await.unwrap();
    assert_eq!(read(&files(&above).directory, "data/kept").as_deref(), Some("kept"));
    let found = fixture.find("app:1").await.unwrap();
    assert_eq!(read(&files(&found).directory, "data/kept").as_deref(), Some("kept"));
}

#[tokio::test]
async fn files_that_somebody_took_away_are_pulled_again() {
    let fixture = Fixture::start().await;
    Layered::new([base()]).push(&fixture.server, "app", "1");
    let pulled = fixture.pull("app:1").await.unwrap();
    fs::remove_dir_all(files(&pulled).directory.parent().unwrap()).unwrap();
    assert_eq!(fixture.find("app:1").await, None);
    assert_eq!(fixture.pull("app:1").await.unwrap(), pulled);
}

#[tokio::test]
async fn a_pull_that_nobody_waits_for_leaves_nothing() {
    let fixture = Fixture::start().await;
    let image = Layered::new([base(), top()]);
    image.push(&fixture.server, "app", "1");
    let paths = [0, 1].map(|index| image.layer_path("app", index));
    for path in &paths {
        fixture.server.route(path, |_| std::future::ready(stalled("x")));
    }
    tokio::select! {
        biased;
        result = fixture.pull("app:1") => panic!("{result:?}"),
        _ = join_all(paths.iter().map(|path| fixture.server.until_asked(path))) => (),
    }
    ensure_empty(&fixture);
    image.push(&fixture.server, "app", "1");
    fixture.pull("app:1").await.unwrap();
}

#[tokio::test]
async fn a_layer_that_is_not_what_the_configuration_says_is_refused() {
    let fixture = Fixture::start().await;
    let mut image = Layered::new([base(), top()]);
    image.config["rootfs"]["diff_ids"][1] = json!(digest(b"other").as_str());
    image.push(&fixture.server, "app", "1");
    let error = fixture.pull("app:1").await.unwrap_err();
    assert!(
        matches!(&error, ImageError::Corrupt(text) if text.contains(digest(b"other").as_str())),
        "{error}"
    );
    ensure_empty(&fixture);
    image.config["rootfs"]["diff_ids"] = json!([image.layers[0].diff.as_str()]);
    image.push(&fixture.server, "app", "1");
    let error = fixture.pull("app:1").await.unwrap_err();
    assert!(
        matches!(&error, ImageError::Corrupt(text) if text.contains("has 1 layers, its manifest 2")),
        "{error}"
    );
    fixture.server.route(&image.layer_path("app", 0), |_| std::future::ready(ok("x")));
    ensure_empty(&fixture);
}
