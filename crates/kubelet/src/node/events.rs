use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Client;
use kube::api::{Api, PostParams};
use tokio::sync::mpsc;
use tracing::debug;

use super::call::call;
use super::patience::chain;
use crate::clock;

/// What may wait to be written: an API server that does not answer must not fill the memory.
const WAITING: usize = 64;

/// Takes Events about the Node; never waits, and drops what the API server is too slow for.
#[derive(Clone)]
pub(super) struct NodeEvents {
    node: String,
    queue: mpsc::Sender<Event>,
}

impl NodeEvents {
    /// The recorder for one node, and the queue that [`write`] empties.
    pub(super) fn new(node: &str) -> (Self, mpsc::Receiver<Event>) {
        let (queue, waiting) = mpsc::channel(WAITING);
        (Self { node: node.to_owned(), queue }, waiting)
    }

    /// Says that the agent starts.
    pub(super) fn starting(&self) {
        self.record("Starting", "Starting kubelet.".to_owned());
    }

    /// Says that the node changed, in the kubelet's words for it.
    pub(super) fn changed(&self, reason: &str) {
        self.record(reason, format!("Node {} status is now: {reason}", self.node));
    }

    fn record(&self, reason: &str, message: String) {
        if self.queue.try_send(event(&self.node, reason, message)).is_err() {
            debug!(reason, "an event about the node was dropped");
        }
    }
}

fn event(node: &str, reason: &str, message: String) -> Event {
    let now = clock::now();
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{node}.{:x}", now.as_nanosecond())),
            namespace: Some("default".to_owned()),
            ..ObjectMeta::default()
        },
        // As the kubelet has it: the UID of a Node in its Events is its name.
        involved_object: ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(node.to_owned()),
            uid: Some(node.to_owned()),
            ..ObjectReference::default()
        },
        source: Some(EventSource { component: Some("kubelet".to_owned()), host: Some(node.to_owned()) }),
        reporting_component: Some("kubelet".to_owned()),
        reporting_instance: Some(node.to_owned()),
        reason: Some(reason.to_owned()),
        message: Some(message),
        type_: Some("Normal".to_owned()),
        count: Some(1),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        ..Event::default()
    }
}

/// Writes what is recorded until nobody records any more. An Event that cannot be written is lost.
pub(super) async fn write(client: Client, mut waiting: mpsc::Receiver<Event>) {
    let events: Api<Event> = Api::namespaced(client, "default");
    while let Some(event) = waiting.recv().await {
        if let Err(error) = call(events.create(&PostParams::default(), &event)).await {
            debug!(cause = chain(&error), "an event about the node was lost");
        }
    }
}
