use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use coracle_lifecycle::environment::{EnvironmentError, Variables, expand};
use coracle_lifecycle::naming::NameTooLong;
use coracle_lifecycle::{
    ContainerId, ContainerSpec, Limits, LogFile, Network, Notice, Port, Protocol, Wish, quantity,
    sysctl_files,
};
use k8s_openapi::api::core::v1::{Container, ContainerPort, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use thiserror::Error;

use super::environment::variables;
use super::filesystem::{Copies, Furnishing, MountsError, Names};
use super::objects::FetchError;
use super::runtime_classes::HandlerError;
use super::services::ServicesUnknown;
use super::start::Run;
use super::{Context, filesystem};

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
    Handler(#[from] HandlerError),
    #[error(transparent)]
    Services(#[from] ServicesUnknown),
    #[error(transparent)]
    Mounts(#[from] MountsError),
    #[error(transparent)]
    Name(#[from] NameTooLong),
}

/// One run of a container: what the runtime is told, and what its root file system is furnished with before.
pub(super) struct Resolved {
    pub(super) spec: ContainerSpec,
    pub(super) furnishing: Furnishing,
}

/// Resolves one run of a container of `pod` into plain data.
pub(super) async fn resolve(
    context: &Context,
    pod: &Pod,
    declared: &Container,
    Run { attempt, image, addresses, .. }: Run,
) -> Result<Resolved, ConfigError> {
    let identity = pod.identity();
    let names = context.naming.of(pod).await?;
    tell(context, pod, declared, attempt, &names);
    let network = network(context, pod, &names, addresses);
    let env = variables(context, pod, declared, &network).await?;
    let expanded = |texts: &Option<Vec<String>>| {
        texts.iter().flatten().map(|text| expand(text, |name| env.get(name))).collect()
    };
    let root = root(context, pod, declared, attempt);
    let mounts =
        filesystem::resolve(context, pod, declared, &env, &copies(context, pod, declared, &root)).await?;
    let security = declared.security_context.as_ref();
    let furnishing = Furnishing {
        root: root.clone(),
        files: [names.files(pod, &network), sysctl_files(pod)].concat(),
        working_directory: working_directory(declared),
        own: context.host_paths.own().to_owned(),
        mounts,
    };
    let spec = ContainerSpec {
        id: ContainerId::of(&identity.uid, &declared.name, attempt),
        name: declared.name.clone(),
        annotations: pod.metadata.annotations.clone().unwrap_or_default(),
        network,
        image,
        root,
        read_only_root: security.and_then(|security| security.read_only_root_filesystem).unwrap_or(false),
        command: expanded(&declared.command),
        args: expanded(&declared.args),
        mounts: furnishing.mounts.directories.clone(),
        ports: declared.ports.iter().flatten().filter_map(port).collect(),
        limits: limits(declared.resources.as_ref()),
        pod_limits: limits(pod.spec.as_ref().and_then(|spec| spec.resources.as_ref())),
        log: LogFile {
            path: context.layout.log(&identity, &declared.name, attempt),
            max_size: LOG_SIZE,
            max_files: LOG_FILES,
        },
        working_directory: working_directory(declared),
        stdin: declared.stdin.unwrap_or(false),
        tty: declared.tty.unwrap_or(false),
        runtime_handler: context.runtime_classes.handler(pod).await?,
        pod: identity,
        env: with_hostname(env, &names.host_name.name),
    };
    Ok(Resolved { spec, furnishing })
}

fn root(context: &Context, pod: &Pod, declared: &Container, attempt: u32) -> PathBuf {
    context.layout.container_root(&pod.identity().uid, &declared.name, attempt)
}

fn copies(context: &Context, pod: &Pod, declared: &Container, root: &Path) -> Copies {
    let directory = root.with_extension("copies");
    // No volume has a name that begins like that.
    let memory = context.layout.memory_volumes(&pod.identity().uid);
    let in_memory = memory.map(|memory| memory.join("..copies").join(&declared.name));
    let views = root.with_extension("views");
    Copies { in_memory: in_memory.unwrap_or_else(|| directory.clone()), directory, views }
}

fn working_directory(declared: &Container) -> Option<String> {
    declared.working_dir.clone().filter(|directory| !directory.is_empty())
}

/// The variables and `HOSTNAME`, which a runtime sets where the pod does not: `$(HOSTNAME)` does not see it.
fn with_hostname(variables: Variables, name: &str) -> Vec<(String, String)> {
    let mut variables: Vec<(String, String)> = variables.into();
    if !variables.iter().any(|(name, _)| name == "HOSTNAME") {
        variables.insert(0, ("HOSTNAME".to_owned(), name.to_owned()));
    }
    variables
}

/// The pod's network; `own` are its own addresses, none where it has the node's.
fn network(context: &Context, pod: &Pod, names: &Names, own: Vec<IpAddr>) -> Network {
    let host = pod.uses_host_network();
    let shares = own.is_empty();
    Network {
        host,
        shared: shares && !host,
        addresses: if shares { context.host.addresses.clone() } else { own },
        hostname: names.host_name.name.clone(),
        dns: names.dns.clone(),
    }
}

/// People are told once of a pod's name service: when the first of its containers starts for the first time.
fn tell(context: &Context, pod: &Pod, declared: &Container, attempt: u32, names: &Names) {
    let is_first = pod.containers().first().is_some_and(|first| first.name == declared.name);
    for notice in names.notices.iter().filter(|_| is_first && attempt == 0) {
        let (reason, message) = (notice.reason.to_owned(), notice.message.clone());
        context.recorder.pod(pod, Notice { is_warning: true, reason, message, container: None });
    }
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
    fn limits_are_bytes_and_thousandths() {
        let resources = json!({ "limits": { "memory": "1Mi", "cpu": "250m" }, "requests": { "cpu": "0.1" } });
        let resources = serde_json::from_value(resources).unwrap();
        let expected = Limits { memory: Some(1 << 20), cpu: Some(250), cpu_request: Some(100) };
        assert_eq!(limits(Some(&resources)), expected);
    }
}
