//! In which order containers of a pod begin and end, and which of them begin anew.

use coracle_testing::wait;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::scene::{LIMIT, Scene};
use crate::{guests, manifests, states};

/// The status of a container of any kind.
fn status<'p>(pod: &'p Pod, name: &str) -> Option<&'p ContainerStatus> {
    let status = pod.status.as_ref()?;
    let lists =
        [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses];
    lists.into_iter().flatten().flatten().find(|status| status.name == name)
}

fn terminated<'p>(pod: &'p Pod, name: &str) -> Option<&'p ContainerStateTerminated> {
    status(pod, name)?.state.as_ref()?.terminated.as_ref()
}

fn exit(pod: &Pod, name: &str) -> Option<i32> {
    terminated(pod, name).map(|ended| ended.exit_code)
}

fn is_running(pod: &Pod, name: &str) -> bool {
    status(pod, name).and_then(|status| status.state.as_ref()).is_some_and(|state| state.running.is_some())
}

fn started_at(pod: &Pod, name: &str) -> Timestamp {
    let state = status(pod, name).unwrap().state.clone().unwrap();
    let running = state.running.and_then(|running| running.started_at);
    running.or(state.terminated.and_then(|ended| ended.started_at)).unwrap().0
}

fn finished_at(pod: &Pod, name: &str) -> Timestamp {
    terminated(pod, name).unwrap().finished_at.clone().unwrap().0
}

fn sidecar(name: &str, image: &str) -> Value {
    json!({"name": name, "image": image, "restartPolicy": "Always"})
}

#[tokio::test]
async fn init_containers_and_sidecars_begin_in_order() {
    let scene = Scene::new("init-order").await.unwrap();
    let (hello, sleep) = (guests::image("hello").await.unwrap(), guests::image("sleep").await.unwrap());
    let nap = guests::push("nap-one", "v1", &coracle_testing::Artifact::cncf(guests::nap(1).unwrap())).await;
    let spec = json!({"restartPolicy": "Always",
        "initContainers": [{"name": "hello", "image": hello}, sidecar("side", &sleep), {"name": "nap", "image": nap.unwrap()}],
        "containers": [{"name": "app", "image": sleep}],
    });
    let is_ready =
        |pod: &Pod| states::condition(pod, "Ready").is_some_and(|condition| condition.status == "True");
    let pod = scene.run_until("ordered", spec, is_ready).await.unwrap();
    assert_eq!([exit(&pod, "hello"), exit(&pod, "nap")], [Some(0), Some(0)]);
    assert!(is_running(&pod, "side") && is_running(&pod, "app"));
    assert!(finished_at(&pod, "hello") <= started_at(&pod, "side"));
    assert!(started_at(&pod, "side") <= started_at(&pod, "nap"));
    assert!(finished_at(&pod, "nap") <= started_at(&pod, "app"));
    assert_eq!(states::condition(&pod, "Initialized").unwrap().status, "True");
    assert_eq!(scene.logs("ordered", &["-c", "hello"]).await.unwrap(), "hello from a guest\n");
    let event = scene.event("ordered", "Started", "Container started").await.unwrap();
    assert!(event.involved_object.field_path.unwrap().starts_with("spec."));
}

#[tokio::test]
async fn an_init_container_that_fails_keeps_the_others_from_running() {
    let scene = Scene::new("init-fails").await.unwrap();
    let (exit_code, hello) =
        (guests::image("exit-code").await.unwrap(), guests::image("hello").await.unwrap());
    let spec = |policy: &str| {
        json!({"restartPolicy": policy,
            "initContainers": [{"name": "fails", "image": exit_code, "args": ["4"]}],
            "containers": [{"name": "app", "image": hello}],
        })
    };
    scene.run("again", spec("Always")).await.unwrap();
    let failed = scene.run_until("once", spec("Never"), states::has_ended).await.unwrap();
    assert_eq!((states::phase(&failed), exit(&failed, "fails")), ("Failed", Some(4)));
    assert_eq!(states::waiting_reason(&failed), "PodInitializing");
    let restarted = |pod: &Pod| status(pod, "fails").is_some_and(|status| status.restart_count >= 1);
    let again = scene.pod("again", restarted).await.unwrap();
    assert_eq!(states::phase(&again), "Pending");
    let condition = states::condition(&again, "Initialized").unwrap();
    assert_eq!(condition.message.as_deref(), Some("containers with incomplete status: [fails]"));
}

