//! Pulls, verifies and stores OCI images of WebAssembly.
