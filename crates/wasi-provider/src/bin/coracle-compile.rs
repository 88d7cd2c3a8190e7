//! The compiler of a [`coracle_wasi_provider::WasiProvider`] as a program of its own, for nodes whose own program does
//! not offer it.

use std::process::ExitCode;

fn main() -> ExitCode {
    coracle_wasi_provider::compile_main(std::env::args_os().skip(2))
}
