//! Workloads of controllers that have tests nowhere else: `DaemonSets`, `StatefulSets` in their order, `CronJobs`.

use coracle_testing::wait;
use k8s_openapi::api::apps::v1::{DaemonSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::scene::{LIMIT, Scene};
use crate::{guests, manifests, states};

fn labelled(app: &str, spec: &Value) -> Value {
    json!({"metadata": {"labels": {"app": app}}, "spec": spec})
}

async fn pods(scene: &Scene<'_>, app: &str) -> Vec<Pod> {
    let params = ListParams::default().labels(&format!("app={app}"));
    scene.api::<Pod>().list(&params).await.unwrap().items
}

#[tokio::test]
async fn a_daemon_set_has_its_pod_here_rolls_and_goes() {
    let scene = Scene::new("daemons").await.unwrap();
    let (ticker, sleep) = (guests::image("ticker").await.unwrap(), guests::image("sleep").await.unwrap());
    let template = |image: &str| labelled("agent", &scene.placed(manifests::app("Always", image, &[])));
    let manifest = json!({"metadata": {"name": "agent"}, "spec": {
        "selector": {"matchLabels": {"app": "agent"}}, "template": template(&ticker),
    }});
    scene.create::<DaemonSet>(manifest).await.unwrap();
    let settled = |set: &DaemonSet| {
        set.status.as_ref().is_some_and(|status| {
            status.observed_generation == set.metadata.generation
                && status.updated_number_scheduled == Some(1)
                && status.number_available == Some(1)
        })
    };
    wait::object(scene.api::<DaemonSet>(), "agent", LIMIT, settled).await.unwrap();
    let old = pods(&scene, "agent").await.remove(0);
    let patch = Patch::Strategic(json!({"spec": {"template": template(&sleep)}}));
    scene.api::<DaemonSet>().patch("agent", &PatchParams::default(), &patch).await.unwrap();
    wait::object(scene.api::<DaemonSet>(), "agent", LIMIT, settled).await.unwrap();
    scene.gone(&old.name_any()).await.unwrap();
    let new = pods(&scene, "agent").await.remove(0);
    assert_eq!(states::status(&new).unwrap().image, sleep);
    scene.api::<DaemonSet>().delete("agent", &DeleteParams::default()).await.unwrap();
    scene.gone(&new.name_any()).await.unwrap();
}

#[tokio::test]
async fn a_stateful_set_begins_and_ends_in_order() {
    let scene = Scene::new("in-order").await.unwrap();
    let image = guests::image("ticker").await.unwrap();
    let template = labelled("db", &scene.placed(manifests::app("Always", &image, &[])));
    let manifest = json!({"metadata": {"name": "db"}, "spec": {
        "replicas": 3, "serviceName": "db", "selector": {"matchLabels": {"app": "db"}}, "template": template,
    }});
    scene.create::<StatefulSet>(manifest).await.unwrap();
    let has = |replicas: i32| {
        move |set: &StatefulSet| {
            set.status.as_ref().is_some_and(|status| {
                status.observed_generation == set.metadata.generation
                    && (status.replicas, status.ready_replicas.unwrap_or(0)) == (replicas, replicas)
            })
        }
    };
    wait::object(scene.api::<StatefulSet>(), "db", LIMIT, has(3)).await.unwrap();
    let mut began: Vec<_> = pods(&scene, "db").await;
    began.sort_by_key(ResourceExt::name_any);
    let times: Vec<_> = began.iter().map(|pod| pod.metadata.creation_timestamp.clone().unwrap().0).collect();
    assert!(times.is_sorted(), "{times:?}");
    let patch = Patch::Strategic(json!({"spec": {"replicas": 1}}));
    scene.api::<StatefulSet>().patch("db", &PatchParams::default(), &patch).await.unwrap();
    wait::object(scene.api::<StatefulSet>(), "db", LIMIT, has(1)).await.unwrap();
    let left: Vec<String> = pods(&scene, "db").await.iter().map(ResourceExt::name_any).collect();
    assert_eq!(left, ["db-0"]);
}

#[tokio::test]
async fn a_cron_job_runs_when_its_time_comes() {
    let scene = Scene::new("cron").await.unwrap();
    let image = guests::image("hello").await.unwrap();
    let manifest = json!({"metadata": {"name": "greets"}, "spec": {
        "schedule": "* * * * *",
        "jobTemplate": {"spec": {"template": labelled("greets", &scene.placed(manifests::once(&image, &[])))}},
    }});
    scene.create::<CronJob>(manifest).await.unwrap();
    let has_run =
        |cron: &CronJob| cron.status.as_ref().is_some_and(|status| status.last_successful_time.is_some());
    wait::object(scene.api::<CronJob>(), "greets", LIMIT, has_run).await.unwrap();
    let jobs = scene.api::<Job>().list(&ListParams::default()).await.unwrap().items;
    assert_eq!(jobs[0].status.as_ref().unwrap().succeeded, Some(1));
    let pod = pods(&scene, "greets").await.remove(0);
    assert_eq!(scene.logs(&pod.name_any(), &[]).await.unwrap(), "hello from a guest\n");
}
