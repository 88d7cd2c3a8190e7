//! The manifests of `demos/`.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use coracle_testing::workspace;

use crate::progress::say;
use crate::stage::{MANIFEST_REGISTRY, Stage, TAG};

/// All manifests, as one stream of YAML documents.
pub(super) struct Manifests(String);

impl Manifests {
    /// Leaves out those whose images were not built, and says so.
    pub(super) fn read(guests: &Path) -> anyhow::Result<Self> {
        let folder = workspace().join("demos");
        let mut paths = Vec::new();
        for demo in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
            let path = demo?.path().join("manifest.yaml");
            if path.is_file() {
                paths.push(path);
            }
        }
        ensure!(!paths.is_empty(), "there is no demos/*/manifest.yaml");
        paths.sort();
        let mut texts = Vec::new();
        for path in paths {
            let one = Self(fs::read_to_string(&path)?);
            match one.images().iter().find(|image| !guests.join(format!("{image}.wasm")).is_file()) {
                Some(image) => {
                    say(&format!("{} is left out: `cargo xtask guests` builds {image}", path.display()));
                }
                None => texts.push(one.0),
            }
        }
        Ok(Self(texts.join("\n---\n")))
    }

    /// The names of the images they use, each once: `hello` for `localhost:5000/hello:v1`.
    pub(super) fn images(&self) -> Vec<String> {
        let names = self.0.lines().filter_map(|line| {
            let reference = line.trim().trim_start_matches("- ").strip_prefix("image:")?;
            reference.trim().strip_prefix(MANIFEST_REGISTRY)?.strip_suffix(&format!(":{TAG}"))
        });
        names.map(str::to_owned).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Applies them with `kubectl`, images from the stage's registry, and returns what was made as `kind.group/name`.
    pub(super) async fn apply(&self, stage: &Stage) -> anyhow::Result<Vec<String>> {
        let manifests = self.0.replace(MANIFEST_REGISTRY, &format!("{}/", stage.registry.host()));
        let mut command = stage.cluster.kubectl_command();
        command.args(["apply", "-o", "name", "-f", "-"]);
        let applied = tokio::task::spawn_blocking(move || fed(command, &manifests)).await??;
        Ok(applied.lines().map(str::to_owned).collect())
    }
}

/// Runs the command with this input and returns its output.
fn fed(mut command: Command, input: &str) -> anyhow::Result<String> {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("starting kubectl")?;
    child.stdin.take().context("kubectl has no standard input")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "kubectl apply ended with {}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_named_once() {
        let manifests =
            "  - image: localhost:5000/b:v1\n    image: localhost:5000/a:v1\nimage: localhost:5000/b:v1";
        assert_eq!(Manifests(manifests.to_owned()).images(), ["a", "b"]);
    }
}
