//! A Kubernetes node for WebAssembly.

fn main() {}
