//! The crate decides and does nothing else: what it depends on shows that it cannot.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeSet;
use std::process::Command;

const ALLOWED: [&str; 9] = [
    "bytes",
    "coracle-lifecycle",
    "futures-core",
    "futures-io",
    "ipnet",
    "jiff",
    "k8s-openapi",
    "serde",
    "thiserror",
];

/// What does IO, or belongs to an adapter.
const FORBIDDEN: [&str; 9] =
    ["tokio", "async-std", "mio", "kube", "hyper", "reqwest", "wasmtime", "wasmtime-wasi", "oci-client"];

fn names(depth: &[&str]) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["tree", "--package", "coracle-lifecycle", "--edges", "normal", "--prefix", "none"])
        .args(["--offline", "--format", "{p}"])
        .args(depth)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter_map(|line| line.split(' ').next()).map(ToOwned::to_owned).collect()
}

#[test]
fn it_depends_on_nothing_but_what_it_may() {
    let expected: BTreeSet<String> = ALLOWED.map(ToOwned::to_owned).into();
    assert_eq!(names(&["--depth", "1"]), expected);
}

#[test]
fn nothing_it_depends_on_does_io() {
    let all = names(&[]);
    assert!(all.len() > ALLOWED.len(), "cargo tree lists nothing: {all:?}");
    let found: Vec<&str> = FORBIDDEN.into_iter().filter(|name| all.contains(*name)).collect();
    assert_eq!(found, Vec::<&str>::new());
}
