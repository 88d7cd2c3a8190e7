use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Pod, PodDNSConfig};

use crate::{Dns, Wish};

/// What a resolver takes at most: name servers, search domains, and characters of these.
const SERVERS: usize = 3;
const SEARCHES: usize = 32;
const SEARCH_CHARACTERS: usize = 2048;
/// A name with fewer dots is tried in the search domains first.
const CLUSTER_OPTION: &str = "ndots:5";

/// How the pods of a node look names up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsSettings {
    /// The cluster's name servers; empty when the operator names none.
    pub cluster_servers: Vec<IpAddr>,
    /// The cluster's domain.
    pub cluster_domain: String,
    /// What the node itself uses.
    pub node: Dns,
}

/// Something about a pod's name service that people are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsNotice {
    /// One word.
    pub reason: &'static str,
    /// The sentence for people.
    pub message: String,
}

/// How a pod looks names up, by its policy and its own settings, within the limits of resolvers; and what is to be told
/// of that.
///
/// <https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/>
#[must_use]
pub fn pod_dns(pod: &Pod, settings: &DnsSettings) -> (Dns, Vec<DnsNotice>) {
    let mut notices = Vec::new();
    let mut dns = by_policy(pod, settings, &mut notices);
    if let Some(own) = pod.spec.as_ref().and_then(|spec| spec.dns_config.as_ref()) {
        merge(&mut dns, own);
    }
    limit(&mut dns, &mut notices);
    (dns, notices)
}

fn by_policy(pod: &Pod, settings: &DnsSettings, notices: &mut Vec<DnsNotice>) -> Dns {
    let spec = pod.spec.as_ref();
    let policy = spec.and_then(|spec| spec.dns_policy.as_deref()).unwrap_or("ClusterFirst");
    let shares_network = spec.is_some_and(|spec| spec.host_network == Some(true));
    match policy {
        "None" => Dns::default(),
        "ClusterFirst" if shares_network => settings.node.clone(),
        "ClusterFirst" | "ClusterFirstWithHostNet" if !settings.cluster_servers.is_empty() => {
            of_cluster(&pod.identity().namespace, settings)
        }
        "ClusterFirst" | "ClusterFirstWithHostNet" => {
            let pod = pod.identity();
            let message = format!(
                "pod: \"{}_{}({})\". does not have ClusterDNS IP configured and cannot create Pod using {policy:?} policy. Falling back to \"Default\" policy.",
                pod.name, pod.namespace, pod.uid
            );
            notices.push(DnsNotice { reason: "MissingClusterDNS", message });
            settings.node.clone()
        }
        _ => settings.node.clone(),
    }
}

fn of_cluster(namespace: &str, settings: &DnsSettings) -> Dns {
    let domain = &settings.cluster_domain;
    let mut searches = Vec::new();
    if !domain.is_empty() {
        searches.extend([format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()]);
    }
    add_new(&mut searches, settings.node.searches.iter().cloned());
    Dns { servers: settings.cluster_servers.clone(), searches, options: vec![CLUSTER_OPTION.to_owned()] }
}

/// The pod's own settings come after those of its policy; its options replace those of the same name.
fn merge(dns: &mut Dns, own: &PodDNSConfig) {
    let servers = own.nameservers.iter().flatten();
    add_new(&mut dns.servers, servers.filter_map(|server| server.parse().ok()));
    add_new(&mut dns.searches, own.searches.iter().flatten().cloned());
    for option in own.options.iter().flatten() {
        let Some(name) = option.name.as_deref().filter(|name| !name.is_empty()) else { continue };
        dns.options.retain(|given| given.split(':').next() != Some(name));
        let value = option.value.as_deref().filter(|value| !value.is_empty());
        dns.options.push(value.map_or_else(|| name.to_owned(), |value| format!("{name}:{value}")));
    }
}

fn add_new<T: PartialEq>(list: &mut Vec<T>, more: impl Iterator<Item = T>) {
    for entry in more {
        if !list.contains(&entry) {
            list.push(entry);
        }
    }
}

fn limit(dns: &mut Dns, notices: &mut Vec<DnsNotice>) {
    const REASON: &str = "DNSConfigForming";
    if dns.servers.len() > SERVERS {
        dns.servers.truncate(SERVERS);
        let line = words(&dns.servers);
        let message = format!(
            "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: {line}"
        );
        notices.push(DnsNotice { reason: REASON, message });
    }
    let before = dns.searches.len();
    dns.searches.truncate(SEARCHES);
    while words(&dns.searches).len() > SEARCH_CHARACTERS {
        dns.searches.pop();
    }
    if dns.searches.len() < before {
        let line = words(&dns.searches);
        let message = format!(
            "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: {line}"
        );
        notices.push(DnsNotice { reason: REASON, message });
    }
}

