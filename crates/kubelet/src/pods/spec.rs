use std::collections::BTreeMap;
use std::path::PathBuf;

use coracle_lifecycle::environment::{EnvironmentError, Variables, expand};
use coracle_lifecycle::{
    ContainerId, ContainerSpec, Dns, Limits, LocalImage, LogFile, Mount, Network, Port, Protocol, Wish,
    quantity,
};
use k8s_openapi::api::core::v1::{Container, ContainerPort, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use thiserror::Error;

use super::environment::variables;
use super::objects::FetchError;
use super::services::ServicesUnknown;
use super::{Context, volumes};

/// The size at which a container's log is rotated, and how many files are kept: the kubelet's defaults.
const LOG_SIZE: u64 = 10 * 1024 * 1024;
const LOG_FILES: u32 = 5;

/// Why what a container asks for cannot be put together. The message is the kubelet's.
#[derive(Debug, Error)]
pub(super) enum ConfigError {
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Services(#[from] ServicesUnknown),
}

/// Resolves one run of a container of `pod` into plain data.
pub(super) async fn resolve(
    context: &Context,
    pod: &Pod,
    declared: &Container,
    attempt: u32,
    image: LocalImage,
) -> Result<ContainerSpec, ConfigError> {
    let identity = pod.identity();
    let network = network(context, pod);
    let env = variables(context, pod, declared, &network).await?;
    let expanded = |texts: &Option<Vec<String>>| {
        texts.iter().flatten().map(|text| expand(text, |name| env.get(name))).collect()
    };
    let security = declared.security_context.as_ref();
    Ok(ContainerSpec {
        id: ContainerId::of(&identity.uid, &declared.name, attempt),
        name: declared.name.clone(),
        annotations: pod.metadata.annotations.clone().unwrap_or_default(),
        network,
        image,
        root: root(context, pod, declared, attempt),
        read_only_root: security.and_then(|security| security.read_only_root_filesystem).unwrap_or(false),
        command: expanded(&declared.command),
        args: expanded(&declared.args),
        mounts: mounts(context, pod, declared),
        ports: declared.ports.iter().flatten().filter_map(port).collect(),
        limits: limits(declared.resources.as_ref()),
        pod_limits: limits(pod.spec.as_ref().and_then(|spec| spec.resources.as_ref())),
        log: LogFile {
            path: context.layout.log(&identity, &declared.name, attempt),
            max_size: LOG_SIZE,
            max_files: LOG_FILES,
        },
        working_directory: declared.working_dir.clone().filter(|directory| !directory.is_empty()),
        stdin: declared.stdin.unwrap_or(false),
        tty: declared.tty.unwrap_or(false),
        runtime_handler: None,
        pod: identity,
        env: with_hostname(env, pod),
    })
}

fn root(context: &Context, pod: &Pod, declared: &Container, attempt: u32) -> PathBuf {
    context.layout.container_root(&pod.identity().uid, &declared.name, attempt)
}

/// The variables and `HOSTNAME`, which a runtime sets where the pod does not: `$(HOSTNAME)` does not see it.
fn with_hostname(variables: Variables, pod: &Pod) -> Vec<(String, String)> {
    let mut variables: Vec<(String, String)> = variables.into();
    if !variables.iter().any(|(name, _)| name == "HOSTNAME") {
        variables.insert(0, ("HOSTNAME".to_owned(), hostname(pod)));
    }
    variables
}

/// The longest host name, in characters.
const HOSTNAME: usize = 63;

fn hostname(pod: &Pod) -> String {
    let wished = pod.spec.as_ref().and_then(|spec| spec.hostname.clone()).filter(|name| !name.is_empty());
    let name = wished.unwrap_or_else(|| pod.identity().name);
    name.chars().take(HOSTNAME).collect::<String>().trim_end_matches(['-', '.']).to_owned()
}

fn network(context: &Context, pod: &Pod) -> Network {
    let host = pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or(false);
    Network {
        host,
        shared: !host,
        addresses: context.host.addresses.clone(),
        hostname: hostname(pod),
        dns: Dns::default(),
    }
}

fn mounts(context: &Context, pod: &Pod, declared: &Container) -> Vec<Mount> {
    let mounts = declared.volume_mounts.iter().flatten();
    mounts
        .filter_map(|mount| {
            let source = volumes::directory(context, pod, &mount.name)?;
            let read_only = mount.read_only.unwrap_or(false) || volumes::is_read_only(pod, &mount.name);
            Some(Mount { source, target: mount.mount_path.clone(), read_only })
        })
        .collect()
}

fn port(port: &ContainerPort) -> Option<Port> {
    let number = |port: i32| u16::try_from(port).ok().filter(|port| *port > 0);
    let protocol = match port.protocol.as_deref() {
        Some("UDP") => Protocol::Udp,
        Some("SCTP") => Protocol::Sctp,
        _ => Protocol::Tcp,
    };
    Some(Port {
        name: port.name.clone(),
        number: number(port.container_port)?,
        protocol,
        host_port: port.host_port.and_then(number),
        host_ip: port.host_ip.as_deref().and_then(|address| address.parse().ok()),
    })
}

type Amounts = BTreeMap<String, Quantity>;

fn limits(resources: Option<&ResourceRequirements>) -> Limits {
    let limits = resources.and_then(|resources| resources.limits.as_ref());
    let requests = resources.and_then(|resources| resources.requests.as_ref());
    let cpu =
        |amounts: Option<&Amounts>| amounts?.get("cpu").and_then(|amount| quantity::thousandths(amount).ok());
    Limits {
        memory: limits
            .and_then(|limits| limits.get("memory"))
            .and_then(|amount| quantity::whole(amount).ok()),
        cpu: cpu(limits),
        cpu_request: cpu(requests),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn long_names_make_host_names_that_fit() {
        let name = format!("{}-{}", "a".repeat(62), "b".repeat(10));
        let pod: Pod = serde_json::from_value(json!({ "metadata": { "name": name } })).unwrap();
        assert_eq!(hostname(&pod), "a".repeat(62));
    }

    #[test]
    fn limits_are_bytes_and_thousandths() {
        let resources = json!({ "limits": { "memory": "1Mi", "cpu": "250m" }, "requests": { "cpu": "0.1" } });
        let resources = serde_json::from_value(resources).unwrap();
        let expected = Limits { memory: Some(1 << 20), cpu: Some(250), cpu_request: Some(100) };
        assert_eq!(limits(Some(&resources)), expected);
    }
}
