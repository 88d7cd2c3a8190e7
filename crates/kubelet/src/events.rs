mod correlator;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use coracle_lifecycle::{Notice, Wish};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::debug;

use correlator::{Correlator, Entry};

use crate::clock;
use crate::pods::{CallError, PodApi};

/// What waits to be written at most; more is dropped, as the kubelet does.
const QUEUE: usize = 1_000;
/// The time one Event takes: 50 a second.
const INTERVAL: Duration = Duration::from_millis(20);
/// How many Events may come at once.
const BURST: u32 = 100;

/// Takes what people are told of the node and its pods, and never makes a caller wait.
#[derive(Clone)]
pub(crate) struct Recorder {
    queue: mpsc::Sender<Event>,
    node: String,
    /// What the name of the latest Event ends with.
    latest: Arc<AtomicI64>,
}

impl Recorder {
    /// A recorder and the queue that [`record`] writes from.
    pub(crate) fn new(node: &str) -> (Self, mpsc::Receiver<Event>) {
        let (queue, events) = mpsc::channel(QUEUE);
        (Self { queue, node: node.to_owned(), latest: Arc::default() }, events)
    }

    /// Tells people something about a pod.
    pub(crate) fn pod(&self, pod: &Pod, notice: Notice) {
        let metadata = &pod.metadata;
        let object = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: metadata.name.clone(),
            namespace: metadata.namespace.clone(),
            uid: metadata.uid.clone(),
            resource_version: metadata.resource_version.clone(),
            field_path: notice.container.map(|container| pod.field_path(&container)),
        };
        self.record(object, notice.is_warning, notice.reason, notice.message);
    }

    /// Tells people that the agent starts.
    pub(crate) fn node_starting(&self) {
        self.node(false, "Starting", "Starting kubelet.".to_owned());
    }

    /// Tells people that the node changed, in the kubelet's words for it.
    pub(crate) fn node_changed(&self, reason: &str) {
        self.node(false, reason, format!("Node {} status is now: {reason}", self.node));
    }

    /// Tells people that images could not be collected as far as was needed.
    pub(crate) fn images_not_collected(&self, why: &str) {
        self.node(true, "ImageGCFailed", why.to_owned());
    }

    /// Tells people that the machine goes down.
    pub(crate) fn node_shutting_down(&self) {
        self.node(false, "Shutdown", "Shutdown manager detected shutdown event".to_owned());
    }

    fn node(&self, is_warning: bool, reason: &str, message: String) {
        // As the kubelet has it: the UID of a Node in its Events is its name.
        let object = ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(self.node.clone()),
            uid: Some(self.node.clone()),
            ..ObjectReference::default()
        };
        self.record(object, is_warning, reason.to_owned(), message);
    }

    fn record(&self, object: ObjectReference, is_warning: bool, reason: String, message: String) {
        if self.queue.try_send(self.event(object, is_warning, reason, message)).is_err() {
            debug!("an Event was dropped: too many wait to be written");
        }
    }

    /// A number for the time that is higher than all before it: by their names, Events are in the order in which they
    /// happened, however the clock jumps.
    fn stamp(&self, now: Timestamp) -> i64 {
        let now = i64::try_from(now.as_nanosecond()).unwrap_or(i64::MAX);
        let next = |latest: i64| Some(now.max(latest.saturating_add(1)));
        let before = self.latest.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        before.ok().and_then(next).unwrap_or(now)
    }

    fn event(&self, object: ObjectReference, is_warning: bool, reason: String, message: String) -> Event {
        let now = clock::now();
        let name = object.name.as_deref().unwrap_or_default();
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{name}.{:x}", self.stamp(now))),
                namespace: Some(object.namespace.clone().unwrap_or_else(|| "default".to_owned())),
                ..ObjectMeta::default()
            },
            involved_object: object,
            type_: Some(if is_warning { "Warning" } else { "Normal" }.to_owned()),
            reason: Some(reason),
            message: Some(shortened(message)),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            count: Some(1),
            source: Some(EventSource {
                component: Some("kubelet".to_owned()),
                host: Some(self.node.clone()),
            }),
            reporting_component: Some("kubelet".to_owned()),
            reporting_instance: Some(self.node.clone()),
            ..Event::default()
        }
    }
}

/// The API server refuses longer messages.
const LONGEST_MESSAGE: usize = 1_024;

fn shortened(mut message: String) -> String {
    message.truncate(message.floor_char_boundary(LONGEST_MESSAGE));
    message
}

/// Writes what is in the queue until all recorders are gone, at most 50 a second in the long run and in the order in
/// which it happened. What is much alike becomes one, and an Event that happened before is counted up.
pub(crate) async fn record(api: PodApi, mut events: mpsc::Receiver<Event>) {
    let mut pace = Pace::new(Instant::now());
    let mut correlator = Correlator::default();
    while let Some(event) = events.recv().await {
        if let Some(entry) = correlator.correlate(event, Instant::now()) {
            sleep_until(pace.next(Instant::now())).await;
            write(&api, &entry).await;
        }
    }
}

/// How often an Event is tried while the API server does not answer, and the wait between tries: as client-go does.
const TRIES: u32 = 12;
const WAIT: Duration = Duration::from_secs(10);

async fn write(api: &PodApi, entry: &Entry) {
    for _ in 1..TRIES {
        match try_write(api, entry).await {
            Ok(()) => return,
            Err(error) if error.is_answer() => return debug!(%error, "an Event was not taken"),
            Err(error) => debug!(%error, "an Event could not be written"),
        }
        sleep(WAIT).await;
    }
}

/// Counts up an Event that was written before, or writes it; the API server keeps Events for an hour only.
async fn try_write(api: &PodApi, Entry { event, is_known }: &Entry) -> Result<(), CallError> {
    if *is_known {
        match api.count_event(event).await {
            Err(error) if error.is_not_found() => {}
            counted => return counted,
        }
    }
    api.create_event(event).await
}

/// A leaky bucket: a burst passes at once, then one at a time.
struct Pace {
    /// When the bucket is empty again.
    empty_at: Instant,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self { empty_at: now }
    }

    /// When the next one may pass.
    fn next(&mut self, now: Instant) -> Instant {
        self.empty_at = self.empty_at.max(now) + INTERVAL;
        let fill = self.empty_at - now;
        now + fill.saturating_sub(INTERVAL * BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_at_once_and_then_fifty_a_second() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        let waits: Vec<Duration> = (0..103).map(|_| pace.next(now) - now).collect();
        assert!(waits[..100].iter().all(Duration::is_zero));
        assert_eq!(waits[100..], [INTERVAL, INTERVAL * 2, INTERVAL * 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn names_tell_the_order_though_time_stands_still() {
        let (recorder, mut queue) = Recorder::new("n");
        let names: Vec<String> = ["NodeReady", "NodeNotReady", "NodeReady"]
            .into_iter()
            .map(|reason| {
                recorder.node_changed(reason);
                queue.try_recv().unwrap().metadata.name.unwrap()
            })
            .collect();
        assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
    }
}
