//! Says hello, and shows the arguments and the one variable that its pod gave it.

use std::env;

fn main() {
    let name = env::var("NAME").unwrap_or_else(|_| String::from("world"));
    println!("Hello, {name}, from Rust in WebAssembly");
    for argument in env::args().skip(1) {
        println!("argument: {argument}");
    }
}