fn words<T: ToString>(list: &[T]) -> String {
    list.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// The `/etc/resolv.conf` of a pod's containers.
#[must_use]
pub fn resolv_conf(dns: &Dns) -> String {
    let mut lines = Vec::new();
    if !dns.searches.is_empty() {
        lines.push(format!("search {}\n", words(&dns.searches)));
    }
    lines.extend(dns.servers.iter().map(|server| format!("nameserver {server}\n")));
    if !dns.options.is_empty() {
        lines.push(format!("options {}\n", words(&dns.options)));
    }
    lines.concat()
}

/// What a `resolv.conf` says. What cannot be understood is passed over; of several search lines the last counts.
#[must_use]
pub fn parse_resolv_conf(text: &str) -> Dns {
    let mut dns = Dns::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => {
                dns.servers.extend(words.next().and_then(|server| server.parse::<IpAddr>().ok()));
            }
            Some("search" | "domain") => dns.searches = words.map(str::to_owned).collect(),
            Some("options") => dns.options.extend(words.map(str::to_owned)),
            _ => {}
        }
    }
    dns
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const NODE: &str = "# a comment\nnameserver 9.9.9.9\nnameserver nonsense\nsearch old\nsearch corp.example\noptions rotate timeout:2\n";

    fn settings(servers: &[&str]) -> DnsSettings {
        DnsSettings {
            cluster_servers: servers.iter().map(|server| server.parse().unwrap()).collect(),
            cluster_domain: "cluster.local".to_owned(),
            node: parse_resolv_conf(NODE),
        }
    }

    fn of(spec: Value, servers: &[&str]) -> (String, Vec<DnsNotice>) {
        let mut spec = spec;
        spec["containers"] = json!([]);
        let metadata = json!({ "name": "web", "namespace": "shop", "uid": "u" });
        let pod = serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap();
        let (dns, notices) = pod_dns(&pod, &settings(servers));
        (resolv_conf(&dns), notices)
    }

    const CLUSTER: &str = "search shop.svc.cluster.local svc.cluster.local cluster.local corp.example\nnameserver 10.96.0.10\noptions ndots:5\n";
    const OWN: &str = "search corp.example\nnameserver 9.9.9.9\noptions rotate timeout:2\n";

    #[test]
    fn policies() {
        let check = |spec: Value, expected: &str| {
            assert_eq!(of(spec, &["10.96.0.10"]), (expected.to_owned(), Vec::new()));
        };
        check(json!({}), CLUSTER);
        check(json!({ "dnsPolicy": "ClusterFirst" }), CLUSTER);
        check(json!({ "dnsPolicy": "ClusterFirst", "hostNetwork": true }), OWN);
        check(json!({ "dnsPolicy": "ClusterFirstWithHostNet", "hostNetwork": true }), CLUSTER);
        check(json!({ "dnsPolicy": "Default" }), OWN);
        check(
            json!({ "dnsPolicy": "None", "dnsConfig": { "nameservers": ["1.1.1.1"] } }),
            "nameserver 1.1.1.1\n",
        );
    }

    #[test]
    fn without_name_servers_of_the_cluster_the_nodes_are_used_and_that_is_told() {
        let (file, notices) = of(json!({}), &[]);
        assert_eq!(file, OWN);
        assert_eq!(notices[0].reason, "MissingClusterDNS");
        assert!(notices[0].message.starts_with("pod: \"web_shop(u)\". does not have ClusterDNS IP"));
        assert_eq!(of(json!({ "dnsPolicy": "Default" }), &[]).1, []);
    }

    #[test]
    fn the_pods_own_settings_are_merged() {
        let own = json!({
            "nameservers": ["1.1.1.1", "10.96.0.10"], "searches": ["my.example", "cluster.local"],
            "options": [{ "name": "ndots", "value": "2" }, { "name": "edns0" }],
        });
        let expected = "search shop.svc.cluster.local svc.cluster.local cluster.local corp.example my.example\nnameserver 10.96.0.10\nnameserver 1.1.1.1\noptions ndots:2 edns0\n";
        assert_eq!(of(json!({ "dnsConfig": own }), &["10.96.0.10"]), (expected.to_owned(), Vec::new()));
    }

    #[test]
    fn limits_are_kept_and_told() {
        let own = json!({ "nameservers": ["1.1.1.1", "1.1.1.2", "1.1.1.3"] });
        let (file, notices) = of(json!({ "dnsConfig": own }), &["10.96.0.10"]);
        assert!(file.contains("nameserver 1.1.1.2\noptions"), "{file}");
        assert!(notices[0].message.ends_with("is: 10.96.0.10 1.1.1.1 1.1.1.2"), "{notices:?}");
        let many: Vec<_> = (0..40).map(|number| format!("d{number}.example")).collect();
        let (file, notices) = of(json!({ "dnsPolicy": "None", "dnsConfig": { "searches": many } }), &[]);
        assert!(file.contains("d31.example") && !file.contains("d32.example"));
        assert_eq!(notices[0].reason, "DNSConfigForming");
        let long: Vec<_> = (0..20).map(|number| format!("{}{number:02}", "a".repeat(198))).collect();
        let (file, _) = of(json!({ "dnsPolicy": "None", "dnsConfig": { "searches": long } }), &[]);
        assert_eq!(file.lines().next().unwrap().len(), "search ".len() + 10 * 201 - 1);
    }
}
