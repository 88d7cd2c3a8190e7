//! Counts the primes below the number its argument gives (1,000,000 without one) and ends.

use std::env;
use std::process::ExitCode;

const MOST: usize = 100_000_000;

fn main() -> ExitCode {
    let limit = match env::args().nth(1).map(|argument| argument.parse()) {
        None => 1_000_000,
        Some(Ok(limit)) if limit <= MOST => limit,
        Some(_) => {
            eprintln!("usage: job-rust [LIMIT], a number up to {MOST}");
            return ExitCode::from(2);
        }
    };
    println!("{} primes below {limit}", primes_below(limit));
    ExitCode::SUCCESS
}

/// The sieve of Eratosthenes, one byte a number.
fn primes_below(limit: usize) -> usize {
    let mut composite = vec![false; limit];
    let mut count = 0;
    for number in 2..limit {
        if composite[number] {
            continue;
        }
        count += 1;
        for multiple in (number.saturating_mul(number)..limit).step_by(number) {
            composite[multiple] = true;
        }
    }
    count
}
