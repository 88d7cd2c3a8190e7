//! The bare server that `cargo xtask bench` measures the node's against.

use std::process::ExitCode;

fn main() -> ExitCode {
    coracle_wasi_provider::yardstick_main(std::env::args_os().skip(1))
}
