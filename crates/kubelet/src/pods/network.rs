use std::net::IpAddr;
use std::sync::Arc;

use coracle_lifecycle::{AddressPool, NodeNetwork, Provider};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::node::{NetworkReport, pod_ranges};

/// The network of the node's pods, as far as the node has a range for them and the runtime can make use of it.
pub(super) struct PodNetwork {
    provider: Arc<dyn Provider>,
    /// The node's own addresses.
    own: Vec<IpAddr>,
    /// The ranges that the runtime was asked for last; `None` before the first time.
    asked: Option<Vec<IpNet>>,
    /// Why the runtime gives pods no addresses.
    refusal: Option<String>,
    report: watch::Sender<NetworkReport>,
}

impl PodNetwork {
    pub(super) fn new(provider: Arc<dyn Provider>, own: Vec<IpAddr>) -> Self {
        Self { provider, own, asked: None, refusal: None, report: watch::Sender::default() }
    }

    /// What the node is to say of it.
    pub(super) fn report(&self) -> watch::Receiver<NetworkReport> {
        self.report.subscribe()
    }

    /// Whether nothing but a range is missing.
    pub(super) fn lacks_range(&self) -> bool {
        self.refusal.is_none() && self.asked.as_ref().is_some_and(Vec::is_empty)
    }

    /// Opens the ranges that the Node has, and gives those of which pods have their addresses from now on: none where
    /// they have the node's. A Node that was made anew has no range for a moment; that changes nothing.
    pub(super) async fn follow(&mut self, node: &Node) -> &[IpNet] {
        let ranges = pod_ranges(node);
        let is_known = self.asked.as_ref().is_some_and(|asked| *asked == ranges || ranges.is_empty());
        if !is_known {
            let network = NodeNetwork { ranges, addresses: self.own.clone() };
            let opened = self.provider.open_network(&network).await;
            self.refusal = opened.err().map(|refusal| refusal.to_string());
            self.asked = Some(network.ranges);
            self.tell();
        }
        self.ranges()
    }

    fn ranges(&self) -> &[IpNet] {
        let asked = self.asked.as_deref().unwrap_or_default();
        if self.refusal.is_none() { asked } else { &[] }
    }

    fn tell(&self) {
        let mut pool = AddressPool::default();
        pool.learn(self.ranges());
        let no_range = || "the node has no range of addresses for them (spec.podCIDR)".to_owned();
        let lacks_range = self.lacks_range().then(no_range);
        let shared = self.refusal.clone().or(lacks_range);
        if let Some(why) = &shared {
            warn!(why, "pods have the node's address");
        } else {
            info!(ranges = ?self.ranges(), "pods have addresses of their own");
        }
        let addresses = pool.capacity().map(|count| u32::try_from(count).unwrap_or(u32::MAX));
        self.report.send_replace(NetworkReport { shared, addresses });
    }
}
