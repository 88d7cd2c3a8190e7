//! The programs the tests need, where they lie, and how they are built.
//!
//! Each program is a package of a Go module below `tools/`, whose `go.mod` is the one place that says its version.
//! They are built into `<target>/tools/<module>-<version>/`. Where the ecosystem's variable `KUBEBUILDER_ASSETS` is
//! set, a program that lies in that folder is taken from there; what that folder lacks (its archives carry
//! `kube-apiserver`, `etcd` and `kubectl` only) is taken from the built ones.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

mod build;

pub use build::{BuildError, build, check_go};

/// A program of the control plane or the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tool {
    /// `etcd`, the API server's store.
    Etcd,
    /// `kube-apiserver`.
    ApiServer,
    /// `kube-controller-manager`.
    ControllerManager,
    /// `kube-scheduler`.
    Scheduler,
    /// `kubectl`.
    Kubectl,
    /// `registry`, the reference implementation of the OCI distribution specification.
    Registry,
}

/// A Go module below `tools/` that only names programs to build.
#[derive(Clone, Copy)]
struct Module {
    folder: &'static str,
    requires: &'static str,
    go_mod: &'static str,
}

const KUBERNETES: Module = Module {
    folder: "kubernetes",
    requires: "k8s.io/kubernetes",
    go_mod: include_str!("../../../tools/kubernetes/go.mod"),
};
const ETCD: Module = Module {
    folder: "etcd",
    requires: "go.etcd.io/etcd/server/v3",
    go_mod: include_str!("../../../tools/etcd/go.mod"),
};
const DISTRIBUTION: Module = Module {
    folder: "registry",
    requires: "github.com/distribution/distribution/v3",
    go_mod: include_str!("../../../tools/registry/go.mod"),
};

impl Module {
    /// The version its `go.mod` requires, such as `v1.36.3`.
    fn version(self) -> &'static str {
        self.go_mod
            .lines()
            .map(|line| line.trim().trim_start_matches("require "))
            .find_map(|line| line.strip_prefix(self.requires)?.strip_prefix(' '))
            .and_then(|rest| rest.split_whitespace().next())
            .unwrap_or("unknown")
    }
}

impl Tool {
    /// All programs, in the order in which building them gets the most out of Go's cache.
    pub const ALL: [Self; 6] = [
        Self::Etcd,
        Self::ApiServer,
        Self::ControllerManager,
        Self::Scheduler,
        Self::Kubectl,
        Self::Registry,
    ];

    /// The name of the program's file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
            Self::Kubectl => "kubectl",
            Self::Registry => "registry",
        }
    }

    /// The version that is built, as its `go.mod` states it.
    #[must_use]
    pub fn version(self) -> &'static str {
        self.module().version()
    }

    /// Where the program lies once `cargo xtask tools` has built it.
    #[must_use]
    pub fn built_path(self) -> PathBuf {
        let module = self.module();
        let folder = format!("{}-{}", module.folder, module.version());
        target_dir().join("tools").join(folder).join(self.name())
    }

    fn module(self) -> Module {
        match self {
            Self::Etcd => ETCD,
            Self::Registry => DISTRIBUTION,
            Self::ApiServer | Self::ControllerManager | Self::Scheduler | Self::Kubectl => KUBERNETES,
        }
    }

    fn package(self) -> String {
        let module = self.module().requires;
        match self {
            Self::Etcd => module.to_owned(),
            _ => format!("{module}/cmd/{}", self.name()),
        }
    }
}

/// A program that is neither in `KUBEBUILDER_ASSETS` nor built.
#[derive(Debug, thiserror::Error)]
#[error(
    "not found: {}; build them with `cargo xtask tools` (about 6 minutes once), or let KUBEBUILDER_ASSETS name a folder that has them",
    .0.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
)]
pub struct MissingTools(Vec<PathBuf>);

/// Where every program lies; having this value means that each of them is a file.
#[derive(Clone, Debug)]
pub struct Tools(BTreeMap<Tool, PathBuf>);

impl Tools {
    /// Finds all programs.
    ///
    /// # Errors
    /// Names every program that is missing and the command that builds it.
    pub fn locate() -> Result<Self, MissingTools> {
        Self::locate_in(std::env::var_os("KUBEBUILDER_ASSETS"))
    }

    fn locate_in(assets: Option<OsString>) -> Result<Self, MissingTools> {
        let assets = assets.map(PathBuf::from);
        let path = |tool: Tool| {
            let supplied = assets.as_ref().map(|folder| folder.join(tool.name()));
            supplied.filter(|path| path.is_file()).unwrap_or_else(|| tool.built_path())
        };
        let found: BTreeMap<_, _> = Tool::ALL.into_iter().map(|tool| (tool, path(tool))).collect();
        let missing: Vec<_> = found.values().filter(|path| !path.is_file()).cloned().collect();
        if missing.is_empty() { Ok(Self(found)) } else { Err(MissingTools(missing)) }
    }

    /// The path of one program.
    #[must_use]
    pub fn path(&self, tool: Tool) -> &Path {
        &self.0[&tool]
    }
}

/// The root of this workspace.
#[must_use]
pub fn workspace() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.ancestors().nth(2).unwrap_or(manifest)
}

/// Where cargo and this crate put what they build: `CARGO_TARGET_DIR` when set, else `target` in the workspace.
#[must_use]
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| workspace().join("target"), |folder| workspace().join(PathBuf::from(folder)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_from_the_go_modules() {
        for tool in Tool::ALL {
            assert!(tool.version().starts_with('v'), "{}: {}", tool.name(), tool.version());
            assert!(tool.built_path().to_string_lossy().contains(tool.version()));
        }
    }

    #[test]
    fn a_folder_of_the_user_wins_for_what_it_has() {
        let assets = tempfile::tempdir().unwrap();
        std::fs::write(assets.path().join("etcd"), "").unwrap();
        let tools = Tools::locate_in(Some(assets.path().into())).unwrap();
        assert_eq!(tools.path(Tool::Etcd), assets.path().join("etcd"));
        assert_eq!(tools.path(Tool::Registry), Tool::Registry.built_path());
    }

    #[test]
    fn what_is_missing_is_named_with_the_command_that_builds_it() {
        let message = MissingTools(vec!["x/kube-apiserver".into()]).to_string();
        assert!(message.contains("x/kube-apiserver") && message.contains("cargo xtask tools"), "{message}");
    }
}
