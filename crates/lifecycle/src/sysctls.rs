//! Which kernel parameters a pod may ask for.

use k8s_openapi::api::core::v1::{Pod, PodSpec, Sysctl};

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

/// Those that hold for a guest whatever their value: it has neither shared memory nor raw sockets, and no privilege that a
/// port could need. The others are one value for the network that all pods of a node share.
const MET: [&str; 3] =
    ["kernel.shm_rmid_forced", "net.ipv4.ping_group_range", "net.ipv4.ip_unprivileged_port_start"];

/// The first parameter that a pod may ask for and that this node cannot set for it alone.
pub(crate) fn unset(spec: &PodSpec) -> Option<String> {
    asked(spec).map(|sysctl| normal(&sysctl.name)).find(|name| !MET.contains(&name.as_str()))
}

/// The parameters that a pod's containers have as it asked for: the files below `/proc/sys` that a program reads them from, by
/// path.
#[must_use]
pub fn sysctl_files(pod: &Pod) -> Vec<(String, String)> {
    let spec = pod.spec.iter().flat_map(asked);
    spec.map(|sysctl| (normal(&sysctl.name), &sysctl.value))
        .filter(|(name, _)| MET.contains(&name.as_str()))
        .map(|(name, value)| (format!("/proc/sys/{}", name.replace('.', "/")), format!("{value}\n")))
        .collect()
}

fn asked(spec: &PodSpec) -> impl Iterator<Item = &Sysctl> {
    spec.security_context.iter().flat_map(|context| context.sysctls.iter().flatten())
}

/// Refuses a pod that asks for a parameter that it may not have.
pub(crate) fn forbidden(pod: &Pod) -> Option<Refusal> {
    let spec = pod.spec.as_ref()?;
    let shares = |asked: Option<bool>| asked == Some(true);
    let why = asked(spec).find_map(|sysctl| {
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
    fn what_holds_for_a_guest_counts_as_set_and_is_seen() {
        let check = |name: &str, unset_one: Option<&str>, files: &[(&str, &str)]| {
            let spec = json!({ "containers": [], "securityContext": { "sysctls": [{ "name": name, "value": "1 5" }] } });
            let pod: Pod = serde_json::from_value(json!({ "spec": spec })).unwrap();
            assert_eq!(unset(pod.spec.as_ref().unwrap()).as_deref(), unset_one);
            let files: Vec<_> =
                files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
            assert_eq!(sysctl_files(&pod), files);
        };
        check("kernel.shm_rmid_forced", None, &[("/proc/sys/kernel/shm_rmid_forced", "1 5\n")]);
        check("net/ipv4/ping_group_range", None, &[("/proc/sys/net/ipv4/ping_group_range", "1 5\n")]);
        check("net.ipv4.tcp_rmem", Some("net.ipv4.tcp_rmem"), &[]);
        assert_eq!(unset(&PodSpec::default()), None);
    }

    #[test]
    fn what_the_node_shares_is_not_changed() {
        let expected = "forbidden sysctl: \"net.ipv4.tcp_rmem\" not allowed with host Net enabled";
        check("net.ipv4.tcp_wmem", &[("hostNetwork", json!(true))], Some(expected));
        let expected = "forbidden sysctl: \"kernel.shm_rmid_forced\" not allowed with host IPC enabled";
        check("kernel.shm_rmid_forced", &[("hostIPC", json!(true))], Some(expected));
    }
}
