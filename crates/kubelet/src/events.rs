use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use coracle_lifecycle::Notice;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use crate::clock;
use crate::pods::{CallError, PodApi};

/// What waits to be written at most; more is dropped, as the kubelet does.
const QUEUE: usize = 1_000;
/// The time one Event takes: 50 a second.
const INTERVAL: Duration = Duration::from_millis(20);
/// How many Events may come at once.
const BURST: u32 = 100;
/// How many Events are remembered, to be counted up when they happen again.
const REMEMBERED: usize = 4_096;

/// Takes what people are told of the node and its pods, and never makes a caller wait.
#[derive(Clone)]
pub(crate) struct Recorder {
    queue: mpsc::Sender<Event>,
    node: String,
}

impl Recorder {
    /// A recorder and the queue that [`record`] writes from.
    pub(crate) fn new(node: &str) -> (Self, mpsc::Receiver<Event>) {
        let (queue, events) = mpsc::channel(QUEUE);
        (Self { queue, node: node.to_owned() }, events)
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
            field_path: notice.container.map(|container| format!("spec.containers{{{container}}}")),
        };
        self.record(object, notice.is_warning, notice.reason, notice.message);
    }

    /// Tells people that the agent starts.
    pub(crate) fn node_starting(&self) {
        self.node("Starting", "Starting kubelet.".to_owned());
    }

    /// Tells people that the node changed, in the kubelet's words for it.
    pub(crate) fn node_changed(&self, reason: &str) {
        self.node(reason, format!("Node {} status is now: {reason}", self.node));
    }

    fn node(&self, reason: &str, message: String) {
        // As the kubelet has it: the UID of a Node in its Events is its name.
        let object = ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(self.node.clone()),
            uid: Some(self.node.clone()),
            ..ObjectReference::default()
        };
        self.record(object, false, reason.to_owned(), message);
    }

    fn record(&self, object: ObjectReference, is_warning: bool, reason: String, message: String) {
        if self.queue.try_send(self.event(object, is_warning, reason, message)).is_err() {
            debug!("an Event was dropped: too many wait to be written");
        }
    }

    fn event(&self, object: ObjectReference, is_warning: bool, reason: String, message: String) -> Event {
        let now = clock::now();
        let name = object.name.as_deref().unwrap_or_default();
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{name}.{:x}", now.as_nanosecond())),
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

/// Writes what is in the queue until all recorders are gone, at most 50 a second in the long run. An Event that
/// happened before is counted up.
pub(crate) async fn record(api: PodApi, mut events: mpsc::Receiver<Event>) {
    let mut pace = Pace::new(Instant::now());
    let mut series = Series::default();
    while let Some(event) = events.recv().await {
        sleep_until(pace.next(Instant::now())).await;
        if let Err(error) = write(&api, &mut series, &event).await {
            debug!(%error, "an Event could not be written");
        }
    }
}

/// Counts up an Event that was written before, or writes it; the API server keeps Events for an hour only.
async fn write(api: &PodApi, series: &mut Series, event: &Event) -> Result<(), CallError> {
    if let Some((name, count)) = series.again(event) {
        let namespace = event.metadata.namespace.as_deref().unwrap_or_default();
        match api.count_event(namespace, name, count, event.last_timestamp.as_ref()).await {
            Err(error) if error.is_not_found() => {}
            counted => return counted,
        }
    }
    api.create_event(event).await.inspect(|()| series.remember(event))
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

/// The Events that were written: by a hash of what makes two of them one that happened twice, its name and count.
#[derive(Default)]
struct Series {
    hasher: RandomState,
    written: HashMap<u64, (String, i32)>,
}

impl Series {
    fn key(&self, event: &Event) -> u64 {
        let object = &event.involved_object;
        self.hasher.hash_one((&object.uid, &object.field_path, &event.reason, &event.message))
    }

    /// The name of the Event as it was written before, and how often it has happened now; `None` when it is new.
    fn again(&mut self, event: &Event) -> Option<(&str, i32)> {
        let key = self.key(event);
        let (name, count) = self.written.get_mut(&key)?;
        *count = count.saturating_add(1);
        Some((name, *count))
    }

    fn remember(&mut self, event: &Event) {
        if self.written.len() >= REMEMBERED {
            self.written.clear();
        }
        let key = self.key(event);
        self.written.insert(key, (event.metadata.name.clone().unwrap_or_default(), 1));
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

    #[test]
    fn what_happens_again_is_counted_up() {
        let (recorder, mut queue) = Recorder::new("n");
        let mut event = |message: &str| {
            let (reason, container) = ("BackOff".to_owned(), Some("c".to_owned()));
            let notice = Notice { is_warning: true, reason, message: message.to_owned(), container };
            recorder.pod(&Pod::default(), notice);
            queue.try_recv().unwrap()
        };
        let mut series = Series::default();
        let first = event("a");
        assert_eq!(series.again(&first), None);
        series.remember(&first);
        assert_eq!(series.again(&event("a")), first.metadata.name.as_deref().map(|name| (name, 2)));
        assert_eq!(series.again(&event("b")), None);
        assert_eq!(first.involved_object.field_path.as_deref(), Some("spec.containers{c}"));
    }
}
