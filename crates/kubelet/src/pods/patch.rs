use coracle_lifecycle::PodUid;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{ContainerStatus, PodCondition, PodStatus};
use serde_json::{Value, json};

/// The conditions that only the node writes: one that it does not state any more is gone.
const OWN: [&str; 8] = [
    "AllContainersRestarting",
    "ContainersReady",
    "Initialized",
    "PodReadyToStartContainers",
    "PodResizeInProgress",
    "PodResizePending",
    "PodScheduled",
    "Ready",
];

/// The strategic-merge patch that makes `status` the pod's status. Conditions merge by type, so that those of others
/// stay; what a condition no longer says is taken back by name, and so is a condition of the node's own. Lists of
/// addresses are replaced. The UID is a precondition.
pub(super) fn status(uid: &PodUid, status: &PodStatus) -> Value {
    let stated = |kind: &str| status.conditions.iter().flatten().any(|condition| condition.type_ == kind);
    let withdrawn: Vec<&str> = OWN.into_iter().filter(|kind| !stated(kind)).collect();
    let mut status = json!(status);
    for key in ["reason", "message"] {
        clear(&mut status, key);
        for condition in status["conditions"].as_array_mut().into_iter().flatten() {
            clear(condition, key);
        }
    }
    if let Some(conditions) = list(&mut status, "conditions") {
        conditions.extend(withdrawn.iter().map(|kind| json!({ "type": kind, "$patch": "delete" })));
    }
    for key in ["hostIPs", "podIPs"] {
        if let Some(addresses) = list(&mut status, key) {
            addresses.push(json!({ "$patch": "replace" }));
        }
    }
    json!({ "metadata": { "uid": uid }, "status": status })
}

fn list<'a>(status: &'a mut Value, key: &str) -> Option<&'a mut Vec<Value>> {
    status.get_mut(key)?.as_array_mut()
}

fn clear(value: &mut Value, key: &str) {
    if let Some(object) = value.as_object_mut() {
        object.entry(key).or_insert(Value::Null);
    }
}

/// How long a change that nobody waits for is held back, so that it goes along with the next one.
const QUIET: SignedDuration = SignedDuration::from_secs(5);

/// How long the word that a pod begins is held back: one whose images are here runs sooner, and says that at once.
const BEGINNING: SignedDuration = SignedDuration::from_millis(50);

/// How long a status that says `next` after `before` can wait for more.
pub(super) fn patience(before: &PodStatus, next: &PodStatus) -> Option<SignedDuration> {
    if is_quiet(before, next) {
        return Some(QUIET);
    }
    begins(before, next).then_some(BEGINNING)
}

/// Whether the pod has only just come to the node, and nothing is known but that it is being started.
fn begins(before: &PodStatus, next: &PodStatus) -> bool {
    let is_coming = |container: &ContainerStatus| {
        let waiting = container.state.as_ref().and_then(|state| state.waiting.as_ref());
        waiting.is_some_and(|waiting| {
            let reason = waiting.reason.as_deref();
            waiting.message.is_none() && matches!(reason, Some("ContainerCreating" | "PodInitializing"))
        })
    };
    containers(before).next().is_none()
        && next.phase.as_deref() == Some("Pending")
        && next.message.is_none()
        && containers(next).all(is_coming)
}

/// Whether nobody waits for what is new in `next`: it can go along with the next change that matters.
fn is_quiet(before: &PodStatus, next: &PodStatus) -> bool {
    loud(before) == loud(next)
}

/// What of a status is worth a write of its own: not the pod's address before anything runs there, for one.
fn loud(status: &PodStatus) -> PodStatus {
    let conditions = status.conditions.iter().flatten();
    let conditions = conditions.filter(|condition| condition.type_ != "PodReadyToStartContainers");
    let conditions =
        conditions.map(|condition| PodCondition { observed_generation: None, ..condition.clone() });
    PodStatus {
        conditions: Some(conditions.collect()),
        observed_generation: None,
        pod_ip: None,
        pod_ips: None,
        ..status.clone()
    }
}

/// Whether others have overwritten what this node said of a pod: its phase, one of its conditions or the state of one of
/// its containers.
pub(super) fn was_overwritten(ours: &PodStatus, theirs: Option<&PodStatus>) -> bool {
    theirs.is_none_or(|theirs| {
        ours.phase != theirs.phase || lacks_condition(ours, theirs) || lacks_container(ours, theirs)
    })
}

fn lacks_condition(ours: &PodStatus, theirs: &PodStatus) -> bool {
    ours.conditions.iter().flatten().any(|ours| {
        let theirs = theirs.conditions.iter().flatten().find(|condition| condition.type_ == ours.type_);
        theirs.is_none_or(|theirs| theirs.status != ours.status)
    })
}

fn lacks_container(ours: &PodStatus, theirs: &PodStatus) -> bool {
    containers(ours).any(|ours| {
        let theirs = containers(theirs).find(|status| status.name == ours.name);
        theirs.is_none_or(|theirs| (theirs.restart_count, &theirs.state) != (ours.restart_count, &ours.state))
    })
}

