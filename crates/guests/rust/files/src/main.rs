//! For each path it is given: of a directory prints one `directory PATH NAME` a line, in the order of the names; of a
//! file `file PATH` and what it holds. Ends with exit code 1 when a path cannot be read.

use std::env;
use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut outcome = ExitCode::SUCCESS;
    for path in env::args().skip(1) {
        if let Err(error) = show(Path::new(&path)) {
            eprintln!("{path}: {error}");
            outcome = ExitCode::FAILURE;
        }
    }
    outcome
}

fn show(path: &Path) -> io::Result<()> {
    if fs::metadata(path)?.is_dir() { show_directory(path) } else { show_file(path) }
}

fn show_directory(path: &Path) -> io::Result<()> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        names.push(entry?.file_name());
    }
    names.sort();
    for name in names {
        println!("directory {} {}", path.display(), name.to_string_lossy());
    }
    Ok(())
}

fn show_file(path: &Path) -> io::Result<()> {
    let content = fs::read(path)?;
    println!("file {}", path.display());
    println!("{}", String::from_utf8_lossy(&content).trim_end_matches('\n'));
    Ok(())
}
