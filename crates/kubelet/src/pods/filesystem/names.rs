use std::fs;
use std::io;
use std::net::IpAddr;

use coracle_lifecycle::naming::{
    DnsNotice, DnsSettings, HostName, NameTooLong, host_name, hosts_file, parse_resolv_conf, pod_dns,
    resolv_conf,
};
use coracle_lifecycle::{Dns, Network};
use k8s_openapi::api::core::v1::Pod;

use crate::pods::disk;

/// What the names of pods are made of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Naming {
    /// The node's name.
    pub(crate) node: String,
    /// The cluster's name servers.
    pub(crate) cluster_dns: Vec<IpAddr>,
    /// The cluster's domain.
    pub(crate) cluster_domain: String,
}

/// A pod's names and how it looks up others, as its containers find them in `/etc`.
pub(in crate::pods) struct Names {
    pub(in crate::pods) host_name: HostName,
    pub(in crate::pods) dns: Dns,
    pub(in crate::pods) notices: Vec<DnsNotice>,
    node_hosts: String,
}

impl Naming {
    /// The names of a pod. The node's own files are read, and count as empty where they cannot be.
    pub(in crate::pods) async fn of(&self, pod: &Pod) -> Result<Names, NameTooLong> {
        let host_name = host_name(pod, &self.node, &self.cluster_domain)?;
        let read = || Ok([read("/etc/hosts"), read("/etc/resolv.conf")].map(io::Result::unwrap_or_default));
        let [node_hosts, node_dns] = disk::off_thread(read).await.unwrap_or_default();
        let settings = DnsSettings {
            cluster_servers: self.cluster_dns.clone(),
            cluster_domain: self.cluster_domain.clone(),
            node: parse_resolv_conf(&node_dns),
        };
        let (dns, notices) = pod_dns(pod, &settings);
        Ok(Names { host_name, dns, notices, node_hosts })
    }
}

fn read(path: &str) -> io::Result<String> {
    fs::read_to_string(path)
}

impl Names {
    /// The files of `/etc` that tell a container of its pod's names, by their path.
    pub(in crate::pods) fn files(&self, pod: &Pod, network: &Network) -> Vec<(String, String)> {
        let hosts = hosts_file(pod, &self.host_name, &network.addresses, &self.node_hosts);
        let files = [
            ("/etc/hosts", hosts),
            ("/etc/hostname", format!("{}\n", self.host_name.name)),
            ("/etc/resolv.conf", resolv_conf(&self.dns)),
        ];
        files.map(|(path, content)| (path.to_owned(), content)).into()
    }
}
