use std::fmt::Write as _;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{HostAlias, Pod};

use super::HostName;

/// What every pod knows by name.
const OWN: &str = "127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
fe00::0\tip6-mcastprefix
fe00::1\tip6-allnodes
fe00::2\tip6-allrouters
";

/// The `/etc/hosts` of a pod's containers. Who shares the node's network is given the node's own file, `node`.
#[must_use]
pub fn hosts_file(pod: &Pod, name: &HostName, addresses: &[IpAddr], node: &str) -> String {
    let spec = pod.spec.as_ref();
    let mut file = String::new();
    if spec.is_some_and(|spec| spec.host_network == Some(true)) {
        file.push_str("# Kubernetes-managed hosts file (host network).\n");
        file.push_str(node);
    } else {
        file.push_str("# Kubernetes-managed hosts file.\n");
        file.push_str(OWN);
        let names = match &name.qualified {
            Some((qualified, short)) => format!("{qualified}\t{short}"),
            None => name.name.clone(),
        };
        for address in addresses {
            let _ = writeln!(file, "{address}\t{names}");
        }
    }
    add_aliases(&mut file, spec.and_then(|spec| spec.host_aliases.as_deref()).unwrap_or_default());
    file
}

fn add_aliases(file: &mut String, aliases: &[HostAlias]) {
    if !aliases.is_empty() {
        file.push_str("\n# Entries added by HostAliases.\n");
    }
    for alias in aliases {
        let _ = writeln!(
            file,
            "{}\t{}",
            alias.ip,
            alias.hostnames.iter().flatten().cloned().collect::<Vec<_>>().join("\t")
        );
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn file(spec: &Value, qualified: Option<&str>) -> String {
        let pod = serde_json::from_value(json!({ "spec": spec })).unwrap();
        let qualified = qualified.map(|name| (name.to_owned(), "web".to_owned()));
        let name = HostName { name: "web".to_owned(), qualified };
        hosts_file(&pod, &name, &["10.0.0.5".parse().unwrap(), "fd00::5".parse().unwrap()], "1.2.3.4\tnode\n")
    }

    #[test]
    fn a_pod_knows_itself() {
        let plain = file(&json!({ "containers": [] }), None);
        assert!(plain.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost"));
        assert!(plain.ends_with("fe00::2\tip6-allrouters\n10.0.0.5\tweb\nfd00::5\tweb\n"), "{plain}");
        let qualified = file(&json!({ "containers": [] }), Some("web.peers.shop.svc.cluster.local"));
        assert!(qualified.contains("\n10.0.0.5\tweb.peers.shop.svc.cluster.local\tweb\n"), "{qualified}");
    }

    #[test]
    fn aliases_come_last() {
        let aliases =
            json!([{ "ip": "1.1.1.1", "hostnames": ["one", "uno"] }, { "ip": "::2", "hostnames": ["two"] }]);
        let expected = "\n\n# Entries added by HostAliases.\n1.1.1.1\tone\tuno\n::2\ttwo\n";
        let own = file(&json!({ "containers": [], "hostAliases": aliases }), None);
        assert!(own.ends_with(&format!("fd00::5\tweb{expected}")), "{own}");
        let shared = file(&json!({ "containers": [], "hostNetwork": true, "hostAliases": aliases }), None);
        let head = "# Kubernetes-managed hosts file (host network).\n1.2.3.4\tnode";
        assert_eq!(shared, format!("{head}{expected}"));
    }
}
