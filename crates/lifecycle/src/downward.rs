//! What a pod may show its containers of itself and of its node: the downward API.
//!
//! <https://kubernetes.io/docs/concepts/workloads/pods/downward-api/>

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use thiserror::Error;

use crate::quantity::{self, InvalidQuantity};
use crate::{Amounts, Wish};

/// A pod and what it may show of where it runs.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// Its addresses, the primary one first.
    pub addresses: &'a [IpAddr],
    /// Its node's addresses, the primary one first.
    pub host_addresses: &'a [IpAddr],
    /// What its node can promise in all: what stands for a limit that is not set.
    pub allocatable: Option<&'a Amounts>,
}

/// Why something cannot be shown. Each message names the field.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DownwardError {
    /// No such field, or none that may be shown here.
    #[error("unsupported fieldPath: {0}")]
    UnsupportedField(String),
    /// The field has no keys.
    #[error("fieldPath {0:?} does not support subscript")]
    NoKeys(String),
    /// No such resource.
    #[error("unsupported container resource : {0}")]
    UnsupportedResource(String),
    /// The pod has no such container.
    #[error("container {0} not found")]
    UnknownContainer(String),
    /// An amount that is none.
    #[error(transparent)]
    Quantity(#[from] InvalidQuantity),
}

impl Facts<'_> {
    /// The value of a field, as a variable shows it.
    ///
    /// # Errors
    /// When there is no such field.
    pub fn field(&self, path: &str) -> Result<String, DownwardError> {
        let spec = self.pod.spec.as_ref();
        let text = |text: Option<&String>| Ok(text.cloned().unwrap_or_default());
        match path {
            "spec.nodeName" => text(spec.and_then(|spec| spec.node_name.as_ref())),
            "spec.serviceAccountName" => text(spec.and_then(|spec| spec.service_account_name.as_ref())),
            "status.hostIP" => Ok(joined(self.host_addresses.get(..1))),
            "status.hostIPs" => Ok(joined(Some(self.host_addresses))),
            "status.podIP" => Ok(joined(self.addresses.get(..1))),
            "status.podIPs" => Ok(joined(Some(self.addresses))),
            _ => metadata_field(self.pod, path),
        }
    }

    /// What a container asks for or is held to, in units of the selector's divisor, rounded up.
    ///
    /// # Errors
    /// When there is no such resource, or an amount cannot be parsed.
    pub fn resource(
        &self,
        container: &Container,
        selector: &ResourceFieldSelector,
    ) -> Result<String, DownwardError> {
        let unsupported = || DownwardError::UnsupportedResource(selector.resource.clone());
        let (list, name) = selector.resource.split_once('.').ok_or_else(unsupported)?;
        let is_known =
            matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
        let amount = match list {
            _ if !is_known => return Err(unsupported()),
            "limits" => self.limit(container, name),
            "requests" => requests(container.resources.as_ref()).and_then(|amounts| amounts.get(name)),
            _ => return Err(unsupported()),
        };
        let one = Quantity("1".to_owned());
        let divisor = selector.divisor.as_ref().unwrap_or(&one);
        Ok(divided(name, amount, divisor)?.to_string())
    }

    /// The same for the container of this name; the pod's own when there is no name.
    ///
    /// # Errors
    /// As [`Self::resource`], and when the pod has no such container.
    pub fn resource_of(&self, selector: &ResourceFieldSelector) -> Result<String, DownwardError> {
        let name = selector.container_name.as_deref().unwrap_or_default();
        let spec = self.pod.spec.as_ref();
        let initial = spec.and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default();
        let container = self.pod.containers().iter().chain(initial).find(|container| container.name == name);
        let container = container.ok_or_else(|| DownwardError::UnknownContainer(name.to_owned()))?;
        self.resource(container, selector)
    }

    /// A limit that is not set is the pod's own, else all that the node has.
    fn limit<'a>(&'a self, container: &'a Container, name: &str) -> Option<&'a Quantity> {
        let pod = self.pod.spec.as_ref().and_then(|spec| spec.resources.as_ref());
        let is_set = |amount: &&Quantity| quantity::thousandths(amount).is_ok_and(|amount| amount > 0);
        let find = |amounts: Option<&'a Amounts>| amounts?.get(name).filter(is_set);
        find(limits(container.resources.as_ref()))
            .or_else(|| find(limits(pod)))
            .or_else(|| find(self.allocatable))
    }
}

