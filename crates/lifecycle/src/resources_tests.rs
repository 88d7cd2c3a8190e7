#![expect(clippy::needless_pass_by_value, reason = "what `json!` makes is passed on as it is")]

use serde_json::{Value, json};

use super::*;

fn requested(spec: Value) -> Resources {
    Resources::requested(&serde_json::from_value(json!({ "spec": spec })).unwrap())
}

fn container(requests: Value) -> Value {
    json!({"name": "c", "resources": {"requests": requests, "limits": {"cpu": "100"}}})
}

#[test]
fn requests_add_up_and_limits_do_not_count() {
    let sum = requested(json!({"containers": [
        container(json!({"cpu": "500m", "memory": "1Ki"})),
        container(json!({"cpu": "1", "ephemeral-storage": "2k"})),
        {"name": "nothing"},
    ]}));
    assert_eq!(sum, Resources { cpu: 1_500, memory: 1_024, ephemeral_storage: 2_000 });
}

#[test]
fn the_pods_own_amount_counts_and_overhead_comes_on_top() {
    let own = requested(json!({
        "containers": [container(json!({"cpu": "5", "memory": "1Ki"}))],
        "resources": {"requests": {"cpu": "1"}},
        "overhead": {"cpu": "10m", "memory": "1"},
    }));
    assert_eq!(own, Resources { cpu: 1_010, memory: 1_025, ephemeral_storage: 0 });
}

#[test]
fn sums_stay_within_their_range() {
    let most = Resources { cpu: u64::MAX, memory: u64::MAX, ephemeral_storage: u64::MAX };
    assert_eq!(most.plus(Resources { cpu: 1, memory: 1, ephemeral_storage: 1 }), most);
    let nonsense = requested(json!({"containers": [container(json!({"cpu": "much"}))]}));
    assert_eq!(nonsense, Resources::default());
}
