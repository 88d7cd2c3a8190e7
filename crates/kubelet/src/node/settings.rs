use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use coracle_lifecycle::RuntimeInfo;
use k8s_openapi::api::core::v1::Taint;

use super::Thresholds;
use crate::ShutdownGrace;

/// What a node is by its configuration: plain data, checked before it comes here.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// The name of the Node object, also its `Hostname` address.
    pub name: String,
    /// The addresses other machines reach this node by: one of each family at most, the primary one first.
    pub addresses: Vec<IpAddr>,
    /// The port of the node's HTTP API.
    pub port: u16,
    /// Labels of the operator's own, as [`parse_labels`](super::parse_labels) lets them pass.
    pub labels: BTreeMap<String, String>,
    /// The taints of a Node object made here; an existing one keeps its own.
    pub taints: Vec<Taint>,
    /// An upper bound for the number of pods; it never raises what the node works out.
    pub max_pods: Option<u32>,
    /// What must stay free of the machine.
    pub thresholds: Thresholds,
    /// The directory whose file system counts as `ephemeral-storage`.
    pub root_dir: PathBuf,
    /// The paths of this machine below which pods may mount paths of it.
    pub allowed_host_paths: Vec<PathBuf>,
    /// The cluster's name servers; empty when pods are to use the node's.
    pub cluster_dns: Vec<IpAddr>,
    /// The cluster's domain.
    pub cluster_domain: String,
    /// The runtime, as it describes itself.
    pub runtime: RuntimeInfo,
    /// How long pods have when the machine goes down.
    pub shutdown_grace: ShutdownGrace,
    /// `nodeInfo.kubeletVersion`: a semantic version after a `v`.
    pub kubelet_version: String,
}
