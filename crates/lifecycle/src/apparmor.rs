//! Profiles of `AppArmor`, which this node cannot enforce.

use k8s_openapi::api::core::v1::{AppArmorProfile, Pod};

use crate::govern::Refusal;

/// Refuses a pod that relies on a profile of its own, in the words of a kubelet on a machine without `AppArmor`. The
/// runtime's default profile is less than what keeps any container here apart from the machine.
///
/// <https://kubernetes.io/docs/tutorials/security/apparmor/>
pub(crate) fn unenforceable(pod: &Pod) -> Option<Refusal> {
    let is_own = |profile: &&AppArmorProfile| profile.type_ == "Localhost";
    profiles(pod).any(|profile| is_own(&profile)).then(|| {
        let message = "Cannot enforce AppArmor: AppArmor is not enabled on the host";
        ("AppArmor".to_owned(), message.to_owned())
    })
}

fn profiles(pod: &Pod) -> impl Iterator<Item = &AppArmorProfile> {
    let spec = pod.spec.iter();
    spec.flat_map(|spec| {
        let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
        let contexts = containers.filter_map(|container| container.security_context.as_ref());
        let debuggers = spec.ephemeral_containers.iter().flatten();
        let contexts = contexts.chain(debuggers.filter_map(|container| container.security_context.as_ref()));
        let own = spec.security_context.as_ref().and_then(|context| context.app_armor_profile.as_ref());
        own.into_iter().chain(contexts.filter_map(|context| context.app_armor_profile.as_ref()))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[track_caller]
    fn check(spec: &Value, is_refused: bool) {
        let refusal = unenforceable(&serde_json::from_value(json!({ "spec": spec })).unwrap());
        let expected = (
            "AppArmor".to_owned(),
            "Cannot enforce AppArmor: AppArmor is not enabled on the host".to_owned(),
        );
        assert_eq!(refusal, is_refused.then_some(expected));
    }

    #[test]
    fn only_a_profile_of_its_own_is_refused_wherever_it_stands() {
        let profile = |kind: &str| json!({"appArmorProfile": {"type": kind, "localhostProfile": "p"}});
        let container = |kind: &str| json!([{"name": "c", "securityContext": profile(kind)}]);
        check(&json!({"containers": []}), false);
        check(
            &json!({"containers": container("RuntimeDefault"), "securityContext": profile("Unconfined")}),
            false,
        );
        check(&json!({"containers": [], "securityContext": profile("Localhost")}), true);
        check(&json!({"containers": container("Localhost")}), true);
        check(&json!({"containers": [], "initContainers": container("Localhost")}), true);
        check(&json!({"containers": [], "ephemeralContainers": container("Localhost")}), true);
    }
}
