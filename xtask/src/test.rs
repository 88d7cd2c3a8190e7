//! `cargo xtask test`: all that has to be right before a change is taken.

use std::time::Instant;

use coracle_testing::{tools, workspace};

use crate::cargo;
use crate::progress::{say, step};
use crate::{check, guests, prerequisites};

/// How many random lives each property is tried with, where the environment does not say.
const CASES: &str = "10000";

/// What fails soonest comes first. The tests come last: CI reads their closing lines.
pub(crate) fn run() -> anyhow::Result<()> {
    let started = Instant::now();
    prerequisites::for_tests()?;
    check::format()?;
    check::licences()?;
    step("control plane and registry", || Ok(tools::build(say)?))?;
    step("guest programs", || guests::build(workspace()))?;
    check::lints()?;
    step("tests and documentation tests", tests)?;
    say(&format!("everything is right after {} s", started.elapsed().as_secs()));
    Ok(())
}

fn tests() -> anyhow::Result<()> {
    let mut tests = cargo::command(&["test", "--workspace"]);
    if std::env::var_os("PROPTEST_CASES").is_none() {
        tests.env("PROPTEST_CASES", CASES);
    }
    cargo::run(&mut tests)
}
