//! Whole lives of pods as pairs of files: `tests/cases/<name>.input.yaml` holds a pod and what happens to it at what
//! second, `<name>.output.yaml` what the node then does, tells and shows. `UPDATE=1` writes the outputs anew.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

mod story;

use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn lives_of_pods() {
    check(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases"));
}

fn check(directory: &Path) {
    let inputs = inputs(directory);
    assert!(inputs.len() >= 20, "only {} cases in {}", inputs.len(), directory.display());
    let differing: Vec<String> = inputs.iter().filter_map(|input| difference(input)).collect();
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

fn inputs(directory: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(".input.yaml"))
        .collect();
    paths.sort();
    paths
}

fn difference(input: &Path) -> Option<String> {
    let output = PathBuf::from(input.to_string_lossy().replace(".input.yaml", ".output.yaml"));
    let actual = story::tell(&fs::read_to_string(input).unwrap(), &input.display().to_string());
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&output, &actual).unwrap();
    }
    let expected = fs::read_to_string(&output).unwrap_or_default();
    let line = expected.lines().zip(actual.lines()).position(|(expected, actual)| expected != actual);
    (expected != actual).then(|| {
        let line = line.unwrap_or_else(|| expected.lines().count().min(actual.lines().count()));
        let at = |text: &str| text.lines().nth(line).unwrap_or("<end>").to_owned();
        let (expected, actual) = (at(&expected), at(&actual));
        format!("{}:{}\n  expected: {expected}\n  actual:   {actual}", output.display(), line + 1)
    })
}