/// The value of a field of the pod's metadata: all that the files of a volume may show.
///
/// # Errors
/// When there is no such field.
pub fn metadata_field(pod: &Pod, path: &str) -> Result<String, DownwardError> {
    if let Some((field, key)) =
        path.split_once("['").and_then(|(field, key)| Some((field, key.strip_suffix("']")?)))
    {
        let entries = match field {
            "metadata.labels" => pod.metadata.labels.as_ref(),
            "metadata.annotations" => pod.metadata.annotations.as_ref(),
            _ => return Err(DownwardError::NoKeys(field.to_owned())),
        };
        return Ok(entries.and_then(|entries| entries.get(key)).cloned().unwrap_or_default());
    }
    let identity = pod.identity();
    match path {
        "metadata.name" => Ok(identity.name),
        "metadata.namespace" => Ok(identity.namespace),
        "metadata.uid" => Ok(identity.uid.to_string()),
        "metadata.labels" => Ok(listed(pod.metadata.labels.as_ref())),
        "metadata.annotations" => Ok(listed(pod.metadata.annotations.as_ref())),
        _ => Err(DownwardError::UnsupportedField(path.to_owned())),
    }
}

fn limits(resources: Option<&ResourceRequirements>) -> Option<&Amounts> {
    resources?.limits.as_ref()
}

fn requests(resources: Option<&ResourceRequirements>) -> Option<&Amounts> {
    resources?.requests.as_ref()
}

/// CPU is counted in thousandths, so that a divisor of `1m` means something; all else in whole units.
fn divided(name: &str, amount: Option<&Quantity>, divisor: &Quantity) -> Result<u64, InvalidQuantity> {
    let count = if name == "cpu" { quantity::thousandths } else { quantity::whole };
    let amount = amount.map_or(Ok(0), count)?;
    let divisor = match count(divisor)? {
        0 => count(&Quantity("1".to_owned()))?,
        divisor => divisor,
    };
    Ok(amount.div_ceil(divisor))
}

fn joined(addresses: Option<&[IpAddr]>) -> String {
    let texts: Vec<_> = addresses.into_iter().flatten().map(IpAddr::to_string).collect();
    texts.join(",")
}

/// Labels or annotations as the downward API lists them: `key="value"`, a line each.
fn listed(entries: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<String> =
        entries.into_iter().flatten().map(|(key, value)| format!("{key}={}", quoted(value))).collect();
    lines.join("\n")
}

/// The text as a Go string literal.
fn quoted(text: &str) -> String {
    let mut result = String::with_capacity(text.len() + 2);
    result.push('"');
    for character in text.chars() {
        match character {
            '"' => result.push_str("\\\""),
            '\\' => result.push_str("\\\\"),
            '\n' => result.push_str("\\n"),
            '\r' => result.push_str("\\r"),
            '\t' => result.push_str("\\t"),
            '\0'..='\x1f' | '\x7f' => result.extend(hexadecimal(character)),
            _ => result.push(character),
        }
    }
    result.push('"');
    result
}

/// A control character of ASCII as `\xhh`.
fn hexadecimal(character: char) -> [char; 4] {
    let digit = |value: u32| char::from_digit(value & 0xf, 16).unwrap_or('0');
    let code = u32::from(character);
    ['\\', 'x', digit(code >> 4), digit(code)]
}

#[cfg(test)]
#[path = "downward_tests.rs"]
mod tests;
