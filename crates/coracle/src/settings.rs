use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Display;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use coracle_kubelet::ShutdownGrace;
use coracle_kubelet::node::{Thresholds, is_subdomain, parse_labels, parse_taints, parse_thresholds};
use k8s_openapi::api::core::v1::Taint;

use crate::flags::NodeFlags;
use crate::images::{ImageSettings, ImageSurroundings};

/// What the flags of `coracle node` mean, each value checked by itself. Nothing was touched or asked for yet.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    pub(crate) kubeconfig: PathBuf,
    pub(crate) name: String,
    /// Empty: to be found out.
    pub(crate) addresses: Vec<IpAddr>,
    /// Whether pods are to have addresses of their own.
    pub(crate) own_addresses: bool,
    pub(crate) port: u16,
    pub(crate) root_dir: PathBuf,
    pub(crate) labels: BTreeMap<String, String>,
    /// `None`: the usual ones.
    pub(crate) taints: Option<Vec<Taint>>,
    pub(crate) max_pods: Option<u32>,
    pub(crate) thresholds: Thresholds,
    /// The serving certificate and its key; `None`: to be made.
    pub(crate) serving: Option<(PathBuf, PathBuf)>,
    pub(crate) client_ca: Option<PathBuf>,
    pub(crate) insecure_registries: Vec<String>,
    pub(crate) images: ImageSettings,
    pub(crate) shutdown_grace: ShutdownGrace,
    pub(crate) allowed_host_paths: Vec<PathBuf>,
    pub(crate) cluster_dns: Vec<IpAddr>,
    pub(crate) cluster_domain: String,
}

/// What the flags leave to the machine they are given on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Surroundings {
    /// The machine's host name.
    pub(crate) hostname: String,
    /// The value of `KUBECONFIG`.
    pub(crate) kubeconfig: Option<OsString>,
    pub(crate) images: ImageSurroundings,
}

/// A flag that is missing or has a value it cannot have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{flag}: {why}")]
pub(crate) struct UsageError {
    pub(crate) flag: &'static str,
    pub(crate) why: String,
}

pub(crate) fn wrong(flag: &'static str, why: impl Display) -> UsageError {
    UsageError { flag, why: why.to_string() }
}

const KUBECONFIG: &str = "--kubeconfig";
const PORT: u16 = 10250;
const CLUSTER_DOMAIN: &str = "cluster.local";
const ROOT_DIR: &str = "/var/lib/coracle";

impl Settings {
    /// The settings that the flags stand for. A value that is empty counts as not given, but for the taints.
    pub(crate) fn check(flags: NodeFlags, surroundings: &Surroundings) -> Result<Self, UsageError> {
        let kubeconfig = given(flags.kubeconfig)
            .or_else(|| given(surroundings.kubeconfig.clone()))
            .ok_or_else(|| wrong(KUBECONFIG, "is required when KUBECONFIG is not set"))?;
        let taints = flags.register_with_taints.map(|taints| parse_taints(&taints)).transpose();
        Ok(Self {
            kubeconfig: kubeconfig.into(),
            name: name(flags.hostname_override, &surroundings.hostname)?,
            addresses: addresses(&flags.node_ip.unwrap_or_default())?,
            own_addresses: own_addresses(flags.pod_network.as_deref())?,
            port: port(flags.port)?,
            root_dir: root_dir(flags.root_dir)?,
            labels: parse_labels(&flags.node_labels.unwrap_or_default())
                .map_err(|error| wrong("--node-labels", error))?,
            taints: taints.map_err(|error| wrong("--register-with-taints", error))?,
            max_pods: max_pods(flags.max_pods)?,
            thresholds: thresholds(flags.eviction_hard.as_deref())?,
            serving: serving(given(flags.tls_cert_file), given(flags.tls_private_key_file))?,
            client_ca: given(flags.client_ca_file).map(PathBuf::from),
            insecure_registries: registries(flags.insecure_registry)?,
            images: ImageSettings::check(flags.images, surroundings.images.clone())?,
            allowed_host_paths: host_paths(flags.allowed_host_path)?,
            cluster_dns: name_servers(&flags.cluster_dns.unwrap_or_default())?,
            cluster_domain: cluster_domain(flags.cluster_domain)?,
            shutdown_grace: shutdown_grace(
                flags.shutdown_grace_period,
                flags.shutdown_grace_period_critical_pods,
                flags.shutdown_grace_period_by_pod_priority.filter(|text| !text.is_empty()),
            )?,
        })
    }
}

