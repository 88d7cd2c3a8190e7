//! The end of the machine: its pods end by priority, those that the cluster needs to work last.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use coracle_lifecycle::{Event, Eviction, PodUid, Wish, is_critical};
use futures::future::join_all;
use k8s_openapi::api::core::v1::PodStatus;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::directory::PodView;
use super::worker::Message;

/// How a node is asked to end.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    /// The agent ends, and its pods come back with it.
    pub agent: CancellationToken,
    /// The machine goes down: its pods end for good, then the agent does.
    pub machine: CancellationToken,
}

/// How long pods have when the machine goes down.
///
/// <https://kubernetes.io/docs/concepts/cluster-administration/node-shutdown/#graceful-node-shutdown>
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShutdownGrace {
    /// All pods together; zero for no difference between the end of the machine and that of the agent.
    pub total: Duration,
    /// The part of it that is kept for critical pods.
    pub critical: Duration,
}

/// A pod that has to go.
pub(super) struct Leaving {
    worker: mpsc::UnboundedSender<Message>,
    status: watch::Receiver<Arc<PodStatus>>,
    is_critical: bool,
}

impl Leaving {
    /// `None` for a pod that has ended, or of which the API server knows nothing any more.
    pub(super) fn new(
        view: PodView,
        workers: &HashMap<PodUid, mpsc::UnboundedSender<Message>>,
    ) -> Option<Self> {
        let worker = workers.get(&view.pod.identity().uid)?.clone();
        let has_ended = has_ended(&view.status.borrow());
        (!has_ended).then(|| Self { worker, is_critical: is_critical(&view.pod), status: view.status })
    }
}

fn has_ended(status: &PodStatus) -> bool {
    matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"))
}

/// Pods that end together, and how long they have.
pub(super) struct Group {
    grace: Duration,
    pods: Vec<Leaving>,
}

/// Ordinary pods first, critical ones after them.
pub(super) fn groups(grace: ShutdownGrace, leaving: Vec<Leaving>) -> [Group; 2] {
    let (critical, ordinary) = leaving.into_iter().partition(|pod| pod.is_critical);
    let for_ordinary = grace.total.saturating_sub(grace.critical);
    [Group { grace: for_ordinary, pods: ordinary }, Group { grace: grace.critical, pods: critical }]
}

/// Ends one group after the other, and waits for none longer than its grace.
pub(super) async fn end_by_priority(groups: impl IntoIterator<Item = Group>) {
    for Group { grace, pods } in groups {
        for pod in &pods {
            let _ = pod.worker.send(Message::Event(Event::Evicted(Eviction::shutdown(grace))));
        }
        let ended = pods.into_iter().map(async |mut pod| {
            let _ = pod.status.wait_for(|status| has_ended(status)).await;
        });
        if timeout(grace, join_all(ended)).await.is_err() {
            warn!(?grace, "some pods did not end in the time they had");
        }
    }
}
