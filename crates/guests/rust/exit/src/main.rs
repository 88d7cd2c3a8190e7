//! Ends with the exit code its argument gives (0 to 255), after one line on standard output; 2 without a usable argument.

use std::env;
use std::process;

fn main() {
    let Some(code) = env::args().nth(1).and_then(|argument| argument.parse::<u8>().ok()) else {
        eprintln!("usage: exit-rust CODE, from 0 to 255");
        process::exit(2);
    };
    println!("ending with exit code {code}");
    process::exit(code.into());
}