pub(crate) fn given(value: Option<OsString>) -> Option<OsString> {
    value.filter(|value| !value.is_empty())
}

fn name(given: Option<String>, hostname: &str) -> Result<String, UsageError> {
    const FLAG: &str = "--hostname-override";
    match given.filter(|name| !name.is_empty()) {
        Some(name) if is_subdomain(&name) => Ok(name),
        Some(name) => Err(wrong(
            FLAG,
            format_args!("{name:?} is not a node name: lower-case letters, digits, '-' and '.', as in DNS"),
        )),
        None => {
            let name = hostname.to_lowercase();
            let why = format_args!("the host name {hostname:?} is not a node name").to_string();
            is_subdomain(&name).then_some(name).ok_or_else(|| wrong(FLAG, why))
        }
    }
}

fn addresses(text: &str) -> Result<Vec<IpAddr>, UsageError> {
    const FLAG: &str = "--node-ip";
    let mut addresses: Vec<IpAddr> = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let address: IpAddr =
            part.parse().map_err(|_| wrong(FLAG, format_args!("{part:?} is not an IP address")))?;
        if address.is_unspecified() || address.is_multicast() {
            return Err(wrong(FLAG, format_args!("{address} cannot be a node's address")));
        }
        if addresses.iter().any(|other| other.is_ipv4() == address.is_ipv4()) {
            return Err(wrong(FLAG, "there can be one IPv4 and one IPv6 address"));
        }
        addresses.push(address);
    }
    Ok(addresses)
}

fn host_paths(given: Vec<OsString>) -> Result<Vec<PathBuf>, UsageError> {
    let given = given.into_iter().filter(|path| !path.is_empty()).map(PathBuf::from);
    given
        .map(|path| {
            let is_plain = path.is_absolute() && path.components().all(|part| part.as_os_str() != "..");
            let why = format_args!("{} is not an absolute path without '..'", path.display()).to_string();
            is_plain.then_some(path).ok_or_else(|| wrong("--allowed-host-path", why))
        })
        .collect()
}

fn name_servers(text: &str) -> Result<Vec<IpAddr>, UsageError> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts
        .map(|part| {
            part.parse().map_err(|_| wrong("--cluster-dns", format_args!("{part:?} is not an IP address")))
        })
        .collect()
}

fn cluster_domain(given: Option<String>) -> Result<String, UsageError> {
    let domain = given.filter(|domain| !domain.is_empty()).unwrap_or_else(|| CLUSTER_DOMAIN.to_owned());
    let why = format_args!("{domain:?} is not a domain").to_string();
    is_subdomain(&domain).then_some(domain).ok_or_else(|| wrong("--cluster-domain", why))
}

fn own_addresses(text: Option<&str>) -> Result<bool, UsageError> {
    match text {
        None | Some("" | "auto") => Ok(true),
        Some("node") => Ok(false),
        Some(other) => Err(wrong("--pod-network", format_args!("{other:?} is neither auto nor node"))),
    }
}

fn port(text: Option<String>) -> Result<u16, UsageError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(PORT) };
    let port = text.parse().ok().filter(|&port| port != 0);
    port.ok_or_else(|| wrong("--port", format_args!("{text:?} is not a port between 1 and 65535")))
}

fn root_dir(given_dir: Option<OsString>) -> Result<PathBuf, UsageError> {
    let directory = given(given_dir).unwrap_or_else(|| ROOT_DIR.into());
    std::path::absolute(directory).map_err(|error| wrong("--root-dir", error))
}

fn max_pods(text: Option<String>) -> Result<Option<u32>, UsageError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    let number =
        text.parse().map_err(|_| wrong("--max-pods", format_args!("{text:?} is not a number of pods")))?;
    Ok(Some(number))
}

