//! What a pod is called, and how it finds others by name.

mod dns;
mod hostname;
mod hosts;

pub use dns::{DnsNotice, DnsSettings, parse_resolv_conf, pod_dns, resolv_conf};
pub use hostname::{HostName, NameTooLong, host_name};
pub use hosts::hosts_file;
