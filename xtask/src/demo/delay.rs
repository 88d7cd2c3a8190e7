//! Why what is awaited takes long, in the words of the pods themselves.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ContainerState, Pod};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use tokio::time::{MissedTickBehavior, interval};

use crate::progress::say;

const ASK_EVERY: Duration = Duration::from_secs(5);

/// Does `work`; while it goes on, tells every five seconds what keeps pods from running, each cause once.
pub(super) async fn explained<T>(client: &Client, work: impl Future<Output = T>) -> T {
    tokio::select! {
        done = work => done,
        never = explain(client) => never,
    }
}

async fn explain<T>(client: &Client) -> T {
    let pods = Api::<Pod>::default_namespaced(client.clone());
    let mut said = BTreeSet::new();
    let mut times = interval(ASK_EVERY);
    times.set_missed_tick_behavior(MissedTickBehavior::Delay);
    times.tick().await;
    loop {
        times.tick().await;
        // Who awaits the work hears of an API server that does not answer from the work itself.
        let found = pods.list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default();
        for cause in found.iter().flat_map(causes) {
            if said.insert(cause.clone()) {
                say(&format!("    {cause}"));
            }
        }
    }
}

/// What keeps a pod from running: the scheduler's message, or what its containers wait for.
fn causes(pod: &Pod) -> Vec<String> {
    let Some(status) = &pod.status else { return Vec::new() };
    let conditions = status.conditions.iter().flatten();
    let unscheduled =
        conditions.filter(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
    let scheduling = unscheduled.filter_map(|condition| condition.message.clone());
    let containers = status.container_statuses.iter().flatten();
    let waiting = containers.filter_map(|container| waiting(container.state.as_ref()?));
    scheduling.chain(waiting).map(|cause| format!("pod {}: {cause}", pod.name_any())).collect()
}

fn waiting(state: &ContainerState) -> Option<String> {
    let waiting = state.waiting.as_ref()?;
    let reason = waiting.reason.clone()?;
    Some(waiting.message.as_ref().map_or(reason.clone(), |message| format!("{reason}: {message}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_tells_what_the_scheduler_and_its_containers_wait_for() {
        let check = |status: serde_json::Value, expected: &[&str]| {
            let pod = json!({ "metadata": { "name": "p" }, "status": status });
            assert_eq!(causes(&serde_json::from_value(pod).unwrap()), expected);
        };
        let condition =
            json!({ "type": "PodScheduled", "status": "False", "message": "0/1 nodes are available" });
        check(json!({ "conditions": [condition] }), &["pod p: 0/1 nodes are available"]);
        let waiting = json!({ "reason": "ErrImagePull", "message": "no route" });
        let container = json!({ "name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": { "waiting": waiting } });
        check(json!({ "containerStatuses": [container] }), &["pod p: ErrImagePull: no route"]);
        check(json!({ "conditions": [{ "type": "PodScheduled", "status": "True" }] }), &[]);
    }
}