fn thresholds(text: Option<&str>) -> Result<Thresholds, UsageError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(Thresholds::default()) };
    parse_thresholds(text).map_err(|error| wrong("--eviction-hard", error))
}

fn serving(
    certificate: Option<OsString>,
    key: Option<OsString>,
) -> Result<Option<(PathBuf, PathBuf)>, UsageError> {
    match (certificate, key) {
        (Some(certificate), Some(key)) => Ok(Some((certificate.into(), key.into()))),
        (None, None) => Ok(None),
        (Some(_), None) => Err(wrong("--tls-cert-file", "needs --tls-private-key-file")),
        (None, Some(_)) => Err(wrong("--tls-private-key-file", "needs --tls-cert-file")),
    }
}

fn registries(given: Vec<String>) -> Result<Vec<String>, UsageError> {
    given.into_iter().filter(|registry| !registry.is_empty()).map(registry).collect()
}

fn registry(text: String) -> Result<String, UsageError> {
    let is_port = |port: &str| port.parse::<u16>().is_ok();
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => (host, Some(port).filter(|port| !port.is_empty())),
        None => text.find(':').map_or((text.as_str(), None), |at| (&text[..at], Some(&text[at..]))),
    };
    let is_host = if text.starts_with('[') { host.parse::<Ipv6Addr>().is_ok() } else { is_host_name(host) };
    if is_host && port.is_none_or(|port| port.strip_prefix(':').is_some_and(is_port)) {
        return Ok(text);
    }
    Err(wrong("--insecure-registry", format_args!("{text:?} is not of the form HOST[:PORT]")))
}

const BY_PRIORITY: &str = "--shutdown-grace-period-by-pod-priority";

fn shutdown_grace(
    total: Option<String>,
    critical: Option<String>,
    by_priority: Option<String>,
) -> Result<ShutdownGrace, UsageError> {
    const TOTAL: &str = "--shutdown-grace-period";
    const CRITICAL: &str = "--shutdown-grace-period-critical-pods";
    let (total, critical) = (duration(TOTAL, total)?, duration(CRITICAL, critical)?);
    if critical > total {
        return Err(wrong(CRITICAL, "is a part of --shutdown-grace-period and cannot be longer"));
    }
    match by_priority {
        Some(_) if !total.is_zero() => Err(wrong(BY_PRIORITY, "says the same as --shutdown-grace-period")),
        Some(text) => grace_by_priority(&text),
        None if total.is_zero() => Ok(ShutdownGrace::default()),
        None => Ok(ShutdownGrace::of(total, critical)),
    }
}

fn grace_by_priority(text: &str) -> Result<ShutdownGrace, UsageError> {
    let mut graces = BTreeMap::new();
    for item in text.split(',') {
        let malformed = || wrong(BY_PRIORITY, format_args!("{item:?} is not of the form PRIORITY=DURATION"));
        let (priority, grace) = item.split_once('=').ok_or_else(malformed)?;
        let priority: i32 = priority.trim().parse().map_err(|_| malformed())?;
        if graces.insert(priority, duration(BY_PRIORITY, Some(grace.trim().to_owned()))?).is_some() {
            return Err(wrong(BY_PRIORITY, format_args!("names {priority} twice")));
        }
    }
    Ok(ShutdownGrace::by_priority(graces))
}

/// A duration as the kubelet's flags have it, such as `30s`, `1m30s` or `500ms`; zero when not given.
pub(crate) fn duration(flag: &'static str, text: Option<String>) -> Result<Duration, UsageError> {
    let Some(text) = text.filter(|text| !matches!(text.as_str(), "" | "0")) else {
        return Ok(Duration::ZERO);
    };
    let parsed = text.parse::<jiff::SignedDuration>().ok().and_then(|parsed| Duration::try_from(parsed).ok());
    parsed.ok_or_else(|| wrong(flag, format_args!("{text:?} is not a duration such as 30s or 1m30s")))
}

fn is_host_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
