use std::collections::BTreeMap;

use coracle_lifecycle::RuntimeInfo;
use thiserror::Error;

/// Why a list of labels is refused. Each message names the label.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LabelError {
    /// Not of the form `key=value`.
    #[error("{0:?} is not of the form key=value")]
    Form(String),
    /// The key is no label key.
    #[error(
        "{0:?} is not a label key: an optional DNS name and \"/\", then at most 63 letters, digits, '-', '_' or '.'"
    )]
    Key(String),
    /// The value is no label value.
    #[error(
        "{value:?}, the value of {key}, is not a label value: at most 63 letters, digits, '-', '_' or '.'"
    )]
    Value {
        /// The label's key.
        key: String,
        /// The refused value.
        value: String,
    },
    /// A node may not set this label on itself.
    #[error("a node may not set the label {0} on itself (NodeRestriction)")]
    Restricted(String),
    /// The node works this label out itself.
    #[error("the label {0} is the node's own and cannot be set")]
    Reserved(String),
}

const HOSTNAME: &str = "kubernetes.io/hostname";
const OS: &str = "kubernetes.io/os";
const ARCH: &str = "kubernetes.io/arch";
const BETA_OS: &str = "beta.kubernetes.io/os";
const BETA_ARCH: &str = "beta.kubernetes.io/arch";

/// The label by which workloads that select a kind of node find this one.
const KIND: (&str, &str) = ("type", "coracle");

/// The labels under `kubernetes.io` and `k8s.io` that `NodeRestriction` lets a node set, beside two prefixes.
const ALLOWED: [&str; 11] = [
    HOSTNAME,
    OS,
    ARCH,
    BETA_OS,
    BETA_ARCH,
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/instance-type",
];

/// The labels in `key=value,key=value`, each one that a node may set on itself.
///
/// # Errors
/// [`LabelError`] names the first label that is malformed or that the API server's `NodeRestriction` admission
/// would refuse.
pub fn parse_labels(text: &str) -> Result<BTreeMap<String, String>, LabelError> {
    text.split(',').map(str::trim).filter(|pair| !pair.is_empty()).map(label).collect()
}

fn label(pair: &str) -> Result<(String, String), LabelError> {
    let (key, value) = pair.split_once('=').ok_or_else(|| LabelError::Form(pair.to_owned()))?;
    check_key(key)?;
    if !is_label_value(value) {
        return Err(LabelError::Value { key: key.to_owned(), value: value.to_owned() });
    }
    Ok((key.to_owned(), value.to_owned()))
}

fn check_key(key: &str) -> Result<(), LabelError> {
    if !is_qualified_name(key) {
        return Err(LabelError::Key(key.to_owned()));
    }
    if !may_set(key) {
        return Err(LabelError::Restricted(key.to_owned()));
    }
    if [HOSTNAME, OS, ARCH, BETA_OS, BETA_ARCH].contains(&key) {
        return Err(LabelError::Reserved(key.to_owned()));
    }
    Ok(())
}

/// Whether `NodeRestriction` lets a node set this label on itself.
fn may_set(key: &str) -> bool {
    let Some((domain, _)) = key.split_once('/') else { return true };
    let within = |parent: &str| domain == parent || domain.ends_with(&format!(".{parent}"));
    if !within("kubernetes.io") && !within("k8s.io") {
        return true;
    }
    ALLOWED.contains(&key) || within("kubelet.kubernetes.io") || within("node.kubernetes.io")
}

/// Whether `text` is a key in Kubernetes' sense: `name` or `domain/name`.
pub(super) fn is_qualified_name(text: &str) -> bool {
    match text.split_once('/') {
        Some((domain, name)) => is_subdomain(domain) && is_name(name),
        None => is_name(text),
    }
}

/// Whether `text` may be the value of a label or taint.
pub(super) fn is_label_value(text: &str) -> bool {
    text.is_empty() || is_name(text)
}

/// Whether `text` is a DNS subdomain as Kubernetes wants object names.
#[must_use]
pub fn is_subdomain(text: &str) -> bool {
    let is_part = |part: &str| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !part.is_empty() && part.bytes().all(inner) && !part.starts_with('-') && !part.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(is_part)
}

fn is_name(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let is_edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    text.len() <= 63
        && text.bytes().all(inner)
        && is_edge(text.bytes().next())
        && is_edge(text.bytes().next_back())
}

/// All labels of a node: those the runtime implies, under the operator's own.
pub(super) fn node_labels(
    name: &str,
    runtime: &RuntimeInfo,
    own: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let implied = [
        (HOSTNAME, name),
        (OS, &runtime.operating_system),
        (ARCH, &runtime.architecture),
        (BETA_OS, &runtime.operating_system),
        (BETA_ARCH, &runtime.architecture),
        KIND,
    ];
    let mut labels: BTreeMap<_, _> =
        implied.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    labels.extend(own.clone());
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<&[(&str, &str)], LabelError>) {
        let expected = expected
            .map(|pairs| pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect());
        assert_eq!(parse_labels(text), expected, "{text}");
    }

    #[test]
    fn labels_are_read_as_the_kubelet_reads_them() {
        check("", Ok(&[]));
        check("a=b", Ok(&[("a", "b")]));
        check("a=b, example.com/c.d=,", Ok(&[("a", "b"), ("example.com/c.d", "")]));
        check("type=other", Ok(&[("type", "other")]));
        check("a", Err(LabelError::Form("a".into())));
        check("-a=b", Err(LabelError::Key("-a".into())));
        check("Example.com/a=b", Err(LabelError::Key("Example.com/a".into())));
        check("a=b c", Err(LabelError::Value { key: "a".into(), value: "b c".into() }));
        check(&format!("{}=b", "a".repeat(64)), Err(LabelError::Key("a".repeat(64))));
    }

    #[test]
    fn labels_that_node_restriction_refuses_are_refused_by_name() {
        for allowed in [
            "topology.kubernetes.io/zone",
            "kubelet.kubernetes.io/x",
            "a.node.kubernetes.io/x",
            "node.kubernetes.io/instance-type",
            "notkubernetes.io/x",
        ] {
            check(&format!("{allowed}=v"), Ok(&[(allowed, "v")]));
        }
        for refused in [
            "node-role.kubernetes.io/worker",
            "node-restriction.kubernetes.io/x",
            "a.node-restriction.kubernetes.io/x",
            "kubernetes.io/x",
            "x.k8s.io/y",
        ] {
            check(&format!("{refused}=v"), Err(LabelError::Restricted(refused.into())));
        }
        check("kubernetes.io/arch=amd64", Err(LabelError::Reserved("kubernetes.io/arch".into())));
    }

    #[test]
    fn krustlets_labels_stand_under_the_operators_own() {
        let runtime = super::super::samples::runtime();
        let own = parse_labels("type=krustlet,zone=a").unwrap();
        let labels = node_labels("n1", &runtime, &own);
        let pairs: Vec<_> = labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(
            pairs,
            [
                ("beta.kubernetes.io/arch", "wasm32-wasi"),
                ("beta.kubernetes.io/os", "wasm32-wasi"),
                ("kubernetes.io/arch", "wasm32-wasi"),
                ("kubernetes.io/hostname", "n1"),
                ("kubernetes.io/os", "wasm32-wasi"),
                ("type", "krustlet"),
                ("zone", "a"),
            ]
        );
    }
}
