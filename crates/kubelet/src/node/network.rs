use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;

/// What the node tells of its pods' network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkReport {
    /// Why pods have the node's address, where they have it.
    pub shared: Option<String>,
    /// How many pods can have an address at a time; `None` where they have the node's.
    pub addresses: Option<u32>,
}

/// The ranges of the node's pods, the primary one first; what is no range is passed over.
#[must_use]
pub fn pod_ranges(node: &Node) -> Vec<IpNet> {
    let Some(spec) = &node.spec else { return Vec::new() };
    let several = spec.pod_cidrs.iter().flatten();
    let listed: Vec<IpNet> = several.filter_map(|range| range.parse().ok()).collect();
    let only = || spec.pod_cidr.iter().filter_map(|range| range.parse().ok()).collect();
    if listed.is_empty() { only() } else { listed }
}

impl NetworkReport {
    /// The condition's words for a node that is ready.
    pub(super) fn remark(&self) -> String {
        let ready = "kubelet is posting ready status";
        match &self.shared {
            Some(why) => format!("{ready}; pods have the node's address: {why}"),
            None => ready.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ranges_are_those_of_the_node_in_their_order() {
        let check = |spec: serde_json::Value, expected: &[&str]| {
            let node: Node = serde_json::from_value(json!({ "metadata": {}, "spec": spec })).unwrap();
            let expected: Vec<IpNet> = expected.iter().map(|range| range.parse().unwrap()).collect();
            assert_eq!(pod_ranges(&node), expected);
        };
        check(
            json!({ "podCIDR": "10.0.1.0/24", "podCIDRs": ["10.0.1.0/24", "fd00:1::/64"] }),
            &["10.0.1.0/24", "fd00:1::/64"],
        );
        check(json!({ "podCIDR": "10.0.1.0/24" }), &["10.0.1.0/24"]);
        check(json!({ "podCIDR": "nonsense" }), &[]);
        check(json!({}), &[]);
    }
}
