//! A real control plane, a real registry and a real node for tests, on loopback ports of this machine; and the suite that
//! any container runtime must pass (see [`conformance`]).
//!
//! The programs are built once by `cargo xtask tools` (see [`tools`]). Everything started here is gone when the
//! process that started it is gone, also after a panic or a SIGKILL (see [`reaper`]).

pub mod arbitrary;
mod certificates;
pub mod cluster;
pub mod conformance;
pub mod fixtures;
pub mod http;
mod kubeconfig;
pub mod node;
pub mod ports;
mod process;
pub mod reaper;
pub mod registry;
mod scratch;
pub mod tools;
pub mod wait;

pub use cluster::{Cluster, ClusterBuilder};
pub use node::{Node, NodeOptions};
pub use registry::{Artifact, Registry};
pub use tools::{target_dir, workspace};
