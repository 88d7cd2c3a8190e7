//! A disk without room: who needs it waits and is told why, what was there stays whole, and all goes on when there is room.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use coracle_testing::registry::{Artifact, Files};
use coracle_testing::{Cluster, NodeOptions};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Patch, PatchParams};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::json;

use crate::files::{outcomes, spec};
use crate::scene::{Scene, options};
use crate::{guests, manifests, states, until};

const NO_ROOM: &str = "No space left on device";

/// A file system of 64 MiB, gone with this value.
struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    /// `None` where the test may not mount.
    fn new() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        match mount("tmpfs", folder.path(), "tmpfs", MountFlags::empty(), c"size=64m") {
            Ok(()) => Some(Self { folder }),
            Err(error) => {
                println!("no disk can be mounted here: {error}");
                None
            }
        }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    fn ballast(&self) -> PathBuf {
        self.folder.path().join("ballast")
    }

    /// Leaves no room for a single byte.
    fn fill(&self) {
        let mut ballast = File::options().append(true).create(true).open(self.ballast()).unwrap();
        for size in [1 << 20, 1 << 12, 1] {
            let chunk = vec![0; size];
            while ballast.write_all(&chunk).is_ok() {}
        }
    }

    fn make_room(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // What the node had mounted in it goes first.
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let places = table.lines().filter_map(|line| line.split(' ').nth(4)).map(Path::new);
        let below: Vec<_> = places.filter(|place| place.starts_with(self.folder.path())).collect();
        for place in below.iter().rev() {
            let _ = unmount(*place, UnmountFlags::DETACH);
        }
    }
}

async fn settings(scene: &Scene<'_>, name: &str, colour: &str) {
    let settings = json!({"data": {"colour": colour}, "metadata": {"name": name}});
    scene.create::<ConfigMap>(settings).await.unwrap();
}

async fn node(disk: &Disk, name: &str) -> Scene<'static> {
    let options = NodeOptions { root_directory: Some(disk.root()), ..options(name).await.unwrap() };
    Scene::with(Cluster::shared().await.unwrap(), options).await.unwrap()
}

#[tokio::test]
async fn a_full_disk_is_named_and_what_was_there_stays_whole() {
    let Some(disk) = Disk::new() else { return };
    let scene = node(&disk, "full").await;
    settings(&scene, "settings", "blue").await;
    let volume = |name: &str| json!([{"name": "v", "configMap": {"name": name}}]);
    let mounts = json!([{"name": "v", "mountPath": "/v"}]);
    let follows = spec(volume("settings"), mounts.clone(), &["follow /v/colour red"]).await;
    let follows = scene.run_until("follows", follows, states::is_running).await.unwrap();
    scene.run("waits", spec(volume("late"), mounts, &["read /v/colour"]).await).await.unwrap();
    scene.event("waits", "FailedMount", "configmap \"late\" not found").await.unwrap();

    disk.fill();
    settings(&scene, "late", "green").await;
    let red = Patch::Merge(json!({"data": {"colour": "red"}}));
    scene.api::<ConfigMap>().patch("settings", &PatchParams::default(), &red).await.unwrap();
    for pod in ["waits", "follows"] {
        let event = scene.event(pod, "FailedMount", NO_ROOM).await.unwrap();
        let message = event.message.unwrap_or_default();
        assert!(message.starts_with("MountVolume.SetUp failed for volume \"v\" : "), "{message}");
    }
    scene.pod("waits", |pod: &Pod| states::waiting_reason(pod) == "ContainerCreating").await.unwrap();
    let seen = scene.pod_directory(&follows).join("volumes/kubernetes.io~configmap/v/colour");
    assert_eq!(fs::read_to_string(seen).unwrap(), "blue");

    disk.make_room();
    for pod in ["waits", "follows"] {
        scene.pod(pod, states::has_ended).await.unwrap();
    }
    assert_eq!(outcomes(&scene, "waits").await["read /v/colour"], "green");
    let log = scene.node.log().unwrap();
    assert!(!log.contains("panicked"), "{log}");
}

