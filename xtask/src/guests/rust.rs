//! Rust guests, built by the active toolchain when it has the WASI targets, else by one unpacked beside the system.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use serde::Deserialize;

use super::install;
use crate::progress::step;

/// A WASI target, and what the names of its programs end in.
#[derive(Debug)]
pub(super) struct Platform {
    pub(super) triple: &'static str,
    suffix: &'static str,
}

pub(super) const PLATFORMS: &[Platform] =
    &[Platform { triple: "wasm32-wasip1", suffix: "" }, Platform { triple: "wasm32-wasip2", suffix: "-p2" }];

/// Rises when `toolchain.sh` leaves something else, so that an older folder is not taken for the new one.
const UNPACKED: &str = "toolchains/rust-wasm-1";

/// A Rust compiler that has every target of [`PLATFORMS`].
#[derive(Debug)]
pub(super) struct Toolchain {
    target: PathBuf,
    /// The folder that `toolchain.sh` made; none for the active toolchain.
    unpacked: Option<PathBuf>,
}

/// The part of cargo's messages that names what was built.
#[derive(Deserialize)]
struct Message {
    executable: Option<PathBuf>,
}

impl Toolchain {
    /// The active toolchain when it has the targets, else an unpacked one, which is fetched the first time.
    pub(super) fn find(root: &Path, target: &Path) -> anyhow::Result<Self> {
        let target = target.to_owned();
        if PLATFORMS.iter().all(|platform| active_toolchain_has(platform.triple)) {
            return Ok(Self { target, unpacked: None });
        }
        let folder = target.join(UNPACKED);
        if !folder.exists() {
            step("guests: unpacking a Rust toolchain (once; the active one lacks a WASI target)", || {
                unpack(root, &folder)
            })?;
        }
        Ok(Self { target, unpacked: Some(folder) })
    }

    /// Builds the programs of one package or workspace and puts each into `dir`.
    pub(super) fn build(&self, platform: &Platform, source: &Path, dir: &Path) -> anyhow::Result<()> {
        let output = self.cargo(platform, source).output().context("cannot start cargo")?;
        if !output.status.success() {
            bail!("cargo build in {} ended with {}", source.display(), output.status);
        }
        for line in output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let message: Message = serde_json::from_slice(line).context("cargo's message is not JSON")?;
            if let Some(program) = message.executable {
                let name = program.file_stem().context("cargo named a program without a name")?;
                install(&fs::read(&program)?, &dir.join(file_name(name, platform)))?;
            }
        }
        Ok(())
    }

    fn cargo(&self, platform: &Platform, source: &Path) -> Command {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--quiet", "--locked", "--release", "--message-format=json-render-diagnostics"]);
        cargo.args(["--target", platform.triple, "--target-dir"]).arg(self.target.join("guests/build"));
        // Flags meant for the host, from the environment or a configuration file, must not reach a guest.
        cargo.env("CARGO_ENCODED_RUSTFLAGS", self.flags(platform).join(OsStr::new("\u{1f}")));
        if let Some(folder) = &self.unpacked {
            cargo.env("RUSTC", folder.join("rustc"));
        }
        cargo.current_dir(source).stdin(Stdio::null()).stderr(Stdio::inherit());
        cargo
    }

    fn flags(&self, platform: &Platform) -> Vec<OsString> {
        let Some(folder) = &self.unpacked else { return Vec::new() };
        let module_linker = folder.join("wasm-ld");
        if platform.triple == "wasm32-wasip1" {
            return vec![flag("-Clinker=", &module_linker)];
        }
        let component_linker = folder.join("bin/wasm-component-ld");
        vec![
            flag("-Clinker=", &component_linker),
            "-Clink-arg=--wasm-ld-path".into(),
            flag("-Clink-arg=", &module_linker),
        ]
    }
}

fn flag(name: &str, value: &Path) -> OsString {
    let mut flag = OsString::from(name);
    flag.push(value);
    flag
}

fn file_name(program: &OsStr, platform: &Platform) -> OsString {
    let mut name = program.to_owned();
    name.push(platform.suffix);
    name.push(".wasm");
    name
}

fn active_toolchain_has(triple: &str) -> bool {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).args(["--print", "target-libdir", "--target", triple]).output();
    output.is_ok_and(|output| {
        output.status.success() && Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir()
    })
}

fn unpack(root: &Path, folder: &Path) -> anyhow::Result<()> {
    let status = Command::new(root.join("crates/guests/toolchain.sh"))
        .arg(folder)
        .stdin(Stdio::null())
        .status()
        .context("cannot start crates/guests/toolchain.sh")?;
    if !status.success() {
        bail!("no Rust compiler for guests; run: rustup target add wasm32-wasip1 wasm32-wasip2");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_have_a_suffix() {
        let names: Vec<_> =
            PLATFORMS.iter().map(|platform| file_name(OsStr::new("loop-rust"), platform)).collect();
        assert_eq!(names, ["loop-rust.wasm", "loop-rust-p2.wasm"]);
    }

    #[test]
    fn only_an_unpacked_toolchain_needs_flags() {
        let active = Toolchain { target: "target".into(), unpacked: None };
        assert!(PLATFORMS.iter().all(|platform| active.flags(platform).is_empty()));
        let unpacked = Toolchain { target: "target".into(), unpacked: Some("tools".into()) };
        assert_eq!(unpacked.flags(&PLATFORMS[0]), ["-Clinker=tools/wasm-ld"]);
        assert_eq!(
            unpacked.flags(&PLATFORMS[1]),
            ["-Clinker=tools/bin/wasm-component-ld", "-Clink-arg=--wasm-ld-path", "-Clink-arg=tools/wasm-ld"]
        );
    }
}
