//! What must be on the machine before anything is built, each with the line that installs it.

use std::process::{Command, Stdio};

use anyhow::bail;
use coracle_testing::tools::check_go;

/// What builds and shows the demo.
pub(crate) fn for_demo() -> anyhow::Result<()> {
    report([git(), lacking("cargo", &["--version"], RUST), go()])
}

/// What the tests need beyond that.
pub(crate) fn for_tests() -> anyhow::Result<()> {
    report([git(), rustfmt(), clippy(), go()])
}

/// What `check` needs.
pub(crate) fn for_checks() -> anyhow::Result<()> {
    report([rustfmt(), clippy()])
}

const RUST: &str =
    "cargo is missing: install Rust with `curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh`";

fn git() -> Option<String> {
    lacking("git", &["--version"], "git is missing: install it with `sudo apt-get install git`")
}

fn rustfmt() -> Option<String> {
    let line = "rustfmt is missing: install it with `rustup component add rustfmt` (Debian: `sudo apt-get install rustfmt`)";
    lacking("cargo", &["fmt", "--version"], line)
}

fn clippy() -> Option<String> {
    let line = "clippy is missing: install it with `rustup component add clippy` (Debian: `sudo apt-get install rust-clippy`)";
    lacking("cargo", &["clippy", "--version"], line)
}

fn go() -> Option<String> {
    check_go().err().map(|error| error.to_string())
}

/// `None` when the command succeeds, else the advice.
fn lacking(program: &str, arguments: &[&str], advice: &str) -> Option<String> {
    let mut command = Command::new(program);
    let status = command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    (!status.is_ok_and(|status| status.success())).then(|| advice.to_owned())
}

fn report<const N: usize>(missing: [Option<String>; N]) -> anyhow::Result<()> {
    let missing: Vec<_> = missing.into_iter().flatten().collect();
    if missing.is_empty() {
        return Ok(());
    }
    bail!("{}", missing.join("\n"));
}
