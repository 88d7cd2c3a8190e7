#![expect(clippy::needless_pass_by_value, reason = "what `json!` makes is passed on as it is")]

use serde_json::{Value, json};

use super::*;

fn labels() -> BTreeMap<String, String> {
    [("zone", "a"), ("size", "7"), ("name", "x")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

fn matched(spec: Value) -> bool {
    let mut spec = spec;
    spec["containers"] = json!([]);
    matches(&serde_json::from_value(json!({ "spec": spec })).unwrap(), "boat", &labels())
}

fn required(terms: Value) -> bool {
    matched(json!({"affinity": {"nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms},
    }}}))
}

fn expression(key: &str, operator: &str, values: &[&str]) -> bool {
    required(json!([{"matchExpressions": [{"key": key, "operator": operator, "values": values}]}]))
}

#[test]
fn selectors_name_labels_exactly() {
    assert!(matched(json!({})));
    assert!(matched(json!({"nodeSelector": {"zone": "a", "size": "7"}})));
    assert!(!matched(json!({"nodeSelector": {"zone": "a", "size": "8"}})));
    assert!(!matched(json!({"nodeSelector": {"absent": ""}})));
}

#[test]
fn operators() {
    let check = |key: &str, operator: &str, values: &[&str], expected: bool| {
        assert_eq!(expression(key, operator, values), expected, "{key} {operator} {values:?}");
    };
    check("zone", "In", &["b", "a"], true);
    check("zone", "In", &["b"], false);
    check("absent", "In", &["b"], false);
    check("zone", "NotIn", &["b"], true);
    check("zone", "NotIn", &["a"], false);
    check("absent", "NotIn", &["a"], true);
    check("zone", "Exists", &[], true);
    check("absent", "Exists", &[], false);
    check("zone", "DoesNotExist", &[], false);
    check("absent", "DoesNotExist", &[], true);
    check("size", "Gt", &["6"], true);
    check("size", "Gt", &["7"], false);
    check("size", "Lt", &["10"], true);
    check("size", "Lt", &["7"], false);
    check("zone", "Gt", &["6"], false);
    check("size", "Gt", &[], false);
    check("zone", "Near", &["a"], false);
}

#[test]
fn terms_are_alternatives_and_their_requirements_are_not() {
    let holds = json!({"key": "zone", "operator": "In", "values": ["a"]});
    let fails = json!({"key": "zone", "operator": "In", "values": ["b"]});
    let term = |expressions: &[&Value]| json!({"matchExpressions": expressions});
    assert!(required(json!([term(&[&fails]), term(&[&holds])])));
    assert!(!required(json!([term(&[&fails, &holds])])));
    assert!(!required(json!([{}])));
    assert!(!required(json!([])));
}

#[test]
fn a_field_is_the_nodes_name() {
    let name = |name: &str| {
        required(json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]}]))
    };
    assert!(name("boat"));
    assert!(!name("x"));
}