#[tokio::test]
async fn a_job_with_sidecars_completes() {
    let scene = Scene::new("sidecar-job").await.unwrap();
    let (hello, sleep) = (guests::image("hello").await.unwrap(), guests::image("sleep").await.unwrap());
    let template = scene.placed(json!({"restartPolicy": "Never",
        "initContainers": [sidecar("one", &sleep), sidecar("two", &sleep)],
        "containers": [{"name": "app", "image": hello}],
    }));
    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "work"},
        "spec": {"backoffLimit": 0, "template": {"spec": template}}});
    scene.create::<Job>(job).await.unwrap();
    let complete = |job: &Job| job.status.as_ref().is_some_and(|status| status.succeeded == Some(1));
    wait::object(scene.api::<Job>(), "work", LIMIT, complete).await.unwrap();
    let params = kube::api::ListParams::default().labels("batch.kubernetes.io/job-name=work");
    let pods = scene.api::<Pod>().list(&params).await.unwrap().items;
    let pod = &pods[0];
    assert_eq!(["app", "one", "two"].map(|name| exit(pod, name)), [Some(0), Some(143), Some(143)]);
    assert!(finished_at(pod, "two") <= finished_at(pod, "one"), "the last sidecar ends first");
}

#[tokio::test]
async fn containers_have_policies_and_rules_of_their_own() {
    let scene = Scene::new("own-rules").await.unwrap();
    let (exit_code, sleep) =
        (guests::image("exit-code").await.unwrap(), guests::image("sleep").await.unwrap());
    let rule = |action: &str, code: i32| json!([{"action": action, "exitCodes": {"operator": "In", "values": [code]}}]);
    let spec = json!({"restartPolicy": "Never", "containers": [
        {"name": "always", "image": exit_code, "args": ["0"], "restartPolicy": "Always"},
        {"name": "matches", "image": exit_code, "args": ["42"], "restartPolicy": "Never", "restartPolicyRules": rule("Restart", 42)},
        {"name": "fails", "image": exit_code, "args": ["41"], "restartPolicy": "Never", "restartPolicyRules": rule("Restart", 42)},
    ]});
    let is_so = |pod: &Pod| {
        let restarts = |name| status(pod, name).map_or(0, |status| status.restart_count);
        restarts("always") >= 1 && restarts("matches") >= 1 && exit(pod, "fails") == Some(41)
    };
    let pod = scene.run_until("rules", spec, is_so).await.unwrap();
    assert_eq!(status(&pod, "fails").unwrap().restart_count, 0);
    let spec = json!({"restartPolicy": "Never",
        "initContainers": [{"name": "first", "image": exit_code, "args": ["0"]}],
        "containers": [
            {"name": "source", "image": exit_code, "args": ["88"], "restartPolicy": "Never", "restartPolicyRules": rule("RestartAllContainers", 88)},
            {"name": "other", "image": sleep},
        ],
    });
    // The source may end before the other one has begun at all, round after round.
    let anew = |pod: &Pod| {
        ["first", "source"]
            .iter()
            .all(|name| status(pod, name).is_some_and(|status| status.restart_count >= 1))
    };
    let pod = scene.run_until("all", spec, anew).await.unwrap();
    let last = status(&pod, "first").unwrap().last_state.as_ref().unwrap().terminated.as_ref().unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref()), (137, Some("RestartingAllContainers")));
    assert_eq!(
        last.message.as_deref(),
        Some("The container is removed because RestartAllContainers in place")
    );
}

#[tokio::test]
async fn a_pod_is_looked_into_with_kubectl_debug() {
    let scene = Scene::new("debugged").await.unwrap();
    let (hello, sleep) = (guests::image("hello").await.unwrap(), guests::image("sleep").await.unwrap());
    scene.run_until("app", manifests::app("Always", &sleep, &[]), states::is_running).await.unwrap();
    let arguments =
        ["debug", "app", "--image", &hello, "--target", "app", "--container", "look", "--attach=false"];
    let output = scene.kubectl(&arguments).await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let pod = scene.pod("app", |pod| exit(pod, "look").is_some()).await.unwrap();
    assert_eq!(exit(&pod, "look"), Some(0));
    assert_eq!(scene.logs("app", &["-c", "look"]).await.unwrap(), "hello from a guest\n");
    assert!(states::is_running(&pod) && states::restarts(&pod) == 0);
}

#[tokio::test]
async fn another_image_restarts_just_that_container() {
    let scene = Scene::new("new-image").await.unwrap();
    let (ticker, sleep) = (guests::image("ticker").await.unwrap(), guests::image("sleep").await.unwrap());
    let spec = json!({"restartPolicy": "Never", "containers": [
        {"name": "app", "image": sleep}, {"name": "other", "image": sleep},
    ]});
    let both = |pod: &Pod| is_running(pod, "app") && is_running(pod, "other");
    scene.run_until("changes", spec, both).await.unwrap();
    let patch = json!({"spec": {"containers": [{"name": "app", "image": ticker}]}});
    scene.api::<Pod>().patch("changes", &PatchParams::default(), &Patch::Strategic(patch)).await.unwrap();
    let anew = |pod: &Pod| is_running(pod, "app") && status(pod, "app").unwrap().restart_count == 1;
    let pod = scene.pod("changes", anew).await.unwrap();
    assert_eq!(status(&pod, "app").unwrap().image, ticker);
    assert_eq!(status(&pod, "other").unwrap().restart_count, 0);
    let message = "Container app definition changed, will be restarted";
    scene.event("changes", "Killing", message).await.unwrap();
}
