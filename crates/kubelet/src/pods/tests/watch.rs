use std::time::Duration;

use crate::pods::testing::{Fault, Scene, pod};

#[tokio::test(start_paused = true)]
async fn a_new_list_tells_what_came_and_went() {
    let scene = Scene::new().await;
    let gone = scene.create("gone", pod("Always", "app"));
    scene.create("stays", pod("Always", "app"));
    scene.phase("gone", "Running").await;
    scene.phase("stays", "Running").await;
    scene.api.fault("WATCH", Fault::Hang);
    scene.api.remove("gone");
    scene.create("new", pod("Always", "app"));
    scene.api.break_watch();
    scene.api.heal();
    scene.phase("new", "Running").await;
    scene.forgotten(&gone).await;
    let runtime = scene.runtime.state.borrow();
    assert!(runtime.of("gone")[0].exit.is_some());
    assert!(runtime.of("stays")[0].exit.is_none());
    assert_eq!(runtime.runs.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_no_hot_loop_and_stops_nothing() {
    let scene = Scene::new().await;
    scene.create("p", pod("Always", "app"));
    scene.phase("p", "Running").await;
    scene.api.fault("/api/v1/pods", Fault::Refuse(500));
    scene.api.break_watch();
    let times = scene
        .api_shows("twenty tries", |state| {
            let calls = state.called("GET /api/v1/pods");
            (calls.len() > 20).then(|| calls.iter().map(|call| call.at).collect::<Vec<_>>())
        })
        .await;
    assert!(times[20] - times[1] > Duration::from_mins(2), "{times:?}");
    assert!(scene.runtime.state.borrow().of("p")[0].exit.is_none());
    scene.api.heal();
    scene.create("q", pod("Always", "app"));
    scene.phase("q", "Running").await;
    assert_eq!(scene.runtime.state.borrow().runs.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_node_is_ready_when_it_knows_its_pods() {
    let mut scene = Scene::empty();
    scene.api.fault("GET /api/v1/pods", Fault::Hang);
    scene.start().await;
    scene.api_shows("a list", |state| (!state.called("GET /api/v1/pods").is_empty()).then_some(())).await;
    assert!(scene.ready.borrow().is_some());
    scene.api.heal();
    scene.is_ready().await;
}
