use k8s_openapi::api::core::v1::{Container, ContainerRestartRule};

use crate::{Cause, Role};

/// When a container that ended is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartPolicy {
    /// After every end.
    Always,
    /// After every end with a code other than 0.
    OnFailure,
    /// Not at all.
    Never,
}

impl RestartPolicy {
    /// Whether this policy starts a container again that ended with `exit_code`.
    #[must_use]
    pub fn restarts(self, exit_code: i32) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => exit_code != 0,
            Self::Never => false,
        }
    }

    /// The policy of this name, when it is one.
    pub(crate) fn named(name: Option<&str>) -> Option<Self> {
        match name? {
            "Always" => Some(Self::Always),
            "OnFailure" => Some(Self::OnFailure),
            "Never" => Some(Self::Never),
            _ => None,
        }
    }
}

/// What follows the end of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sequel {
    /// Nothing: it has ended for good.
    Rest,
    /// It is started again.
    Restart,
    /// All containers of the pod end and begin anew, init containers too: KEP-5532.
    RestartAll,
}

/// What follows when `container` ends so: its own rules first, then its own policy, then its pod's.
///
/// A run of whose end nothing is known has no exit code that a rule could be about.
#[must_use]
pub(crate) fn sequel(container: &Container, role: Role, pod: RestartPolicy, cause: Cause) -> Sequel {
    if role == Role::Ephemeral {
        return Sequel::Rest;
    }
    let code = cause.exit_code();
    let matching = if cause == Cause::Lost { None } else { matching_rule(container, code) };
    match matching.map(|rule| rule.action.as_str()) {
        Some("RestartAllContainers") => return Sequel::RestartAll,
        _ if role == Role::Init && cause == Cause::Exited(0) => return Sequel::Rest,
        Some("Restart") => return Sequel::Restart,
        _ => {}
    }
    let policy = RestartPolicy::named(container.restart_policy.as_deref()).unwrap_or(pod);
    if policy.restarts(code) { Sequel::Restart } else { Sequel::Rest }
}

fn matching_rule(container: &Container, code: i32) -> Option<&ContainerRestartRule> {
    container.restart_policy_rules.iter().flatten().find(|rule| {
        rule.exit_codes.as_ref().is_some_and(|codes| {
            let is_listed = codes.values.iter().flatten().any(|value| *value == code);
            match codes.operator.as_str() {
                "In" => is_listed,
                "NotIn" => !is_listed,
                _ => false,
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn container(more: &serde_json::Value) -> Container {
        let mut container = json!({"name": "c"});
        container.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(container).unwrap()
    }

    #[test]
    fn policies_are_the_containers_own_before_the_pods() {
        use RestartPolicy::{Always, Never, OnFailure};
        let check = |own: Option<&str>, pod, code, expected| {
            let container = container(&json!({"restartPolicy": own}));
            let sequel = sequel(&container, Role::App, pod, Cause::Exited(code));
            assert_eq!(sequel == Sequel::Restart, expected, "{own:?} {pod:?} {code}");
        };
        for code in [0, 1] {
            check(None, Always, code, true);
            check(None, Never, code, false);
            check(None, OnFailure, code, code != 0);
            check(Some("Never"), Always, code, false);
            check(Some("Always"), Never, code, true);
            check(Some("OnFailure"), Never, code, code != 0);
        }
    }

    #[test]
    fn rules_come_first_and_the_first_that_fits_counts() {
        let rule = |action: &str, operator: &str, values: &[i32]| json!({"action": action, "exitCodes": {"operator": operator, "values": values}});
        let container = container(&json!({"restartPolicy": "Never", "restartPolicyRules": [
            rule("Restart", "In", &[42, 137]),
            rule("RestartAllContainers", "In", &[7, 42]),
            rule("Unheard", "In", &[9]),
        ]}));
        let check = |cause, expected| {
            assert_eq!(sequel(&container, Role::App, RestartPolicy::Always, cause), expected, "{cause:?}");
        };
        check(Cause::Exited(42), Sequel::Restart);
        check(Cause::Killed, Sequel::Restart);
        check(Cause::Exited(7), Sequel::RestartAll);
        check(Cause::Exited(9), Sequel::Rest);
        check(Cause::Exited(0), Sequel::Rest);
        check(Cause::Lost, Sequel::Rest);
    }

    #[test]
    fn a_rule_may_be_about_all_codes_but_some() {
        let container = container(&json!({"restartPolicy": "Never", "restartPolicyRules": [
            {"action": "Restart", "exitCodes": {"operator": "NotIn", "values": [0]}},
            {"action": "Restart", "exitCodes": {"operator": "Unheard", "values": [0]}},
            {"action": "Restart"},
        ]}));
        let check = |code| sequel(&container, Role::App, RestartPolicy::Never, Cause::Exited(code));
        assert_eq!([0, 1, 255].map(check), [Sequel::Rest, Sequel::Restart, Sequel::Restart]);
    }

    #[test]
    fn an_init_container_that_succeeded_is_done_and_an_ephemeral_one_never_comes_back() {
        let plain = container(&json!({}));
        let check = |role, code| sequel(&plain, role, RestartPolicy::Always, Cause::Exited(code));
        assert_eq!(check(Role::Init, 0), Sequel::Rest);
        assert_eq!(check(Role::Init, 1), Sequel::Restart);
        assert_eq!(check(Role::App, 0), Sequel::Restart);
        assert_eq!(check(Role::Ephemeral, 1), Sequel::Rest);
    }
}
