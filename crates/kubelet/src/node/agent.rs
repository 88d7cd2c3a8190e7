use std::sync::Arc;

use coracle_lifecycle::Images;
use futures::future::ready;
use futures::{StreamExt, pin_mut};
use k8s_openapi::api::core::v1::Node;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::watch_object;
use kube::{Api, Client, ResourceExt};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::complaint::Complaint;
use super::lease::LeaseKeeper;
use super::reporter::{ReadFacts, Readiness, Reporter};
use super::{Facts, NodeSettings};
use crate::answers::is_expired;
use crate::events::Recorder;

/// Keeps one node joined to its cluster: its Node object, its Lease, its Events.
pub(crate) struct NodeAgent {
    settings: Arc<NodeSettings>,
    client: Client,
    images: Arc<dyn Images>,
    read_facts: ReadFacts,
    recorder: Recorder,
}

impl NodeAgent {
    /// The agent of a node, which says nothing to the API server yet. `client` needs no rights but the node's own.
    pub(crate) fn new(
        settings: Arc<NodeSettings>,
        client: Client,
        images: Arc<dyn Images>,
        recorder: Recorder,
    ) -> Self {
        let root_dir = settings.root_dir.clone();
        let read_facts: ReadFacts = Arc::new(move || Facts::read(&root_dir));
        Self { settings, client, images, read_facts, recorder }
    }

    /// Registers the node and keeps it registered until `shutdown`; no failure ends it before.
    ///
    /// The node is Ready while the first of `readiness` is `None`, else not, for the reason that stands there. `node` gets the Node
    /// object as the API server has it, and `None` while it has none. At the end the Node stays as it is.
    pub(crate) async fn run(
        self,
        readiness: Readiness,
        node: watch::Sender<Option<Arc<Node>>>,
        shutdown: CancellationToken,
    ) {
        shutdown.run_until_cancelled(Box::pin(self.keep(readiness, node))).await;
    }

    async fn keep(self, readiness: Readiness, node: watch::Sender<Option<Arc<Node>>>) {
        let name = self.settings.name.clone();
        let nodes: Api<Node> = Api::all(self.client.clone());
        let mut tasks = JoinSet::new();
        self.recorder.node_starting();
        let mut reporter = Reporter::new(
            (Arc::clone(&self.settings), nodes.clone()),
            (self.images, self.read_facts),
            readiness,
            node.clone(),
            self.recorder,
        );
        reporter.register().await;
        tasks.spawn(LeaseKeeper::new(self.client, &name, node.subscribe()).run());
        tasks.spawn(follow(nodes, name, node));
        tasks.spawn(reporter.run());
        tasks.join_all().await;
    }
}

/// Tells `node` what becomes of the Node object.
async fn follow(nodes: Api<Node>, name: String, node: watch::Sender<Option<Arc<Node>>>) {
    let mut complaint = Complaint::about("the watch on the node");
    let is_news = |found: &Result<_, _>| ready(!found.as_ref().is_err_and(is_expired));
    let found = watch_object(nodes, &name).filter(is_news).default_backoff();
    pin_mut!(found);
    while let Some(found) = found.next().await {
        match found {
            Ok(found) => {
                complaint.worked();
                node.send_if_modified(|known| replace(known, found.map(Arc::new)));
            }
            Err(error) => complaint.failed(&error),
        }
    }
}

/// Takes `found` for `known`, unless what is known was written later.
fn replace(known: &mut Option<Arc<Node>>, found: Option<Arc<Node>>) -> bool {
    let version = |node: &Node| node.resource_version().and_then(|version| version.parse::<u64>().ok());
    if let (Some(known), Some(found)) = (known.as_deref(), found.as_deref())
        && known.uid() == found.uid()
        && version(found) <= version(known)
        && version(known).is_some()
    {
        return false;
    }
    *known = found;
    true
}

#[cfg(test)]
#[path = "agent_tests.rs"]
mod tests;
