//! What a pod should do next, and how to say what it is doing: values, pure functions and the two ports of a
//! Kubernetes node.
//!
//! Nothing here does IO or reads a clock: time, results and wishes come in as values. The two ports, [`Provider`]
//! and [`Images`], are what a container runtime and an image store offer to the node.
//!
//! A pod goes round in a circle: [`plan()`] says what to begin, [`apply()`] folds in what happened, [`status()`] says what
//! the API server should show, [`notices`] what people should be told.

mod addresses;
mod affinity;
mod apparmor;
mod apply;
pub mod backoff;
mod checkpoint;
mod collection;
mod container;
pub mod downward;
mod end;
pub mod environment;
mod event;
mod eviction;
mod exec;
mod failure;
mod govern;
mod handler;
mod identity;
mod image;
pub mod naming;
mod notice;
mod objects;
mod observed;
mod plan;
mod preemption;
mod probe;
pub mod projection;
mod provider;
mod qos;
pub mod quantity;
mod reach;
pub mod reasons;
mod record;
mod registry;
mod resident;
pub mod resources;
mod restart;
mod status;
pub mod storage;
mod support;
mod sysctls;
mod user;
mod wish;

pub use addresses::AddressPool;
pub use apply::apply;
pub use checkpoint::{Checkpoint, ContainerCheckpoint, checkpoint, recover};
pub use collection::{Collection, CollectionRules, Fill, HeldImage, collect};
pub use container::{ContainerSpec, Dns, Limits, LogFile, Mount, Network, PodIdentity, Port, Protocol};
pub use event::{Action, Event, Plan, ProbeTrouble, PullTime};
pub use eviction::Eviction;
pub use exec::{ExecError, ExecRequest, Sink, Source, Streams};
pub use failure::{Face, Failure};
pub use govern::{NodeView, Verdict, govern};
pub use handler::{Endpoint, Handler, HttpGet, InvalidHandler};
pub use identity::{ContainerId, Digest, InvalidDigest, PodUid};
pub use image::{
    Credential, ImageConfig, ImageContent, ImageError, ImageFiles, ImageModule, Images, LocalImage,
    PulledImage,
};
pub use notice::{Notice, notices};
pub use objects::{ObjectNames, Objects};
pub use observed::{Admission, Deletion, Freshness, Host, Observed, Volumes};
pub use plan::plan;
pub use probe::{ProbeKind, Schedule, Tally};
pub use provider::{
    BoxFuture, Cause, Container, Exit, ImageKind, Known, NoNetwork, NodeNetwork, PrepareError, Provider,
    RuntimeInfo, StartError, Unsupported, Usage,
};
pub use reach::{Destination, LOOPBACK_PREFIX, PodReach, Reach};
pub use record::{ContainerRecord, ContainerState, Course, Ending, Hook, ImageState, RanImage, Why};
pub use registry::{RegistryKey, full_reference, repository_of};
pub use resident::{Resident, is_critical};
pub use resources::Amounts;
pub use restart::{RestartPolicy, Sequel};
pub use status::{Phase, is_final, status};
pub use sysctls::sysctl_files;
pub use user::{RootUser, ensure_non_root};
pub use wish::{Role, Wish};
