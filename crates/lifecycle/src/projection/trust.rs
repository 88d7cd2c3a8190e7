use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::ClusterTrustBundleProjection;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

/// The length of a line of PEM.
const LINE: usize = 64;
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// A trust bundle of the cluster (KEP-3257).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustBundle {
    /// The signer that it is of; empty when of none.
    pub signer: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its certificates, as PEM.
    pub certificates: String,
}

/// The certificates that a volume asks for, each once, as PEM; `None` when there is no bundle as it asks for.
#[must_use]
pub fn trust_anchors(
    bundles: &BTreeMap<String, TrustBundle>,
    wanted: &ClusterTrustBundleProjection,
) -> Option<String> {
    let found: Vec<&TrustBundle> = match &wanted.name {
        Some(name) => bundles.get(name).into_iter().collect(),
        None => bundles.values().filter(|bundle| is_wanted(bundle, wanted)).collect(),
    };
    let anchors: BTreeSet<String> = found.iter().flat_map(|bundle| bodies(&bundle.certificates)).collect();
    (!found.is_empty()).then(|| anchors.iter().map(|body| pem(body)).collect())
}

/// Without a selector no bundle of the signer is meant, with an empty one each.
fn is_wanted(bundle: &TrustBundle, wanted: &ClusterTrustBundleProjection) -> bool {
    wanted.signer_name.as_deref().is_some_and(|signer| !signer.is_empty() && signer == bundle.signer)
        && wanted.label_selector.as_ref().is_some_and(|selector| selects(selector, &bundle.labels))
}

fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    let exact = selector.match_labels.iter().flatten();
    let expressions = selector.match_expressions.iter().flatten();
    exact.into_iter().all(|(key, value)| labels.get(key) == Some(value))
        && expressions.into_iter().all(|wanted| holds(wanted, labels.get(&wanted.key)))
}

fn holds(wanted: &LabelSelectorRequirement, actual: Option<&String>) -> bool {
    let is_among =
        || actual.is_some_and(|actual| wanted.values.iter().flatten().any(|value| value == actual));
    match wanted.operator.as_str() {
        "In" => is_among(),
        "NotIn" => !is_among(),
        "Exists" => actual.is_some(),
        "DoesNotExist" => actual.is_none(),
        _ => false,
    }
}

/// The certificates of a text, each as one line of base64. What stands between them is left out.
fn bodies(text: &str) -> impl Iterator<Item = String> {
    let parts = text.split(BEGIN).skip(1).filter_map(|part| part.split_once(END));
    // A line with a colon is a header.
    parts.map(|(body, _)| {
        let lines = body.lines().filter(|line| !line.contains(':'));
        lines.flat_map(str::split_whitespace).collect()
    })
}

/// The certificates of a text in their order, without what stands between them.
pub(super) fn certificates(text: &str) -> String {
    bodies(text).map(|body| pem(&body)).collect()
}

fn pem(body: &str) -> String {
    let mut pem = format!("{BEGIN}\n");
    for (position, character) in body.chars().enumerate() {
        if position > 0 && position % LINE == 0 {
            pem.push('\n');
        }
        pem.push(character);
    }
    pem + "\n" + END + "\n"
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn bundles() -> BTreeMap<String, TrustBundle> {
        let bundle = |signer: &str, label: &str, bodies: &[&str]| TrustBundle {
            signer: signer.to_owned(),
            labels: [("ring".to_owned(), label.to_owned())].into(),
            certificates: bodies
                .iter()
                .flat_map(|body| ["about it\n", BEGIN, "\n", body, "\n", END, "\n"])
                .collect(),
        };
        [
            ("plain".to_owned(), bundle("", "x", &["AAAA"])),
            ("example.com:ca:one".to_owned(), bundle("example.com/ca", "one", &["BBBB", "CC\nCC"])),
            ("example.com:ca:two".to_owned(), bundle("example.com/ca", "two", &["CCCC", "DDDD"])),
        ]
        .into()
    }

    #[track_caller]
    fn check(wanted: Value, expected: Option<&[&str]>) {
        let mut wanted = wanted;
        wanted["path"] = json!("p");
        let found = trust_anchors(&bundles(), &serde_json::from_value(wanted).unwrap());
        let expected = expected.map(|bodies| bodies.iter().map(|body| pem(body)).collect::<String>());
        assert_eq!(found, expected);
    }

    #[test]
    fn bundles_are_found_by_name_or_by_signer_and_labels() {
        check(json!({ "name": "plain" }), Some(&["AAAA"]));
        check(json!({ "name": "gone" }), None);
        let signer = |selector: Value| json!({ "signerName": "example.com/ca", "labelSelector": selector });
        check(signer(json!({})), Some(&["BBBB", "CCCC", "DDDD"]));
        check(signer(json!(null)), None);
        check(signer(json!({ "matchLabels": { "ring": "two" } })), Some(&["CCCC", "DDDD"]));
        check(signer(json!({ "matchLabels": { "ring": "three" } })), None);
        let expression = |operator: &str, values: Value| {
            signer(json!({ "matchExpressions": [{ "key": "ring", "operator": operator, "values": values }] }))
        };
        check(expression("In", json!(["one", "x"])), Some(&["BBBB", "CCCC"]));
        check(expression("NotIn", json!(["one"])), Some(&["CCCC", "DDDD"]));
        check(expression("DoesNotExist", json!(null)), None);
        check(json!({ "signerName": "", "labelSelector": {} }), None);
    }

    #[test]
    fn lines_are_as_long_as_those_of_pem() {
        let long = "A".repeat(130);
        let lines: Vec<usize> = pem(&long).lines().map(str::len).collect();
        assert_eq!(lines, [BEGIN.len(), 64, 64, 2, END.len()]);
    }
}
