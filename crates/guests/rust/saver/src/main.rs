//! Counts tenths of a second until its standard input ends: then it writes the count to the file that its first argument
//! names, says so, and ends.

use std::io::{self, Read as _};
use std::{env, fs};

fn main() -> io::Result<()> {
    let file = env::args().nth(1).ok_or_else(|| io::Error::other("saver FILE"))?;
    println!("counting");
    let mut count = 1;
    while !has_ended()? {
        count += 1;
    }
    fs::write(&file, format!("counted to {count}"))?;
    println!("saved {count}");
    Ok(())
}

/// Waits a tenth of a second, or less if the input has something to say; tells whether that was its end.
fn has_ended() -> io::Result<bool> {
    Ok(is_ready()? && io::stdin().read(&mut [0; 64])? == 0)
}

/// WASI 0.1 waits for several things at once with `poll_oneoff`, which Rust's library does not offer.
#[cfg(target_env = "p1")]
fn is_ready() -> io::Result<bool> {
    const INPUT: u64 = 0;
    const CLOCK: u64 = 1;
    const MONOTONIC: u64 = 1;
    const TENTH: u64 = 100_000_000;

    #[link(wasm_import_module = "wasi_snapshot_preview1")]
    unsafe extern "C" {
        fn poll_oneoff(asked: *const [u64; 6], told: *mut [u64; 4], count: usize, ready: *mut usize) -> i32;
    }
    // Each: what it is told by, its kind (0: a clock, 1: a descriptor that can be read), which one, and how long.
    let asked = [[CLOCK, 0, MONOTONIC, TENTH, 0, 0], [INPUT, 1, 0, 0, 0, 0]];
    let (mut told, mut ready) = ([[0; 4]; 2], 0);
    let error = unsafe { poll_oneoff(asked.as_ptr(), told.as_mut_ptr(), asked.len(), &mut ready) };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    Ok(told[..ready].iter().any(|event| event[0] == INPUT))
}

/// A component waits for its input alone.
#[cfg(not(target_env = "p1"))]
fn is_ready() -> io::Result<bool> {
    Ok(true)
}
