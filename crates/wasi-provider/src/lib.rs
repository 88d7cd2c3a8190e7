//! Runs containers as WebAssembly under wasmtime.
