//! Which kernel parameters a pod may ask for.

use k8s_openapi::api::core::v1::{Pod, PodSpec};

use crate::govern::Refusal;

/// What the kubelet lets pass without being told to: parameters that belong to the pod alone.
///
/// <https://kubernetes.io/docs/tasks/administer-cluster/sysctl-cluster/#safe-and-unsafe-sysctls>
const SAFE: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

/// Those that say nothing to a container without shared memory or raw sockets: what they ask for is so already.
const IDLE: [&str; 2] = ["kernel.shm_rmid_forced", "net.ipv4.ping_group_range"];

/// Whether a pod asks for a parameter that it may have, and that this version of the node does not set.
pub(crate) fn are_unset(spec: &PodSpec) -> bool {
    let asked = spec.security_context.iter().flat_map(|context| context.sysctls.iter().flatten());
    asked.into_iter().any(|sysctl| !IDLE.contains(&normal(&sysctl.name).as_str()))
}

/// Refuses a pod that asks for a parameter that it may not have.
pub(crate) fn forbidden(pod: &Pod) -> Option<Refusal> {
    let spec = pod.spec.as_ref()?;
    let asked = spec.security_context.as_ref()?.sysctls.as_ref()?;
    let shares = |asked: Option<bool>| asked == Some(true);
    let why = asked.iter().find_map(|sysctl| {
        let name = normal(&sysctl.name);
        if !SAFE.contains(&name.as_str()) {
            return Some(format!("{name:?} not allowlisted"));
        }
        let (is_shared, namespace) = if name.starts_with("net.") {
            (shares(spec.host_network), "Net")
        } else {
            (shares(spec.host_ipc), "IPC")
        };
        is_shared.then(|| format!("{name:?} not allowed with host {namespace} enabled"))
    })?;
    Some(("SysctlForbidden".to_owned(), format!("forbidden sysctl: {why}")))
}

/// A name with dots between its parts: one whose first separator is a slash has dots and slashes the other way round.
fn normal(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(first) if name[first..].starts_with('/') => name
            .chars()
            .map(|character| match character {
                '/' => '.',
                '.' => '/',
                other => other,
            })
            .collect(),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[track_caller]
    fn check(name: &str, more: &[(&str, Value)], expected: Option<&str>) {
        let mut spec = json!({
            "containers": [],
            "securityContext": { "sysctls": [{ "name": "net.ipv4.tcp_rmem", "value": "1" }, { "name": name, "value": "1" }] },
        });
        for (key, value) in more {
            spec[*key] = value.clone();
        }
        let refusal = forbidden(&serde_json::from_value(json!({ "spec": spec })).unwrap());
        assert_eq!(refusal.as_ref().map(|(reason, _)| reason.as_str()), expected.map(|_| "SysctlForbidden"));
        assert_eq!(refusal.map(|(_, message)| message).as_deref(), expected);
    }

    #[test]
    fn safe_ones_pass_and_others_are_named() {
        check("kernel.shm_rmid_forced", &[], None);
        check("net/ipv4/tcp_fin_timeout", &[], None);
        check("kernel.msgmax", &[], Some("forbidden sysctl: \"kernel.msgmax\" not allowlisted"));
        check("kernel/msgmax", &[], Some("forbidden sysctl: \"kernel.msgmax\" not allowlisted"));
    }

    #[test]
    fn what_says_nothing_to_a_container_counts_as_set() {
        let check = |name: &str, expected| {
            let spec = json!({ "containers": [], "securityContext": { "sysctls": [{ "name": name, "value": "1" }] } });
            assert_eq!(are_unset(&serde_json::from_value(spec).unwrap()), expected, "{name}");
        };
        check("kernel.shm_rmid_forced", false);
        check("net/ipv4/ping_group_range", false);
        check("net.ipv4.tcp_rmem", true);
        assert!(!are_unset(&PodSpec::default()));
    }

    #[test]
    fn what_the_node_shares_is_not_changed() {
        let expected = "forbidden sysctl: \"net.ipv4.tcp_rmem\" not allowed with host Net enabled";
        check("net.ipv4.tcp_wmem", &[("hostNetwork", json!(true))], Some(expected));
        let expected = "forbidden sysctl: \"kernel.shm_rmid_forced\" not allowed with host IPC enabled";
        check("kernel.shm_rmid_forced", &[("hostIPC", json!(true))], Some(expected));
    }
}
