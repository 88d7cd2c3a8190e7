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

const MODULES: &str = "wasm32-wasip1";

pub(super) const PLATFORMS: &[Platform] =
    &[Platform { triple: MODULES, suffix: "" }, Platform { triple: "wasm32-wasip2", suffix: "-p2" }];

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
    #[serde(default)]
    filenames: Vec<PathBuf>,
    target: Option<Target>,
}

/// What cargo makes of a package.
#[derive(Deserialize)]
struct Target {
    crate_types: Vec<String>,
}

impl Target {
    /// Whether it is a library for others than Rust: such a one has no entry point of a program and makes a component
    /// only.
    fn is_component(&self) -> bool {
        self.crate_types == ["cdylib"]
    }
}

/// The part of cargo's description of a workspace that names what it makes.
#[derive(Deserialize)]
struct Workspace {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    targets: Vec<Target>,
}

impl Message {
    /// The file that was built, and its name without what the platform adds.
    fn built(&self, platform: &Platform) -> Option<(&Path, OsString)> {
        if let Some(program) = &self.executable {
            return Some((program, file_name(program.file_stem()?, platform)));
        }
        let is_component = self.target.as_ref().is_some_and(Target::is_component);
        let library = self.filenames.iter().filter(|_| is_component);
        let library = library.into_iter().find(|file| file.extension() == Some(OsStr::new("wasm")))?;
        // Cargo names libraries as Rust's code does.
        let name = library.file_name()?.to_str()?.replace('_', "-");
        Some((library, name.into()))
    }
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
        if platform.triple == MODULES && has_components_only(source)? {
            return Ok(());
        }
        let output = self.cargo(platform, source).output().context("cannot start cargo")?;
        if !output.status.success() {
            bail!("cargo build in {} ended with {}", source.display(), output.status);
        }
        for line in output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let message: Message = serde_json::from_slice(line).context("cargo's message is not JSON")?;
            if let Some((built, name)) = message.built(platform) {
                install(&fs::read(built)?, &dir.join(name))?;
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
            // Bindings ask for a newer compiler than they need.
            cargo.arg("--ignore-rust-version").env("RUSTC", folder.join("rustc"));
        }
        cargo.current_dir(source).stdin(Stdio::null()).stderr(Stdio::inherit());
        cargo
    }

    fn flags(&self, platform: &Platform) -> Vec<OsString> {
        let Some(folder) = &self.unpacked else { return Vec::new() };
        let module_linker = folder.join("wasm-ld");
        if platform.triple == MODULES {
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

/// Whether nothing in this package or workspace is a program with an entry point of its own.
fn has_components_only(source: &Path) -> anyhow::Result<bool> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["metadata", "--no-deps", "--format-version=1", "--locked"]).current_dir(source);
    let output =
        cargo.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    if !output.status.success() {
        bail!("cargo metadata in {} ended with {}", source.display(), output.status);
    }
    let workspace: Workspace =
        serde_json::from_slice(&output.stdout).context("cargo's description is not JSON")?;
    Ok(workspace.packages.iter().flat_map(|package| &package.targets).all(Target::is_component))
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
        .arg("rust")
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
    fn what_was_built_is_named_after_its_package() {
        let built = |message: &str| {
            let message: Message = serde_json::from_str(message).unwrap();
            message.built(&PLATFORMS[1]).map(|(file, name)| (file.to_owned(), name))
        };
        let program = r#"{"executable": "x/loop-rust.wasm", "filenames": ["x/loop-rust.wasm"],
            "target": {"crate_types": ["bin"]}}"#;
        assert_eq!(built(program), Some(("x/loop-rust.wasm".into(), "loop-rust-p2.wasm".into())));
        let library = r#"{"executable": null, "filenames": ["x/http_rust.wasm"],
            "target": {"crate_types": ["cdylib"]}}"#;
        assert_eq!(built(library), Some(("x/http_rust.wasm".into(), "http-rust.wasm".into())));
        let dependency =
            r#"{"filenames": ["x/libwasi.rlib"], "target": {"crate_types": ["lib"]}, "executable": null}"#;
        assert_eq!(built(dependency), None);
        assert_eq!(built(r#"{"reason": "build-finished"}"#), None);
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
