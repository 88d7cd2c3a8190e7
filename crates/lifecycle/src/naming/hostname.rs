use k8s_openapi::api::core::v1::Pod;
use thiserror::Error;

use crate::Wish;

/// The longest host name, in characters.
const LONGEST: usize = 63;
/// The longest host name that is fully qualified: what the kernel takes.
const LONGEST_QUALIFIED: usize = 64;

/// What a pod is called in its network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostName {
    /// Its host name: what `hostname` prints.
    pub name: String,
    /// The name by which others of its network find it, when it has a domain, and the short form of it.
    pub qualified: Option<(String, String)>,
}

/// The pod wants its whole name as host name, which cannot be as long. In the kubelet's words.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "failed to construct FQDN from pod hostname and cluster domain, FQDN {name} is too long ({LONGEST_QUALIFIED} characters is the max, {} characters requested)",
    name.len()
)]
pub struct NameTooLong {
    name: String,
}

/// A pod's names. Who shares the network of `node` has its name; `hostnameOverride` stands for all others.
///
/// <https://kubernetes.io/docs/concepts/workloads/pods/pod-hostname/>
///
/// # Errors
/// When the pod wants its fully qualified name as host name and that is too long.
pub fn host_name(pod: &Pod, node: &str, cluster_domain: &str) -> Result<HostName, NameTooLong> {
    let spec = pod.spec.as_ref();
    let given = |text: Option<&String>| text.filter(|text| !text.is_empty()).cloned();
    let wished = spec.and_then(|spec| given(spec.hostname_override.as_ref()));
    if let Some(name) = wished {
        return Ok(HostName { name, qualified: None });
    }
    if spec.is_some_and(|spec| spec.host_network == Some(true)) {
        return Ok(HostName { name: node.to_owned(), qualified: None });
    }
    let identity = pod.identity();
    let name = spec.and_then(|spec| given(spec.hostname.as_ref())).unwrap_or(identity.name);
    let short: String = name.chars().take(LONGEST).collect();
    let short = short.trim_end_matches(['-', '.']).to_owned();
    let Some(subdomain) = spec.and_then(|spec| given(spec.subdomain.as_ref())) else {
        return Ok(HostName { name: short, qualified: None });
    };
    let qualified = format!("{short}.{subdomain}.{}.svc.{cluster_domain}", identity.namespace);
    let wants_all = spec.is_some_and(|spec| spec.set_hostname_as_fqdn == Some(true));
    if wants_all && qualified.len() > LONGEST_QUALIFIED {
        return Err(NameTooLong { name: qualified });
    }
    let name = if wants_all { qualified.clone() } else { short.clone() };
    Ok(HostName { name, qualified: Some((qualified, short)) })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn named(name: &str, spec: &Value) -> Result<HostName, NameTooLong> {
        let metadata = json!({ "name": name, "namespace": "shop" });
        let pod = serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap();
        host_name(&pod, "node-1", "cluster.local")
    }

    #[track_caller]
    fn check(spec: Value, name: &str, qualified: Option<&str>) {
        let mut spec = spec;
        spec["containers"] = json!([]);
        let found = named("web", &spec).unwrap();
        assert_eq!(found.name, name);
        assert_eq!(found.qualified.map(|(qualified, _)| qualified).as_deref(), qualified);
    }

    #[test]
    fn names_come_from_the_pod_in_kubernetes_order() {
        check(json!({}), "web", None);
        check(json!({ "hostname": "db" }), "db", None);
        check(json!({ "hostname": "", "subdomain": "" }), "web", None);
        let all = "db.peers.shop.svc.cluster.local";
        check(json!({ "hostname": "db", "subdomain": "peers" }), "db", Some(all));
        check(json!({ "hostname": "db", "subdomain": "peers", "setHostnameAsFQDN": true }), all, Some(all));
        check(json!({ "setHostnameAsFQDN": true }), "web", None);
        check(json!({ "hostNetwork": true, "hostname": "db" }), "node-1", None);
        let over = json!({ "hostname": "db", "subdomain": "peers", "hostnameOverride": "any.name" });
        check(over, "any.name", None);
    }

    #[test]
    fn names_are_as_long_as_they_may_be() {
        let long = format!("{}-{}", "a".repeat(62), "b".repeat(10));
        assert_eq!(named(&long, &json!({ "containers": [] })).unwrap().name, "a".repeat(62));
        let spec = json!({ "containers": [], "subdomain": "peers", "setHostnameAsFQDN": true });
        let error = named(&"a".repeat(40), &spec).unwrap_err().to_string();
        assert!(error.contains("(64 characters is the max, 69 characters requested)"), "{error}");
    }
}
