//! Does one thing for each argument, in order, and prints `ARGUMENT: ` with what came of it, or the error, a line each:
//!
//! `read PATH`, `size PATH`, `list PATH`, `write PATH TEXT` (new or over what is there), `append PATH TEXT`,
//! `bytes PATH HEXADECIMAL` (what is no text), `fill PATH BYTES`, `nest PATH LEVELS` (directories in directories),
//! `say LINES`, `mkdir PATH`, `remove PATH`, `rename PATH PATH`, `hardlink PATH PATH`, `symlink TARGET PATH`,
//! `follow PATH TEXT` (prints what the file holds whenever that changes, until it holds this), `sleep SECONDS`,
//! `exit CODE`.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::process::exit;
use std::thread::sleep;
use std::time::Duration;

fn main() {
    for argument in std::env::args().skip(1) {
        match perform(&argument) {
            Ok(result) => println!("{argument}: {result}"),
            Err(error) => println!("{argument}: error: {error}"),
        }
    }
}

fn perform(argument: &str) -> io::Result<String> {
    let mut words = argument.splitn(3, ' ');
    let mut word = || words.next().unwrap_or_default();
    let (command, first, second) = (word(), word(), word());
    match command {
        "read" => fs::read(first).map(|content| String::from_utf8_lossy(&content).trim_end().to_owned()),
        "size" => fs::metadata(first).map(|metadata| metadata.len().to_string()),
        "list" => list(first),
        "write" => done(fs::write(first, second)),
        "append" => {
            let file = OpenOptions::new().append(true).open(first);
            done(file.and_then(|mut file| file.write_all(second.as_bytes())))
        }
        "fill" => done(fill(first, second.parse().map_err(io::Error::other)?)),
        "bytes" => done(bytes(second).and_then(|content| fs::write(first, content))),
        "nest" => done(nest(first, second.parse().map_err(io::Error::other)?)),
        "say" => {
            let lines: usize = first.parse().map_err(io::Error::other)?;
            (0..lines).for_each(|line| println!("line {line:0>1000}"));
            Ok("ok".to_owned())
        }
        "mkdir" => done(fs::create_dir(first)),
        "remove" => done(fs::remove_file(first)),
        "rename" => done(fs::rename(first, second)),
        "hardlink" => done(fs::hard_link(first, second)),
        "symlink" => done(symlink(first, second)),
        "follow" => done(follow(first, second)),
        "sleep" => {
            sleep(Duration::from_secs(first.parse().map_err(io::Error::other)?));
            Ok("ok".to_owned())
        }
        "exit" => exit(first.parse().map_err(io::Error::other)?),
        _ => Err(ErrorKind::Unsupported.into()),
    }
}

fn done(result: io::Result<()>) -> io::Result<String> {
    result.map(|()| "ok".to_owned())
}

fn list(path: &str) -> io::Result<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names.join(" "))
}

fn fill(path: &str, size: usize) -> io::Result<()> {
    let chunk = vec![b'x'; size.min(1 << 20)];
    let (mut file, mut left) = (File::create(path)?, size);
    while left > 0 {
        let next = left.min(chunk.len());
        file.write_all(&chunk[..next])?;
        left -= next;
    }
    Ok(())
}

fn bytes(digits: &str) -> io::Result<Vec<u8>> {
    let pairs = (0..digits.len()).step_by(2).map(|at| digits.get(at..at + 2).unwrap_or_default());
    pairs.map(|pair| u8::from_str_radix(pair, 16).map_err(io::Error::other)).collect()
}

/// No path that is named is long, however deep the directories are.
fn nest(path: &str, levels: usize) -> io::Result<()> {
    let (top, before) = (format!("{path}/nest"), format!("{path}/before"));
    fs::create_dir(&top)?;
    for _ in 0..levels {
        fs::rename(&top, &before)?;
        fs::create_dir(&top)?;
        fs::rename(&before, format!("{top}/d"))?;
    }
    Ok(())
}

fn follow(path: &str, until: &str) -> io::Result<()> {
    let mut before = None;
    loop {
        let now = fs::read_to_string(path).unwrap_or_else(|error| error.to_string());
        if before.as_ref() != Some(&now) {
            println!("{path} holds {now}");
        }
        if now == until {
            return Ok(());
        }
        before = Some(now);
        sleep(Duration::from_millis(50));
    }
}

/// The standard library makes no links on WASI.
fn symlink(target: &str, path: &str) -> io::Result<()> {
    unsafe extern "C" {
        #[link_name = "symlink"]
        fn make_symlink(target: *const std::ffi::c_char, path: *const std::ffi::c_char) -> i32;
    }
    let (target, path) = (CString::new(target)?, CString::new(path)?);
    // SAFETY: both are strings of C and live until the call is over.
    match unsafe { make_symlink(target.as_ptr(), path.as_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
