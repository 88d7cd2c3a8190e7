//! Prints a line a second for ever: the text of `MESSAGE`, or `tick`, and a number that counts up from 1.

use std::env;
use std::thread;
use std::time::Duration;

fn main() {
    let message = env::var("MESSAGE").unwrap_or_else(|_| String::from("tick"));
    for number in 1_u64.. {
        println!("{message} {number}");
        thread::sleep(Duration::from_secs(1));
    }
}
