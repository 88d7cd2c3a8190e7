use std::collections::BTreeMap;
use std::time::Duration;

use coracle_lifecycle::Notice;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::events::{Recorder, record};
use crate::pods::PodApi;
use crate::pods::testing::FakeApi;

/// The first hundred may be written at once, then one each 20 milliseconds.
const BURST: u32 = 100;
const INTERVAL: Duration = Duration::from_millis(20);
/// How many Events of one pod are written until five minutes are over.
const OF_A_POD: usize = 25;

fn pod(number: usize) -> Pod {
    let name = format!("p{number}");
    let metadata = json!({ "name": name, "namespace": "default", "uid": name });
    serde_json::from_value(json!({ "metadata": metadata })).unwrap()
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_in_a_second_are_told_as_far_as_the_limits_allow() {
    let api = FakeApi::new();
    let (recorder, events) = Recorder::new("n1");
    let mut tasks = JoinSet::new();
    tasks.spawn(record(PodApi::new(api.client()), events));
    let began = Instant::now();
    for number in 0..10_000 {
        let message = format!("message {number}");
        let reason = "Unhealthy".to_owned();
        recorder.pod(&pod(number % 20), Notice { is_warning: true, reason, message, container: None });
        if number % 10 == 9 {
            sleep(Duration::from_millis(1)).await;
        }
    }
    assert_eq!(began.elapsed().as_secs(), 1, "nobody waits for the API server");
    drop(recorder);
    tasks.join_all().await;
    let calls = api.state.borrow().calls.clone();
    assert!(calls.len() > usize::try_from(BURST).unwrap(), "{} calls", calls.len());
    for (call, number) in calls.iter().zip(0..) {
        let due = INTERVAL * u32::saturating_sub(number, BURST);
        assert!(call.at - began >= due, "call {number} after {:?}", call.at - began);
    }
    let mut told: BTreeMap<String, usize> = BTreeMap::new();
    for call in calls.iter().filter(|call| call.line.starts_with("POST ")) {
        *told.entry(call.body["involvedObject"]["uid"].to_string()).or_default() += 1;
    }
    assert!(told.len() == 20 && told.values().all(|count| *count <= OF_A_POD), "{told:?}");
    let is_combined = |message: &str| message.starts_with("(combined from similar events): ");
    let state = api.state.borrow();
    assert!(state.events.values().any(|event| event["message"].as_str().is_some_and(is_combined)));
}
