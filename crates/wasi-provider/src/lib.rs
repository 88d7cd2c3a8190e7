//! Runs containers as WebAssembly under wasmtime: the node's runtime for wasip1 modules, `wasi:cli` components and
//! `wasi:http` servers.
//!
//! [`WasiProvider`] implements [`coracle_lifecycle::Provider`]. It knows no Kubernetes client: all it is given is
//! resolved and on this machine. Programs are compiled by a child process, which calls [`compile_main`].

mod accept;
mod beside;
mod cache;
mod clock;
mod command;
mod compile;
mod container;
mod end;
mod engine;
mod finder;
mod guest;
mod hearing;
mod http;
mod inspect;
mod lines;
mod log;
mod network;
mod outgoing;
mod output;
mod pipe;
mod program;
mod programs;
mod provider;
mod room;
mod sockets;
mod tasks;
mod threads;
mod ticker;
mod turns;
mod usage;
mod yardstick;

pub use compile::{CompileLimits, compile_main};
pub use provider::{Settings, SetupError, WasiProvider};
pub use room::raise_descriptor_limit;
#[doc(hidden)]
pub use yardstick::yardstick_main;