/// The statuses of containers of all kinds.
fn containers(status: &PodStatus) -> impl Iterator<Item = &ContainerStatus> {
    let lists =
        [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses];
    lists.into_iter().flatten().flatten()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{PodCondition, PodIP};

    use super::*;

    fn condition(kind: &str, status: &str, reason: Option<&str>) -> PodCondition {
        PodCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.map(ToOwned::to_owned),
            ..PodCondition::default()
        }
    }

    #[test]
    fn a_patch_names_the_uid_and_takes_old_reasons_back() {
        let conditions =
            vec![condition("Ready", "True", None), condition("Initialized", "True", Some("PodCompleted"))];
        let body = status(
            &PodUid::new("u1"),
            &PodStatus {
                phase: Some("Running".into()),
                conditions: Some(conditions),
                ..PodStatus::default()
            },
        );
        assert_eq!(body["metadata"]["uid"], "u1");
        assert_eq!(body["status"]["conditions"][0]["reason"], Value::Null);
        assert!(body["status"]["conditions"][0].as_object().unwrap().contains_key("reason"));
        assert_eq!(body["status"]["conditions"][1]["reason"], "PodCompleted");
        assert!(body["status"].as_object().unwrap().contains_key("message"));
    }

    #[test]
    fn addresses_are_replaced_and_own_conditions_withdrawn() {
        let addresses = PodStatus {
            conditions: Some(vec![condition("Ready", "True", None)]),
            pod_ips: Some(vec![PodIP { ip: "192.0.2.7".to_owned() }]),
            ..PodStatus::default()
        };
        let body = status(&PodUid::new("u1"), &addresses);
        assert_eq!(body["status"]["podIPs"], json!([{ "ip": "192.0.2.7" }, { "$patch": "replace" }]));
        assert!(body["status"].get("hostIPs").is_none());
        let conditions = body["status"]["conditions"].as_array().unwrap();
        let withdrawn = conditions.iter().filter(|condition| condition["$patch"] == "delete");
        let withdrawn: Vec<_> = withdrawn.map(|condition| condition["type"].as_str().unwrap()).collect();
        assert_eq!(withdrawn.len(), OWN.len() - 1);
        assert!(!withdrawn.contains(&"Ready") && !withdrawn.contains(&"DisruptionTarget"));
    }

    #[test]
    fn nobody_waits_for_a_generation_an_address_or_a_sandbox() {
        let with = |kind: &str, holds: &str, generation| PodStatus {
            observed_generation: Some(generation),
            conditions: Some(vec![PodCondition {
                observed_generation: Some(generation),
                ..condition(kind, holds, None)
            }]),
            ..PodStatus::default()
        };
        assert!(is_quiet(&with("Ready", "True", 1), &with("Ready", "True", 2)));
        assert!(is_quiet(
            &with("PodReadyToStartContainers", "True", 1),
            &with("PodReadyToStartContainers", "False", 1)
        ));
        let addressed = PodStatus { pod_ip: Some("192.0.2.7".to_owned()), ..with("Ready", "True", 1) };
        assert!(is_quiet(&with("Ready", "True", 1), &addressed));
        assert!(!is_quiet(&with("Ready", "True", 1), &with("Ready", "False", 1)));
        let failed = PodStatus { phase: Some("Failed".to_owned()), ..with("Ready", "True", 1) };
        assert!(!is_quiet(&with("Ready", "True", 1), &failed));
    }

    #[test]
    fn only_the_first_word_of_a_pod_that_begins_waits_a_moment() {
        let waiting = |reason: &str, message: Option<&str>| -> PodStatus {
            let state = json!({ "waiting": { "reason": reason, "message": message } });
            let container = json!({
                "name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state,
            });
            serde_json::from_value(json!({ "phase": "Pending", "containerStatuses": [container] })).unwrap()
        };
        let (none, begins) = (PodStatus::default(), waiting("ContainerCreating", None));
        assert_eq!(patience(&none, &begins), Some(BEGINNING));
        for other in [waiting("ContainerCreating", Some("x")), waiting("ErrImagePull", None)] {
            assert_eq!(patience(&none, &other), None);
        }
        assert_eq!(patience(&waiting("ErrImagePull", None), &begins), None);
        let running = PodStatus { phase: Some("Running".to_owned()), ..begins.clone() };
        assert_eq!(patience(&none, &running), None);
        assert_eq!(patience(&begins, &begins), Some(QUIET));
    }

    #[test]
    fn an_overwritten_condition_is_seen_and_foreign_ones_are_not_ours() {
        let with = |conditions| PodStatus { conditions: Some(conditions), ..PodStatus::default() };
        let ours = with(vec![condition("Ready", "True", None)]);
        let foreign = condition("example.com/gate", "False", None);
        assert!(!was_overwritten(&ours, Some(&with(vec![foreign, condition("Ready", "True", Some("x"))]))));
        assert!(was_overwritten(&ours, Some(&with(vec![condition("Ready", "False", None)]))));
        assert!(was_overwritten(&ours, None));
    }
}
