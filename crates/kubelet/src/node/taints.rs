use k8s_openapi::api::core::v1::Taint;
use thiserror::Error;

use super::labels::{is_label_value, is_qualified_name};

/// Why a list of taints is refused. Each message names the taint.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TaintError {
    /// Not of the form `key=value:Effect`.
    #[error("{0:?} is not of the form key=value:Effect")]
    Form(String),
    /// The key or the value has characters it may not have.
    #[error("{0:?} has a key or value that a taint cannot have")]
    Name(String),
    /// An effect that Kubernetes does not know.
    #[error("{0:?} has an effect other than NoSchedule, PreferNoSchedule and NoExecute")]
    Effect(String),
    /// The same key and effect twice.
    #[error("{0:?} repeats the key and effect of another taint")]
    Repeated(String),
}

/// The taints in the kubelet's syntax: `key=value:Effect` or `key:Effect`, separated by commas.
///
/// # Errors
/// [`TaintError`] names the first taint that the API server would refuse.
pub fn parse_taints(text: &str) -> Result<Vec<Taint>, TaintError> {
    let mut taints: Vec<Taint> = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let taint = taint(part)?;
        if taints.iter().any(|other| other.key == taint.key && other.effect == taint.effect) {
            return Err(TaintError::Repeated(part.to_owned()));
        }
        taints.push(taint);
    }
    Ok(taints)
}

fn taint(text: &str) -> Result<Taint, TaintError> {
    let (named, effect) = text.split_once(':').ok_or_else(|| TaintError::Form(text.to_owned()))?;
    let (key, value) = match named.split_once('=') {
        Some((key, value)) => (key, Some(value)),
        None => (named, None),
    };
    if !is_qualified_name(key) || !value.is_none_or(is_label_value) {
        return Err(TaintError::Name(text.to_owned()));
    }
    if !["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect) {
        return Err(TaintError::Effect(text.to_owned()));
    }
    let value = value.filter(|value| !value.is_empty()).map(str::to_owned);
    Ok(Taint { key: key.to_owned(), value, effect: effect.to_owned(), ..Taint::default() })
}

/// The taints that keep pods of other architectures away: those Krustlet had.
#[must_use]
pub fn default_taints(architecture: &str) -> Vec<Taint> {
    let taint = |effect: &str| Taint {
        key: "kubernetes.io/arch".to_owned(),
        value: Some(architecture.to_owned()),
        effect: effect.to_owned(),
        ..Taint::default()
    };
    vec![taint("NoSchedule"), taint("NoExecute")]
}

#[cfg(test)]
mod tests {
    use super::*;

    type Parts<'a> = (&'a str, Option<&'a str>, &'a str);

    fn parts(taint: &Taint) -> Parts<'_> {
        (&taint.key, taint.value.as_deref(), &taint.effect)
    }

    #[track_caller]
    fn check(text: &str, expected: &Result<&[Parts<'_>], TaintError>) {
        let parsed = parse_taints(text);
        let parsed = parsed.as_ref().map(|taints| taints.iter().map(parts).collect());
        assert_eq!(parsed, expected.as_ref().map(|parts| parts.to_vec()), "{text}");
    }

    #[test]
    fn taints_are_read_as_the_kubelet_reads_them() {
        check("", &Ok(&[]));
        check("a=b:NoSchedule", &Ok(&[("a", Some("b"), "NoSchedule")]));
        check(
            "x.io/a:NoExecute,x.io/a=:PreferNoSchedule",
            &Ok(&[("x.io/a", None, "NoExecute"), ("x.io/a", None, "PreferNoSchedule")]),
        );
        check("a=b", &Err(TaintError::Form("a=b".into())));
        check("a=b:Never", &Err(TaintError::Effect("a=b:Never".into())));
        check(":NoSchedule", &Err(TaintError::Name(":NoSchedule".into())));
        check("a=b c:NoSchedule", &Err(TaintError::Name("a=b c:NoSchedule".into())));
        check("a:NoSchedule,a=c:NoSchedule", &Err(TaintError::Repeated("a=c:NoSchedule".into())));
    }

    #[test]
    fn by_default_the_architecture_keeps_others_away() {
        assert_eq!(
            default_taints("wasm32-wasi"),
            parse_taints(
                "kubernetes.io/arch=wasm32-wasi:NoSchedule,kubernetes.io/arch=wasm32-wasi:NoExecute"
            )
            .unwrap()
        );
    }
}