#[tokio::test]
async fn a_container_that_cannot_start_on_a_full_disk_starts_when_there_is_room() {
    let Some(disk) = Disk::new() else { return };
    let scene = node(&disk, "full-start").await;
    let volumes = json!([{"name": "v", "emptyDir": {}}]);
    let mounts = json!([{"name": "v", "mountPath": "/v"}]);
    let commands = ["read /v/kept", "write /v/kept whole", "fill /v/file 100000000", "exit 1"];
    let mut fills = spec(volumes, mounts, &commands).await;
    fills["restartPolicy"] = "Always".into();
    scene.run("fills", fills).await.unwrap();
    let is_named = |pod: &Pod| {
        let waiting = states::waiting(pod);
        waiting.is_some_and(|waiting| {
            let message = waiting.message.as_deref().unwrap_or_default();
            waiting.reason.as_deref() == Some("CreateContainerError") && message.contains(NO_ROOM)
        })
    };
    let pod = scene.pod("fills", is_named).await.unwrap();
    scene.event("fills", "Failed", NO_ROOM).await.unwrap();
    let volume = scene.pod_directory(&pod).join("volumes/kubernetes.io~empty-dir/v");
    assert_eq!(fs::read_to_string(volume.join("kept")).unwrap(), "whole");
    // What fills it now gets back what it needs, and no more.
    fs::remove_file(volume.join("file")).unwrap();
    fs::create_dir(volume.join("file")).unwrap();
    let restarts = states::restarts(&pod);
    scene.pod("fills", |pod: &Pod| states::restarts(pod) > restarts).await.unwrap();
    let log = scene.logs("fills", &["--previous"]).await.unwrap();
    assert!(log.contains("read /v/kept: whole\n"), "{log}");
    scene.delete("fills", Some(1)).await.unwrap();
    scene.gone("fills").await.unwrap();
    let directory = scene.pod_directory(&pod);
    until::so("the pod's files are gone", || !directory.exists()).await.unwrap();
}

/// Bytes that no compression makes fewer.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..length).map(|_| next()).collect()
}

#[tokio::test]
async fn an_image_that_finds_no_room_is_pulled_when_there_is_some() {
    let Some(disk) = Disk::new() else { return };
    let scene = node(&disk, "full-image").await;
    let hello = guests::image("hello").await.unwrap();
    scene.run_until("before", manifests::once(&hello, &[]), states::has_ended).await.unwrap();
    let program = Files::default().file("app.wasm", &guests::wasm("hello").unwrap());
    let layers = vec![program, Files::default().file("noise", &noise(20 << 20))];
    let image = Artifact::image(layers, &json!({"Entrypoint": ["/app.wasm"]})).unwrap();
    let image = guests::push("full-image", "v1", &image).await.unwrap();
    File::create(disk.ballast()).unwrap().write_all(&vec![0; 48 << 20]).unwrap();

    scene.run("large", manifests::once(&image, &[])).await.unwrap();
    let event = scene.event("large", "Failed", NO_ROOM).await.unwrap();
    let message = event.message.unwrap();
    assert!(message.starts_with(&format!("Failed to pull image {image:?}: ")), "{message}");
    let waits = |pod: &Pod| matches!(states::waiting_reason(pod), "ErrImagePull" | "ImagePullBackOff");
    scene.pod("large", waits).await.unwrap();
    let unfinished = disk.root().join("images/unfinished");
    let is_empty = || fs::read_dir(&unfinished).unwrap().next().is_none();
    until::so("nothing unfinished is left", is_empty).await.unwrap();
    let here = manifests::of("Never", &json!({"image": hello, "imagePullPolicy": "Never"}));
    let pod = scene.run_until("during", here, states::has_ended).await.unwrap();
    assert_eq!(states::exit(&pod), Some((0, "Completed")));

    disk.make_room();
    let pod = scene.pod("large", states::has_ended).await.unwrap();
    assert_eq!(states::exit(&pod), Some((0, "Completed")));
}
