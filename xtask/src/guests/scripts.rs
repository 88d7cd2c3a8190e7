//! Demos in languages whose toolchains come from `PyPI`, npm and Debian.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use coracle_testing::workspace;

use super::{demos_with, install, module_name};
use crate::cargo;
use crate::progress::step;

/// A language whose programs are made from one file.
struct Language {
    /// The file that a demo in it has, and that says what to download.
    marker: &'static str,
    script: &'static str,
    /// Downloads what the marker names into a folder that is new.
    fetch: fn(marker: &Path, folder: &Path) -> anyhow::Result<()>,
    /// The command that makes the program, in the script's folder.
    program: fn(tools: &Path, script: &Path, wit: &Path, output: &Path) -> Command,
}

const LANGUAGES: [Language; 3] = [
    Language { marker: "requirements.txt", script: "app.py", fetch: fetch_python, program: python },
    Language { marker: "package.json", script: "app.js", fetch: fetch_javascript, program: javascript },
    Language { marker: "compile_flags.txt", script: "main.c", fetch: fetch_c, program: c },
];

/// Builds those that changed since the last time; the toolchains lie in `target`.
pub(super) fn build(root: &Path, target: &Path, dir: &Path) -> anyhow::Result<()> {
    for language in LANGUAGES {
        for program in demos_with(root, language.marker)? {
            step(&format!("guests: {}", program.display()), || {
                language.build(&root.join(&program), &root.join("demos/wit"), target, dir)
            })?;
        }
    }
    Ok(())
}

impl Language {
    fn build(&self, program: &Path, wit: &Path, target: &Path, dir: &Path) -> anyhow::Result<()> {
        let (script, marker) = (program.join(self.script), program.join(self.marker));
        let component = dir.join(module_name(program)?);
        if is_newer(&component, &[&script, &marker])? {
            return Ok(());
        }
        let tools = self.tools(&marker, target)?;
        let built = dir.join("build").join(component.file_name().context("a component has a name")?);
        cargo::run(&mut (self.program)(&tools, &script, wit, &built))
            .with_context(|| format!("building {}", program.display()))?;
        install(&fs::read(&built)?, &component)
    }

    /// Where the toolchain lies that the marker asks for; downloaded once, whole or not at all.
    fn tools(&self, marker: &Path, target: &Path) -> anyhow::Result<PathBuf> {
        let name = marker.parent().and_then(Path::file_name).context("a demo has a folder")?;
        let folder = target.join("toolchains").join(name);
        let asked = folder.join("fetched");
        if fs::read(&asked).is_ok_and(|asked| fs::read(marker).is_ok_and(|marker| marker == asked)) {
            return Ok(folder);
        }
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => fs::create_dir_all(&folder)?,
        }
        (self.fetch)(marker, &folder)?;
        fs::copy(marker, &asked)?;
        Ok(folder)
    }
}

/// Whether the file is there and newer than all of these.
fn is_newer(file: &Path, sources: &[&Path]) -> anyhow::Result<bool> {
    let Ok(built) = fs::metadata(file).and_then(|metadata| metadata.modified()) else { return Ok(false) };
    for source in sources {
        if fs::metadata(source)?.modified()? > built {
            return Ok(false);
        }
    }
    Ok(true)
}

fn fetch_python(marker: &Path, folder: &Path) -> anyhow::Result<()> {
    let advice = "python3 is missing: install it with `sudo apt-get install python3 python3-venv`";
    found(Command::new("python3").args(["-m", "venv"]).arg(folder), advice)?;
    cargo::run(Command::new(folder.join("bin/pip")).args(["install", "--quiet", "-r"]).arg(marker))
}

fn python(tools: &Path, script: &Path, wit: &Path, output: &Path) -> Command {
    let mut command = Command::new(tools.join("bin/componentize-py"));
    command.arg("-d").arg(wit).args(["-w", "wasi:http/proxy@0.2.10", "componentize", "-p"]);
    command.arg(script.parent().unwrap_or(script)).arg(script.file_stem().unwrap_or(OsStr::new("app")));
    command.arg("-o").arg(output);
    command
}

fn fetch_javascript(marker: &Path, folder: &Path) -> anyhow::Result<()> {
    let source = marker.parent().context("a demo has a folder")?;
    fs::copy(source.join("build.mjs"), folder.join("build.mjs"))?;
    // Else npm would take a folder above for the project's.
    fs::copy(marker, folder.join("package.json"))?;
    let advice = "npm is missing: install it with `sudo apt-get install npm`";
    let install = ["install", "--no-audit", "--no-fund", "--no-package-lock", "--prefix"];
    found(Command::new("npm").args(install).arg(folder), advice)
}

fn javascript(tools: &Path, script: &Path, wit: &Path, output: &Path) -> Command {
    let mut command = Command::new("node");
    command.arg(tools.join("build.mjs")).arg(script).arg(wit).arg(output);
    command
}

fn fetch_c(_: &Path, folder: &Path) -> anyhow::Result<()> {
    let script = workspace().join("crates/guests/toolchain.sh");
    cargo::run(Command::new("bash").arg(script).arg("c").arg(folder.join("c")))
}

fn c(tools: &Path, script: &Path, _: &Path, output: &Path) -> Command {
    let mut flags = OsString::from("@");
    flags.push(script.with_file_name("compile_flags.txt"));
    let mut command = Command::new(tools.join("c/clang"));
    command.arg(flags).arg("-o").arg(output).arg(script);
    command
}

/// Runs a command that this machine may not have.
fn found(command: &mut Command, advice: &str) -> anyhow::Result<()> {
    let program = command.get_program().to_owned();
    match Command::new(&program).arg("--version").output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => bail!("{advice}"),
        _ => cargo::run(command),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_older_than_its_source_is_built_again() {
        let folder = tempfile::tempdir().unwrap();
        let [source, built] = ["app.py", "app.wasm"].map(|name| folder.path().join(name));
        fs::write(&source, "").unwrap();
        assert!(!is_newer(&built, &[&source]).unwrap());
        fs::write(&built, "").unwrap();
        let file = fs::File::options().write(true).open(&source).unwrap();
        let before = fs::metadata(&built).unwrap().modified().unwrap() - std::time::Duration::from_secs(1);
        file.set_modified(before).unwrap();
        assert!(is_newer(&built, &[&source]).unwrap());
    }

    #[test]
    fn components_are_called_after_their_demo() {
        let command = python(Path::new("t"), Path::new("d/app.py"), Path::new("w"), Path::new("o.wasm"));
        let arguments: Vec<_> = command.get_args().collect();
        assert_eq!(arguments[arguments.len() - 4..], ["d", "app", "-o", "o.wasm"]);
    }
}
