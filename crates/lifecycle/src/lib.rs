//! What a pod should do next, and how to say what it is doing: values, pure functions and the two ports of a
//! Kubernetes node.
//!
//! Nothing here does IO or reads a clock: time, results and wishes come in as values. The two ports, [`Provider`]
//! and [`Images`], are what a container runtime and an image store offer to the node.

mod container;
mod identity;
mod image;
mod provider;

pub use container::{
    ContainerSpec, Dns, Limits, LogFile, Mount, Network, PodIdentity, Port, Protocol,
};
pub use identity::{ContainerId, Digest, InvalidDigest, PodUid};
pub use image::{Credential, ImageError, ImageModule, Images, LocalImage};
pub use provider::{
    BoxFuture, Cause, Container, Exit, ImageKind, Known, PrepareError, Provider, RuntimeInfo, StartError,
    Unsupported, Usage,
};
