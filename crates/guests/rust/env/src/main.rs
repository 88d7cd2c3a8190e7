//! Prints its arguments, one `arg N=VALUE` a line from 0, then its environment, one `env NAME=VALUE` a line in the
//! order of the names.

use std::collections::BTreeMap;
use std::env;

fn main() {
    for (index, argument) in env::args().enumerate() {
        println!("arg {index}={argument}");
    }
    for (name, value) in env::vars().collect::<BTreeMap<_, _>>() {
        println!("env {name}={value}");
    }
}
