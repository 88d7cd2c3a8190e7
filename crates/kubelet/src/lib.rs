//! A Kubernetes node agent for any container runtime.
//!
//! It joins a cluster as a node, watches the pods bound to it, runs them through a [`coracle_lifecycle::Provider`] and
//! [`coracle_lifecycle::Images`], and serves the node's HTTP API. It knows Kubernetes and nothing of what a container is.

mod access;
mod answers;
mod clock;
mod collector;
mod credentials;
mod events;
mod kubelet;
mod layout;
mod memory;
mod pods;
mod tree;
mod waits;
mod watching;

pub mod node;
pub mod server;

pub use credentials::{NodeCredentials, PluginConfigError};
pub use kubelet::{Kubelet, KubeletError};
pub use layout::Layout;
pub use pods::{PodDirectory, PodView, PullSettings, ShutdownGrace, Stop};
