//! An agent that is asked to stop, and started again.

use coracle_testing::wait;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::json;

use crate::scene::{LIMIT, Scene};
use crate::{guests, manifests, states};

#[tokio::test]
async fn an_agent_that_is_asked_to_stop_says_what_it_interrupted() {
    let mut scene = Scene::new("stops").await.unwrap();
    let (ticker, hello) = (guests::image("ticker").await.unwrap(), guests::image("hello").await.unwrap());
    for policy in ["Always", "OnFailure", "Never"] {
        scene.run(&policy.to_lowercase(), manifests::app(policy, &ticker, &[])).await.unwrap();
    }
    let done = scene.run_until("done", manifests::once(&hello, &[]), states::has_ended).await.unwrap();
    for name in ["always", "onfailure", "never"] {
        scene.pod(name, states::is_running).await.unwrap();
    }

    assert_eq!(scene.node.terminate().await.unwrap().code(), Some(0));
    // Written by the agent before it ended: nobody else is there who could.
    let pods = scene.api::<Pod>();
    check_interrupted(&pods.get("never").await.unwrap());
    for name in ["always", "onfailure"] {
        let pod = pods.get(name).await.unwrap();
        assert!(!states::is_running(&pod) && !states::has_ended(&pod), "{:?}", pod.status);
    }

    scene.node.restart().await.unwrap();
    for name in ["always", "onfailure"] {
        let again = |pod: &Pod| states::restarts(pod) == 1 && states::is_running(pod);
        scene.pod(name, again).await.unwrap();
    }
    check_interrupted(&pods.get("never").await.unwrap());
    let same = pods.get("done").await.unwrap();
    assert_eq!((states::phase(&same), states::terminated(&same)), ("Succeeded", states::terminated(&done)));
    assert_eq!(scene.logs("done", &[]).await.unwrap(), "hello from a guest\n");
}

/// A pod that was interrupted and is never restarted: nobody knows how it would have ended.
fn check_interrupted(pod: &Pod) {
    assert_eq!(states::phase(pod), "Failed");
    assert_eq!(states::exit(pod), Some((137, "ContainerStatusUnknown")));
    let disrupted = states::condition(pod, "DisruptionTarget").unwrap();
    assert_eq!((&*disrupted.status, disrupted.reason.as_deref()), ("True", Some("TerminationByKubelet")));
}

#[tokio::test]
async fn a_job_can_ignore_that_its_pod_was_interrupted() {
    let mut scene = Scene::new("ignores").await.unwrap();
    let image = guests::image("ticker").await.unwrap();
    let manifest = json!({"metadata": {"name": "ticks"}, "spec": {
        "backoffLimit": 0,
        "podFailurePolicy": {"rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        ]},
        "template": {"spec": scene.placed(manifests::once(&image, &[]))},
    }});
    scene.create::<Job>(manifest).await.unwrap();
    let ready = |job: &Job| job.status.as_ref().is_some_and(|status| status.ready == Some(1));
    wait::object(scene.api::<Job>(), "ticks", LIMIT, ready).await.unwrap();
    let api = scene.api::<Pod>();
    let pods = async || api.list(&ListParams::default()).await.unwrap().items;
    let first = pods().await.remove(0).name_any();

    scene.node.terminate().await.unwrap();
    check_interrupted(&scene.pod(&first, states::has_ended).await.unwrap());
    wait::object(scene.api::<Job>(), "ticks", LIMIT, |job| !ready(job)).await.unwrap();
    scene.node.restart().await.unwrap();
    let again = wait::object(scene.api::<Job>(), "ticks", LIMIT, ready).await.unwrap();
    assert_eq!(again.status.unwrap().failed.unwrap_or(0), 0);
    let pods = pods().await;
    let running: Vec<_> = pods.iter().filter(|pod| states::is_running(pod)).collect();
    assert!(running.len() == 1 && running[0].name_any() != first, "{running:?}");
}
