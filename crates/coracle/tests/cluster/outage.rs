//! An API server that goes away for a while.

use std::path::Path;
use std::time::{Duration, Instant};

use coracle_testing::{Cluster, wait};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node as NodeObject, Pod};
use kube::Api;
use rustix::process::{Pid, Signal, kill_process};

use crate::scene::{LIMIT, Scene, options};
use crate::{guests, manifests, states, until};

/// The outage lasts for so many lines of a guest that prints one each 100 ms.
const LINES: usize = 300;

fn lines(log: &Path) -> usize {
    std::fs::read_to_string(log).map_or(0, |text| text.lines().count())
}

#[tokio::test]
async fn losing_the_api_server_for_half_a_minute_stops_nothing() {
    let cluster = Cluster::start().await.unwrap();
    let scene = Scene::with(&cluster, options("cut-off").await.unwrap()).await.unwrap();
    let ticker = guests::image("ticker").await.unwrap();
    let nap = coracle_testing::Artifact::cncf(guests::nap(8).unwrap());
    let nap = guests::push("nap", "v1", &nap).await.unwrap();
    let ticks = scene.run_until("ticks", manifests::app("Always", &ticker, &[]), states::is_running);
    let ticks = ticks.await.unwrap();
    let naps = scene.run_until("naps", manifests::once(&nap, &[]), states::is_running).await.unwrap();
    let agent = scene.node.process_id();

    cluster.stop_api_server().await.unwrap();
    let log = scene.log_file(&ticks, "app", 0);
    let (printed, said) = (lines(&log), scene.node.log().unwrap().lines().count());
    let ticks_of_cpu = until::cpu_ticks(agent).unwrap();
    until::so("the guest has gone on for half a minute", || lines(&log) >= printed + LINES).await.unwrap();
    let said = scene.node.log().unwrap().lines().count() - said;
    let ticks_of_cpu = until::cpu_ticks(agent).unwrap() - ticks_of_cpu;
    cluster.start_api_server().await.unwrap();

    // A loop without a pause would say, or compute, a hundred times as much.
    assert!((1..=100).contains(&said), "the agent said {said} lines in the outage");
    assert!(ticks_of_cpu < 300, "the agent used {ticks_of_cpu} hundredths of a second in the outage");
    let ended = scene.pod("naps", states::has_ended).await.unwrap();
    assert_eq!(states::exit(&ended), Some((0, "Completed")));
    let seconds = states::terminated(&ended).unwrap().finished_at.clone().unwrap().0.duration_since(
        states::status(&naps).unwrap().state.clone().unwrap().running.unwrap().started_at.unwrap().0,
    );
    assert!((7..=12).contains(&seconds.as_secs()), "its end is told as it was: after {seconds:?}");
    recovered(&scene, &ticks).await;

    cluster.stop_api_server().await.unwrap();
    a_second_signal_ends_at_once(&scene).await;
}

/// The first signal leaves the agent waiting for an API server that does not take the last statuses.
async fn a_second_signal_ends_at_once(scene: &Scene<'_>) {
    let agent = Pid::from_raw(scene.node.process_id().try_into().unwrap()).unwrap();
    kill_process(agent, Signal::TERM).unwrap();
    let heard = || scene.node.log().is_ok_and(|log| log.contains("a second signal ends it at once"));
    until::so("the agent has heard the first signal", heard).await.unwrap();
    let asked = Instant::now();
    kill_process(agent, Signal::INT).unwrap();
    assert_eq!(scene.node.exited().await.unwrap().code(), Some(130));
    assert!(asked.elapsed() < Duration::from_secs(5), "it took {:?}", asked.elapsed());
}

/// The node is Ready, its lease is renewed, what ran runs on, and new pods run.
async fn recovered(scene: &Scene<'_>, ticks: &Pod) {
    let leases = Api::<Lease>::namespaced(scene.client.clone(), "kube-node-lease");
    let renewed = |lease: &Lease| lease.spec.as_ref().and_then(|spec| spec.renew_time.clone());
    let before = renewed(&leases.get("cut-off").await.unwrap());
    wait::object(leases, "cut-off", LIMIT, |lease| renewed(lease) > before).await.unwrap();
    let ready = |node: &NodeObject| {
        let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
        let is_ready = |condition: &k8s_openapi::api::core::v1::NodeCondition| {
            condition.type_ == "Ready" && condition.status == "True"
        };
        conditions.into_iter().flatten().any(is_ready)
    };
    wait::object(Api::<NodeObject>::all(scene.client.clone()), "cut-off", LIMIT, ready).await.unwrap();

    let image = guests::image("hello").await.unwrap();
    let mut spec = manifests::once(&image, &[]);
    // Not by way of the scheduler, which takes its own time to come back.
    spec["nodeName"] = "cut-off".into();
    let next = scene.run_until("next", spec, states::has_ended).await.unwrap();
    assert_eq!(states::phase(&next), "Succeeded");
    let still = scene.pod("ticks", states::is_running).await.unwrap();
    let id = |pod: &Pod| states::status(pod).and_then(|status| status.container_id.clone());
    assert_eq!((id(&still), states::restarts(&still)), (id(ticks), 0));
}
