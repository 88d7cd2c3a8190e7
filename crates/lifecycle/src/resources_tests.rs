#![expect(clippy::needless_pass_by_value, reason = "what `json!` makes is passed on as it is")]

use serde_json::{Value, json};

use super::*;

fn requested(spec: Value) -> Resources {
    Resources::requested(&serde_json::from_value(json!({ "spec": spec })).unwrap())
}

fn container(requests: Value) -> Value {
    json!({"name": "c", "resources": {"requests": requests, "limits": {"cpu": "100"}}})
}

fn sidecar(requests: Value) -> Value {
    let mut sidecar = container(requests);
    sidecar["restartPolicy"] = json!("Always");
    sidecar
}

fn amounts(cpu: u64, memory: u64, ephemeral_storage: u64) -> Resources {
    Resources { cpu, memory, ephemeral_storage, ..Resources::default() }
}

#[test]
fn requests_add_up_and_limits_do_not_count() {
    let sum = requested(json!({"containers": [
        container(json!({"cpu": "500m", "memory": "1Ki"})),
        container(json!({"cpu": "1", "ephemeral-storage": "2k"})),
        {"name": "nothing"},
    ]}));
    assert_eq!(sum, amounts(1_500, 1_024, 2_000));
}

#[test]
fn init_containers_count_beside_the_sidecars_that_run_then() {
    let check = |inits: Value, cpu: u64| {
        let spec = json!({"initContainers": inits, "containers": [container(json!({"cpu": "2"}))]});
        assert_eq!(requested(spec).cpu, cpu * 1_000, "{inits}");
    };
    let cpu = |amount: &str| json!({"cpu": amount});
    check(json!([container(cpu("1"))]), 2);
    check(json!([container(cpu("5")), container(cpu("4"))]), 5);
    check(json!([sidecar(cpu("1"))]), 3);
    check(json!([sidecar(cpu("1")), container(cpu("5"))]), 6);
    check(json!([container(cpu("5")), sidecar(cpu("1"))]), 5);
    check(json!([sidecar(cpu("1")), container(cpu("1")), sidecar(cpu("2"))]), 5);
}

#[test]
fn the_pods_own_amount_counts_and_overhead_comes_on_top() {
    let own = requested(json!({
        "containers": [container(json!({"cpu": "5", "memory": "1Ki", "hugepages-2Mi": "4Mi"}))],
        "resources": {"requests": {"cpu": "1", "hugepages-2Mi": "2Mi"}},
        "overhead": {"cpu": "10m", "memory": "1"},
    }));
    let scalar = BTreeMap::from([("hugepages-2Mi".to_owned(), 2 << 20)]);
    assert_eq!(own, Resources { scalar, ..amounts(1_010, 1_025, 0) });
}

#[test]
fn what_else_is_counted_has_its_name() {
    let sum = requested(json!({"containers": [
        container(json!({"example.com/gpu": "1"})),
        container(json!({"example.com/gpu": "2", "storage": "1Gi", "kubernetes.io/batch": "1"})),
    ]}));
    assert_eq!(sum.scalar, BTreeMap::from([("example.com/gpu".to_owned(), 3)]));
}

#[test]
fn sums_stay_within_their_range() {
    let most = amounts(u64::MAX, u64::MAX, u64::MAX);
    assert_eq!(most.plus(&amounts(1, 1, 1)), most);
    let nonsense = requested(json!({"containers": [container(json!({"cpu": "much"}))]}));
    assert_eq!(nonsense, Resources::default());
}
