use coracle_lifecycle::PodUid;
use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Value, json};

/// The strategic-merge patch that makes `status` the pod's status. Conditions merge by type, so that those of others
/// stay; what a condition no longer says is taken back by name. The UID is a precondition.
pub(super) fn status(uid: &PodUid, status: &PodStatus) -> Value {
    let mut status = json!(status);
    for key in ["reason", "message"] {
        clear(&mut status, key);
        for condition in status["conditions"].as_array_mut().into_iter().flatten() {
            clear(condition, key);
        }
    }
    json!({ "metadata": { "uid": uid }, "status": status })
}

fn clear(value: &mut Value, key: &str) {
    if let Some(object) = value.as_object_mut() {
        object.entry(key).or_insert(Value::Null);
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
    ours.container_statuses.iter().flatten().any(|ours| {
        let theirs = theirs.container_statuses.iter().flatten().find(|status| status.name == ours.name);
        theirs.is_none_or(|theirs| (theirs.restart_count, &theirs.state) != (ours.restart_count, &ours.state))
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::PodCondition;

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
    fn an_overwritten_condition_is_seen_and_foreign_ones_are_not_ours() {
        let with = |conditions| PodStatus { conditions: Some(conditions), ..PodStatus::default() };
        let ours = with(vec![condition("Ready", "True", None)]);
        let foreign = condition("example.com/gate", "False", None);
        assert!(!was_overwritten(&ours, Some(&with(vec![foreign, condition("Ready", "True", Some("x"))]))));
        assert!(was_overwritten(&ours, Some(&with(vec![condition("Ready", "False", None)]))));
        assert!(was_overwritten(&ours, None));
    }
}
