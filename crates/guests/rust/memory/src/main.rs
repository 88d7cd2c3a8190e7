//! Allocates and writes the number of MiB it is given, one at a time, printing `N MiB` after each, then `done`; ends
//! with exit code 3 when an allocation is refused, 2 without a usable argument.

use std::env;
use std::process;

const MIB: usize = 1024 * 1024;

fn main() {
    let Some(wanted) = env::args().nth(1).and_then(|argument| argument.parse::<usize>().ok()) else {
        eprintln!("usage: memory-rust MIB");
        process::exit(2);
    };
    let mut held = Vec::new();
    for count in 1..=wanted {
        let mut block = Vec::new();
        if block.try_reserve_exact(MIB).is_err() {
            eprintln!("refused after {} MiB", count - 1);
            process::exit(3);
        }
        // Not zero, so that the pages are really written.
        block.resize(MIB, 1_u8);
        held.push(block);
        println!("{count} MiB");
    }
    println!("done");
}
