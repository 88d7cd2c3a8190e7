//! Jobs, and containers that are restarted.

use coracle_testing::wait;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::{Value, json};

use crate::scene::{LIMIT, Scene};
use crate::{guests, manifests, states};

fn job(name: &str, mut spec: Value, template: &Value) -> Value {
    spec["template"] = json!({"spec": template});
    json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec})
}

/// The reason for which a job is in a final condition.
fn condition<'j>(job: &'j Job, kind: &str) -> Option<&'j str> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let found = conditions.iter().find(|condition| condition.type_ == kind && condition.status == "True");
    found.map(|condition| condition.reason.as_deref().unwrap_or_default())
}

async fn pods_of(scene: &Scene<'_>, job: &str) -> Vec<Pod> {
    let params = ListParams::default().labels(&format!("batch.kubernetes.io/job-name={job}"));
    scene.api::<Pod>().list(&params).await.unwrap().items
}

#[tokio::test]
async fn a_job_completes() {
    let scene = Scene::new("completes").await.unwrap();
    let image = guests::image("job-rust").await.unwrap();
    let template = scene.placed(manifests::once(&image, &["1000"]));
    let manifest = job("primes", json!({"completions": 3, "parallelism": 2}), &template);
    scene.create::<Job>(manifest).await.unwrap();
    let complete = |job: &Job| condition(job, "Complete").is_some();
    let done = wait::object(scene.api::<Job>(), "primes", LIMIT, complete).await.unwrap();
    assert_eq!(done.status.unwrap().succeeded, Some(3));
    let pods = pods_of(&scene, "primes").await;
    assert_eq!(pods.len(), 3);
    for pod in pods {
        assert_eq!((states::phase(&pod), states::exit(&pod)), ("Succeeded", Some((0, "Completed"))));
        assert_eq!(scene.logs(&pod.name_any(), &[]).await.unwrap(), "168 primes below 1000\n");
    }
}

#[tokio::test]
async fn a_job_fails_at_its_limit() {
    let scene = Scene::new("fails").await.unwrap();
    let image = guests::image("exit-code").await.unwrap();
    let template = scene.placed(manifests::once(&image, &["3"]));
    scene.create::<Job>(job("three", json!({"backoffLimit": 1}), &template)).await.unwrap();
    let failed = |job: &Job| condition(job, "Failed").is_some();
    let done = wait::object(scene.api::<Job>(), "three", LIMIT, failed).await.unwrap();
    assert_eq!(condition(&done, "Failed"), Some("BackoffLimitExceeded"));
    let pods = pods_of(&scene, "three").await;
    assert_eq!(pods.len(), 2);
    for pod in &pods {
        assert_eq!((states::phase(pod), states::exit(pod)), ("Failed", Some((3, "Error"))));
        assert_eq!(states::restarts(pod), 0);
    }
}

#[tokio::test]
async fn a_failing_container_is_restarted_at_growing_intervals() {
    let scene = Scene::new("backs-off").await.unwrap();
    let image = guests::image("exit-code").await.unwrap();
    scene.run("loop", manifests::app("OnFailure", &image, &["7"])).await.unwrap();
    let waits = |count| {
        move |pod: &Pod| states::restarts(pod) == count && states::waiting_reason(pod) == "CrashLoopBackOff"
    };
    // The first restart is immediate.
    let once = scene.pod("loop", waits(1)).await.unwrap();
    assert_eq!(states::phase(&once), "Running");
    let message = states::waiting(&once).unwrap().message.clone().unwrap_or_default();
    let pod = format!("pod=loop_{}({})", scene.namespace, once.uid().unwrap());
    assert_eq!(message, format!("back-off 10s restarting failed container=app {pod}"));
    let first = states::last(&once).unwrap().clone();
    assert_eq!((first.exit_code, first.reason.as_deref()), (7, Some("Error")));
    scene.event("loop", "BackOff", "Back-off restarting failed container app in pod loop_").await.unwrap();

    let twice = scene.pod("loop", waits(2)).await.unwrap();
    let message = states::waiting(&twice).unwrap().message.clone().unwrap_or_default();
    assert!(message.starts_with("back-off 20s "), "{message}");
    let second = states::last(&twice).unwrap();
    let (ended, began) = (first.finished_at.unwrap().0, second.started_at.clone().unwrap().0);
    let seconds = began.duration_since(ended).as_secs();
    // Times are in whole seconds.
    assert!((9..=14).contains(&seconds), "restarted after {seconds} s");
    assert_ne!(second.container_id, first.container_id);
}

#[tokio::test]
async fn policies_decide_who_is_restarted() {
    let scene = Scene::new("policies").await.unwrap();
    let (hello, exit) = (guests::image("hello").await.unwrap(), guests::image("exit-code").await.unwrap());
    scene.run("always", manifests::app("Always", &hello, &[])).await.unwrap();
    scene.run("on-failure", manifests::app("OnFailure", &hello, &[])).await.unwrap();
    scene.run("never", manifests::app("Never", &exit, &["9"])).await.unwrap();
    let restarted = scene.pod("always", |pod| states::restarts(pod) >= 1).await.unwrap();
    assert_eq!(states::phase(&restarted), "Running");
    let done = scene.pod("on-failure", states::has_ended).await.unwrap();
    assert_eq!((states::phase(&done), states::restarts(&done)), ("Succeeded", 0));
    let failed = scene.pod("never", states::has_ended).await.unwrap();
    assert_eq!((states::phase(&failed), states::restarts(&failed)), ("Failed", 0));
}
