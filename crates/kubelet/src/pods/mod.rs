//! The pods of a node: the watch, one worker per pod, and what workers do.

mod api;
mod care;
mod certificates;
mod credentials;
mod directory;
mod disk;
mod dispatcher;
mod environment;
mod fetch;
mod filesystem;
mod handlers;
mod mounts;
mod network;
mod objects;
mod patch;
mod perform;
mod prober;
mod probing;
mod publish;
mod pulls;
mod runtime_classes;
mod services;
mod shutdown;
mod spec;
mod start;
mod startups;
mod supplies;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod tokens;
mod volumes;
mod worker;

use std::sync::Arc;

use coracle_lifecycle::{Host, Images, Provider};
use k8s_openapi::api::core::v1::Node;
use tokio::sync::watch;

use crate::Layout;
use crate::access::Access;
use crate::events::Recorder;

pub(crate) use api::{CallError, PodApi};
pub use directory::{PodDirectory, PodView};
pub(crate) use dispatcher::Dispatcher;
pub(crate) use filesystem::Naming;
pub(crate) use handlers::Handlers;
pub(crate) use prober::Prober;
pub use pulls::PullSettings;
pub(crate) use pulls::Pulls;
pub(crate) use runtime_classes::RuntimeClasses;
pub(crate) use services::Services;
pub use shutdown::{ShutdownGrace, Stop};
pub(crate) use supplies::Supplies;
pub(crate) use volumes::HostPaths;

/// What every worker needs to act.
pub(crate) struct Context {
    pub(crate) api: PodApi,
    pub(crate) provider: Arc<dyn Provider>,
    pub(crate) images: Arc<dyn Images>,
    pub(crate) layout: Layout,
    pub(crate) host: Arc<Host>,
    pub(crate) recorder: Recorder,
    pub(crate) directory: PodDirectory,
    pub(crate) pulls: Pulls,
    pub(crate) access: Access,
    /// The node's own object as last seen.
    pub(crate) node: watch::Receiver<Option<Arc<Node>>>,
    pub(crate) services: Services,
    pub(crate) runtime_classes: RuntimeClasses,
    pub(crate) supplies: Supplies,
    /// The paths of this machine that pods may ask for.
    pub(crate) host_paths: Arc<HostPaths>,
    pub(crate) naming: Naming,
    pub(crate) handlers: Handlers,
    pub(crate) prober: Prober,
    pub(crate) shutdown_grace: ShutdownGrace,
}
