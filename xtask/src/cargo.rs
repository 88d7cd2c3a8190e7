//! Running cargo and other programs with their output left visible.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, ensure};
use coracle_testing::{target_dir, workspace};

/// Runs the cargo that runs this program, at the root of the workspace.
pub(crate) fn cargo<A: AsRef<OsStr>>(arguments: &[A]) -> anyhow::Result<()> {
    run(&mut command(arguments))
}

/// The same, to be given more.
pub(crate) fn command<A: AsRef<OsStr>>(arguments: &[A]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What cargo said of this program's own package would make build scripts that ask for it run again, and with them
    // everything that stands on their crates.
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_of_package(name)) {
        command.env_remove(name);
    }
    command.args(arguments);
    command
}

fn is_of_package(variable: &OsStr) -> bool {
    let name = variable.to_string_lossy();
    name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
}

/// Runs a command at the root of the workspace; fails when it does.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let line = shown(command);
    let status = command.current_dir(workspace()).status().with_context(|| format!("running {line}"))?;
    ensure!(status.success(), "`{line}` ended with {status}");
    Ok(())
}

/// Builds a program and says where it lies. Chosen as a program of the whole workspace, not by package: so its
/// dependencies have the features, and are the builds, that the tests have.
pub(crate) fn build_program(name: &str) -> anyhow::Result<PathBuf> {
    cargo(&["build", "--bin", name])?;
    Ok(target_dir().join("debug").join(name))
}

fn shown(command: &Command) -> String {
    let program = PathBuf::from(command.get_program());
    let name = program.file_name().unwrap_or(command.get_program()).to_string_lossy().into_owned();
    let arguments = command.get_args().map(|argument| argument.to_string_lossy().into_owned());
    std::iter::once(name).chain(arguments).collect::<Vec<_>>().join(" ")
}
