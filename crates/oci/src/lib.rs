//! Pulls, verifies and stores OCI images of WebAssembly: the [`Images`](coracle_lifecycle::Images) port of a node.
//!
//! A [`Store`] keeps content by digest in a directory and gets what is missing from registries. A registry is trusted
//! with nothing: all content is checked by digest and size while it streams to disk, all documents have limits, and no
//! words of a registry reach an error message.
//!
//! References and manifests are read with `oci-client`'s types.

mod authentication;
mod catalog;
mod credentials;
mod digest;
mod disk;
mod download;
mod flight;
mod image;
mod manifest;
mod name;
mod pull;
mod registry;
mod store;

pub use store::{OpenError, Settings, Store};
