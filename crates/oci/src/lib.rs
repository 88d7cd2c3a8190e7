//! Pulls, verifies and stores OCI images of WebAssembly: the [`Images`](coracle_lifecycle::Images) port of a node.
//!
//! A [`Store`] keeps content by digest in a directory and gets what is missing from registries. A registry is trusted
//! with nothing: all content is checked by digest and size while it streams to disk, all documents have limits, and no
//! words of a registry reach an error message.
//!
//! Images are bare programs or have files. The layers of the latter are unpacked once, under rules that let nothing out
//! of their directory, and shared by all containers in the best way that the machine allows.
//!
//! References and manifests are read with `oci-client`'s types.

mod archive;
mod authentication;
mod catalog;
mod clients;
mod config;
mod credentials;
mod digest;
mod disk;
mod download;
mod flight;
mod forest;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod hosts;
mod image;
mod key;
mod layer;
mod manifest;
mod name;
mod policy;
mod pull;
mod registry;
mod signatures;
mod spread;
mod store;
mod sum;
mod tree;
mod unpack;

pub use clients::Proxies;
pub use key::KeyError;
pub use policy::PolicyError;
pub use store::{OpenError, Settings, Store};
