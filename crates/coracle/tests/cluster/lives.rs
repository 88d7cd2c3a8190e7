//! Lives that do not go as most do.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::scene::Scene;
use crate::{guests, manifests, states};

fn init_exits(pod: &Pod) -> Vec<Option<i32>> {
    let statuses = pod.status.iter().flat_map(|status| status.init_container_statuses.iter().flatten());
    let code = |status: &ContainerStatus| Some(status.state.as_ref()?.terminated.as_ref()?.exit_code);
    statuses.map(code).collect()
}

fn ephemeral<'p>(pod: &'p Pod, name: &str) -> Option<&'p ContainerStatus> {
    let statuses = pod.status.as_ref()?.ephemeral_container_statuses.as_ref()?;
    statuses.iter().find(|status| status.name == name)
}

async fn patch(scene: &Scene<'_>, name: &str, patch: Value) {
    let patch = Patch::Merge(patch);
    scene.api::<Pod>().patch(name, &PatchParams::default(), &patch).await.unwrap();
}

#[tokio::test]
async fn a_pod_that_begins_and_ends_once_says_that_all_is_done() {
    let scene = Scene::new("once-done").await.unwrap();
    let hello = guests::image("hello").await.unwrap();
    let mut spec = manifests::once(&hello, &[]);
    spec["initContainers"] = json!([{"name": "one", "image": hello}, {"name": "two", "image": hello}]);
    let pod = scene.run_until("done", spec, states::has_ended).await.unwrap();
    assert_eq!((states::phase(&pod), init_exits(&pod)), ("Succeeded", vec![Some(0), Some(0)]));
    let condition = |kind| {
        let condition = states::condition(&pod, kind).unwrap();
        (condition.status.as_str(), condition.reason.as_deref())
    };
    assert_eq!(condition("Initialized"), ("True", Some("PodCompleted")));
    assert_eq!(condition("Ready"), ("False", Some("PodCompleted")));
    assert_eq!(condition("PodReadyToStartContainers").0, "False");
    assert!(pod.status.as_ref().unwrap().init_container_statuses.iter().flatten().all(|status| status.ready));
    assert!(pod.status.unwrap().pod_ip.is_some(), "the address is kept");
}

#[tokio::test]
async fn a_finalizer_keeps_the_object_and_not_what_runs() {
    let scene = Scene::new("finalized").await.unwrap();
    let spec = scene.placed(manifests::app("Always", &guests::image("ticker").await.unwrap(), &[]));
    let mut kept = manifests::pod("kept", &spec);
    kept["metadata"]["finalizers"] = json!(["example.com/kept"]);
    scene.create::<Pod>(kept).await.unwrap();
    scene.pod("kept", states::is_running).await.unwrap();
    scene.delete("kept", None).await.unwrap();
    let pod = scene.pod("kept", states::has_ended).await.unwrap();
    assert_eq!((states::phase(&pod), states::exit(&pod)), ("Failed", Some((143, "Error"))));
    // Its name is taken, its place on the node is not.
    let hello = guests::image("hello").await.unwrap();
    scene.run_until("next", manifests::once(&hello, &[]), states::has_ended).await.unwrap();
    let directory = scene.pod_directory(&pod);
    patch(&scene, "kept", json!({"metadata": {"finalizers": null}})).await;
    scene.gone("kept").await.unwrap();
    crate::until::so("the pod's directory is gone", || !directory.exists()).await.unwrap();
}

#[tokio::test]
async fn a_deadline_ends_what_has_not_begun() {
    let scene = Scene::new("never-began").await.unwrap();
    let mut spec = manifests::app("Always", "127.0.0.1:1/missing:v1", &[]);
    spec["activeDeadlineSeconds"] = json!(2);
    let pod = scene.run_until("late", spec, states::has_ended).await.unwrap();
    let reason = pod.status.as_ref().unwrap().reason.as_deref();
    assert_eq!((states::phase(&pod), reason), ("Failed", Some("DeadlineExceeded")));
    scene.event("late", "DeadlineExceeded", "Pod was active").await.unwrap();
    scene.delete("late", None).await.unwrap();
    scene.gone("late").await.unwrap();
}

#[tokio::test]
async fn what_looks_into_a_pod_neither_ends_it_nor_keeps_it() {
    let scene = Scene::new("looks").await.unwrap();
    let (sleep, hello) = (guests::image("sleep").await.unwrap(), guests::image("hello").await.unwrap());
    scene.run_until("looked", manifests::once(&hello, &[]), states::has_ended).await.unwrap();
    scene.run_until("app", manifests::app("Always", &sleep, &[]), states::is_running).await.unwrap();
    for (name, image) in
        [("missing", "127.0.0.1:1/missing:v1"), ("done", hello.as_str()), ("stays", sleep.as_str())]
    {
        let arguments =
            ["debug", "app", "--image", image, "--target", "app", "--container", name, "--attach=false"];
        let output = scene.kubectl(&arguments).await.unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    let is_so = |pod: &Pod| {
        let state = |name| ephemeral(pod, name).and_then(|status| status.state.clone());
        let waits = state("missing").and_then(|state| state.waiting).and_then(|waiting| waiting.reason);
        waits.is_some_and(|reason| reason.starts_with("ErrImagePull") || reason == "ImagePullBackOff")
            && state("done").is_some_and(|state| state.terminated.is_some())
            && state("stays").is_some_and(|state| state.running.is_some())
    };
    let pod = scene.pod("app", is_so).await.unwrap();
    assert!(states::is_running(&pod) && states::restarts(&pod) == 0);
    assert_eq!(states::condition(&pod, "Ready").unwrap().status, "True");
    assert_eq!(ephemeral(&pod, "done").unwrap().restart_count, 0);
    scene.delete("app", None).await.unwrap();
    scene.gone("app").await.unwrap();
}

#[tokio::test]
async fn a_job_reads_the_codes_of_its_pods() {
    let scene = Scene::new("codes").await.unwrap();
    let image = guests::image("exit-code").await.unwrap();
    let template = scene.placed(manifests::once(&image, &["42"]));
    let policy = json!({"rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}]});
    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "fails"},
        "spec": {"backoffLimit": 6, "podFailurePolicy": policy, "template": {"spec": template}}});
    scene.create::<k8s_openapi::api::batch::v1::Job>(job).await.unwrap();
    let failed = |job: &k8s_openapi::api::batch::v1::Job| {
        let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
        conditions.into_iter().any(|condition| {
            condition.type_ == "Failed" && condition.reason.as_deref() == Some("PodFailurePolicy")
        })
    };
    coracle_testing::wait::object(scene.api(), "fails", crate::scene::LIMIT, failed).await.unwrap();
}
