//! What programs are given, and how their ends are told.

use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use crate::scene::Scene;
use crate::{guests, manifests, states};

#[tokio::test]
async fn exit_codes_are_exact() {
    let scene = Scene::new("exits").await.unwrap();
    let image = guests::image("exit-code").await.unwrap();
    let codes = [0, 1, 42, 125, 126, 137, 255];
    for code in codes {
        let spec = manifests::once(&image, &[&code.to_string()]);
        scene.run(&format!("exit-{code}"), spec).await.unwrap();
    }
    let component = guests::image("component-exit-code").await.unwrap();
    scene.run("component", manifests::once(&component, &[])).await.unwrap();
    let rust = guests::image("exit-rust-p2").await.unwrap();
    scene.run("component-rust", manifests::once(&rust, &["0"])).await.unwrap();

    for code in codes {
        check_exit(&scene, &format!("exit-{code}"), code).await;
    }
    check_exit(&scene, "component", 42).await;
    check_exit(&scene, "component-rust", 0).await;
}

async fn check_exit(scene: &Scene<'_>, pod: &str, code: i32) {
    let pod = scene.pod(pod, states::has_ended).await.unwrap();
    let (phase, reason) = if code == 0 { ("Succeeded", "Completed") } else { ("Failed", "Error") };
    assert_eq!((states::phase(&pod), states::exit(&pod)), (phase, Some((code, reason))));
}

#[tokio::test]
async fn guests_get_their_arguments_and_environment() {
    let scene = Scene::new("expands").await.unwrap();
    for guest in ["env-rust", "env-rust-p2"] {
        let image = guests::image(guest).await.unwrap();
        let container = json!({
            "image": image,
            "command": ["/bin/tool", "$(GREETING)"],
            "args": ["$(TWICE)", "$(MISSING)", "$$(GREETING)"],
            "env": [
                {"name": "GREETING", "value": "good day"},
                {"name": "TWICE", "value": "$(GREETING), $(GREETING)"},
                {"name": "LATER", "value": "$(LAST)"},
                {"name": "LAST", "value": "1"},
                {"name": "EMPTY"},
            ],
        });
        let spec = manifests::of("Never", &container);
        scene.run_until(guest, spec, states::has_ended).await.unwrap();
        let log = scene.logs(guest, &[]).await.unwrap();
        let arguments: Vec<_> = log.lines().filter(|line| line.starts_with("arg ")).collect();
        let expected = [
            "arg 0=/bin/tool",
            "arg 1=good day",
            "arg 2=good day, good day",
            "arg 3=$(MISSING)",
            "arg 4=$(GREETING)",
        ];
        assert_eq!(arguments, expected, "{guest}");
        for line in ["GREETING=good day", "TWICE=good day, good day", "LATER=$(LAST)", "LAST=1", "EMPTY="] {
            assert!(log.lines().any(|found| found == format!("env {line}")), "{line} in {log}");
        }
        let host = std::env::var("PATH").unwrap();
        assert!(!log.contains(&host), "a guest gets nothing of the node's own environment: {log}");
    }
}

#[tokio::test]
async fn a_guest_without_a_command_is_called_by_its_modules_name() {
    let scene = Scene::new("is-called").await.unwrap();
    let image = guests::image("env-rust").await.unwrap();
    scene.run_until("env", manifests::once(&image, &["one", "two"]), states::has_ended).await.unwrap();
    let log = scene.logs("env", &[]).await.unwrap();
    let arguments: Vec<_> = log.lines().filter(|line| line.starts_with("arg ")).collect();
    assert_eq!(arguments.len(), 3, "{log}");
    assert!(arguments[0].contains("env-rust"), "{log}");
    assert_eq!(arguments[1..], ["arg 1=one", "arg 2=two"]);
}

#[tokio::test]
async fn memory_beyond_the_limit_is_refused() {
    let scene = Scene::new("remembers").await.unwrap();
    let limited = |guest: &str, arguments: &[&str], limit: &str| {
        let resources = json!({"limits": {"memory": limit}});
        manifests::of("Never", &json!({"image": guest, "args": arguments, "resources": resources}))
    };
    let (grow, rust) =
        (guests::image("grow-memory").await.unwrap(), guests::image("memory-rust").await.unwrap());
    scene.run("grows", limited(&grow, &[], "16Mi")).await.unwrap();
    scene.run("greedy", limited(&rust, &["64"], "32Mi")).await.unwrap();
    scene.run("modest", limited(&rust, &["8"], "32Mi")).await.unwrap();
    for name in ["grows", "greedy"] {
        let pod = scene.pod(name, states::has_ended).await.unwrap();
        assert_eq!((states::phase(&pod), states::exit(&pod)), ("Failed", Some((137, "OOMKilled"))), "{name}");
    }
    let modest = scene.pod("modest", states::has_ended).await.unwrap();
    assert_eq!(states::exit(&modest), Some((0, "Completed")));
    let log = scene.logs("greedy", &["--tail=1"]).await.unwrap();
    let held: u32 = log.trim_end().trim_end_matches(" MiB").parse().unwrap();
    assert!((16..32).contains(&held), "{log}");
}

#[tokio::test]
async fn a_trap_is_told_in_the_status() {
    let scene = Scene::new("traps").await.unwrap();
    for (guest, text) in [("trap", "unreachable"), ("stack-overflow", "stack")] {
        let image = guests::image(guest).await.unwrap();
        let pod = scene.run_until(guest, manifests::once(&image, &[]), states::has_ended).await.unwrap();
        let ended = states::terminated(&pod).unwrap();
        assert_eq!((states::phase(&pod), ended.reason.as_deref()), ("Failed", Some("Error")));
        assert_ne!(ended.exit_code, 0);
        let message = ended.message.clone().unwrap_or_default();
        assert!(message.contains(text), "{guest}: {message}");
    }
}

#[tokio::test]
async fn the_containers_of_a_pod_end_each_on_its_own() {
    let scene = Scene::new("together").await.unwrap();
    let (hello, exit) = (guests::image("hello").await.unwrap(), guests::image("exit-code").await.unwrap());
    let spec = json!({"restartPolicy": "Never", "containers": [
        {"name": "second", "image": exit, "args": ["3"]}, {"name": "first", "image": hello},
    ]});
    let pod: Pod = scene.run_until("pair", spec, states::has_ended).await.unwrap();
    assert_eq!(states::phase(&pod), "Failed");
    let statuses = pod.status.unwrap().container_statuses.unwrap();
    let ends: Vec<_> = statuses
        .iter()
        .map(|status| {
            let ended = status.state.as_ref().unwrap().terminated.as_ref().unwrap();
            (status.name.as_str(), ended.exit_code)
        })
        .collect();
    assert_eq!(ends, [("first", 0), ("second", 3)]);
    assert_eq!(scene.logs("pair", &["--container=first"]).await.unwrap(), "hello from a guest\n");
}
