//! Images with files: what their programs see, and how programs are chosen.

use coracle_testing::registry::{Artifact, Files};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::scene::Scene;
use crate::{guests, manifests, states};

/// An image with two programs, one of them under three names, and data in two layers.
async fn image() -> String {
    let base = Files::default()
        .file("bin/env", &guests::wasm("env-rust").unwrap())
        .link("usr/bin/alias", "/bin/env")
        .link("alias", "usr/bin/alias")
        .file("data/below", b"below")
        .file("data/replaced", b"old");
    let top = Files::default()
        .file("bin/files", &guests::wasm("files-rust").unwrap())
        .file("data/replaced", b"new")
        .file("bin/sh", b"\x7fELF not for us");
    let config = json!({
        "Entrypoint": ["/bin/env"],
        "Cmd": ["from-image"],
        "Env": ["FROM=image", "WHO=image"],
        "WorkingDir": "/data",
    });
    let image = Artifact::image(vec![base, top], &config).unwrap();
    guests::push("with-files", "v1", &image).await.unwrap()
}

/// What a container of the image with these fields prints.
async fn printed(scene: &Scene<'_>, name: &str, fields: Value) -> String {
    let mut container = json!({"image": image().await});
    for (field, value) in fields.as_object().unwrap() {
        container[field] = value.clone();
    }
    let pod = scene.run_until(name, manifests::of("Never", &container), states::has_ended).await.unwrap();
    assert_eq!(states::exit(&pod), Some((0, "Completed")), "{name}");
    scene.logs(name, &[]).await.unwrap()
}

#[tokio::test]
async fn the_images_configuration_is_honoured_under_the_pods() {
    let scene = Scene::new("configured").await.unwrap();
    let said = printed(&scene, "as-it-is", json!({"env": [{"name": "WHO", "value": "pod"}]})).await;
    for line in ["arg 0=/bin/env", "arg 1=from-image", "env FROM=image", "env WHO=pod", "env PWD=/data"] {
        assert!(said.lines().any(|said| said == line), "{line}: {said}");
    }
    let said = printed(&scene, "other-args", json!({"args": ["a"], "workingDir": "/"})).await;
    assert!(said.contains("arg 0=/bin/env\narg 1=a\nenv") && said.contains("env PWD=/\n"), "{said}");
    let said = printed(&scene, "other-command", json!({"command": ["/bin/env"]})).await;
    assert!(said.starts_with("arg 0=/bin/env\nenv"), "{said}");
}

#[tokio::test]
async fn commands_are_found_by_path_name_and_link() {
    let scene = Scene::new("commands").await.unwrap();
    for (name, command) in [("path", "/bin/env"), ("name", "env"), ("link", "alias"), ("links", "/alias")] {
        let said = printed(&scene, name, json!({"command": [command, "x"]})).await;
        assert!(said.starts_with(&format!("arg 0={command}\narg 1=x\n")), "{said}");
    }
    let paths = json!({"command": ["files", "/data/below", "/data/replaced", "/usr/bin"]});
    let said = printed(&scene, "files", paths).await;
    assert_eq!(said, "file /data/below\nbelow\nfile /data/replaced\nnew\ndirectory /usr/bin alias\n");
}

#[tokio::test]
async fn commands_that_cannot_be_run_are_named() {
    let scene = Scene::new("no-commands").await.unwrap();
    let cases = [
        ("nowhere", "nowhere", "executable file not found in $PATH"),
        ("no-path", "/no/path", "no such file or directory"),
        ("elf", "/bin/sh", "exec format error"),
    ];
    for (name, command, _) in cases {
        let container = json!({"image": image().await, "command": [command]});
        scene.run(name, manifests::of("Always", &container)).await.unwrap();
    }
    for (name, _, why) in cases {
        let loops = |pod: &Pod| states::waiting_reason(pod) == "CrashLoopBackOff";
        let pod = scene.pod(name, loops).await.unwrap();
        let message = states::start_error(&pod);
        assert!(message.contains(why), "{message}");
        scene.event(name, "Failed", why).await.unwrap();
    }
}

#[tokio::test]
async fn a_directory_is_not_mounted_over_a_file_of_the_image() {
    let scene = Scene::new("in-the-way").await.unwrap();
    let mut container = json!({"image": image().await, "command": ["/bin/env"]});
    container["volumeMounts"] = json!([{"name": "v", "mountPath": "/data/below"}]);
    let mut spec = manifests::of("Never", &container);
    spec["volumes"] = json!([{"name": "v", "emptyDir": {}}]);
    let pod = scene.run_until("file", spec.clone(), states::has_ended).await.unwrap();
    let why = "error mounting \"/data/below\": not a directory";
    assert!(states::start_error(&pod).contains(why), "{pod:?}");
    scene.event("file", "Failed", why).await.unwrap();
    spec["containers"][0]["volumeMounts"][0]["mountPath"] = json!("/data");
    let pod = scene.run_until("directory", spec, states::has_ended).await.unwrap();
    assert_eq!(states::exit(&pod), Some((0, "Completed")));
}
