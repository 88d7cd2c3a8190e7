//! `cargo xtask check`: format, lints, licences.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use coracle_testing::target_dir;

use crate::cargo::{cargo, run as run_command};
use crate::prerequisites;
use crate::progress::step;

/// Built when no `cargo deny` is on the PATH.
const CARGO_DENY: &str = "0.20.2";

pub(crate) fn run() -> anyhow::Result<()> {
    prerequisites::for_checks()?;
    format()?;
    licences()?;
    lints()
}

pub(crate) fn format() -> anyhow::Result<()> {
    step("format", || cargo(&["fmt", "--all", "--check"]))
}

pub(crate) fn lints() -> anyhow::Result<()> {
    step("clippy", || cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

/// Licences, banned crates and sources. Advisories need a database from the network: a step of their own.
pub(crate) fn licences() -> anyhow::Result<()> {
    let program = cargo_deny()?;
    step("licences, bans and sources", || {
        run_command(Command::new(program).args(["check", "licenses", "bans", "sources"]))
    })
}

/// `cargo-deny` from the PATH, else our own, which is built on first use.
fn cargo_deny() -> anyhow::Result<PathBuf> {
    if Command::new("cargo-deny").arg("--version").stdout(Stdio::null()).status().is_ok() {
        return Ok("cargo-deny".into());
    }
    let root = target_dir().join("tools").join(format!("cargo-deny-{CARGO_DENY}"));
    let program = root.join("bin/cargo-deny");
    if !program.is_file() {
        let root = root.display().to_string();
        let install = ["install", "--locked", "--version", CARGO_DENY, "--root", &root, "cargo-deny"];
        step("building cargo-deny (once, a few minutes)", || cargo(&install))?;
    }
    Ok(program)
}
