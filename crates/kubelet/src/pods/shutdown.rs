//! The end of the machine: its pods end by priority, those that the cluster needs to work last.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use coracle_lifecycle::{Event, Eviction, PodUid, Wish, is_critical};
use futures::future::join_all;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::directory::PodView;
use super::worker::Message;

/// From this priority on pods are what the cluster needs to work.
const CRITICAL: i32 = 2_000_000_000;

/// How a node is asked to end.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    /// The agent ends, and its pods come back with it.
    pub agent: CancellationToken,
    /// The machine goes down: its pods end for good, then the agent does.
    pub machine: CancellationToken,
}

/// How long pods have when the machine goes down, by their priority: the lowest end first.
///
/// <https://kubernetes.io/docs/concepts/cluster-administration/node-shutdown/#pod-priority-graceful-node-shutdown>
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShutdownGrace(BTreeMap<i32, Duration>);

impl ShutdownGrace {
    /// So long for all pods together, of which the last part is kept for critical ones.
    #[must_use]
    pub fn of(total: Duration, critical: Duration) -> Self {
        Self::by_priority([(0, total.saturating_sub(critical)), (CRITICAL, critical)])
    }

    /// So long for the pods of each priority and of those above it, up to the next one that is named. Those below the first
    /// one end with it.
    #[must_use]
    pub fn by_priority(graces: impl IntoIterator<Item = (i32, Duration)>) -> Self {
        Self(graces.into_iter().collect())
    }

    /// All of them together; zero for no difference between the end of the machine and that of the agent.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.0.values().fold(Duration::ZERO, |total, grace| total.saturating_add(*grace))
    }

    /// The priority that is named for pods of this one.
    fn named(&self, priority: i32) -> Option<i32> {
        let below = self.0.range(..=priority).next_back();
        below.or_else(|| self.0.first_key_value()).map(|(named, _)| *named)
    }
}

/// A pod that has to go.
pub(super) struct Leaving {
    worker: mpsc::UnboundedSender<Message>,
    status: watch::Receiver<Arc<PodStatus>>,
    priority: i32,
}

impl Leaving {
    /// `None` for a pod that has ended, or of which the API server knows nothing any more.
    pub(super) fn new(
        view: PodView,
        workers: &HashMap<PodUid, mpsc::UnboundedSender<Message>>,
    ) -> Option<Self> {
        let worker = workers.get(&view.pod.identity().uid)?.clone();
        let has_ended = has_ended(&view.status.borrow());
        (!has_ended).then(|| Self { worker, priority: priority(&view.pod), status: view.status })
    }
}

fn priority(pod: &Pod) -> i32 {
    let given = pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or_default();
    if is_critical(pod) { given.max(CRITICAL) } else { given }
}

fn has_ended(status: &PodStatus) -> bool {
    matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"))
}

/// Pods that end together, and how long they have.
pub(super) struct Group {
    grace: Duration,
    pods: Vec<Leaving>,
}

/// The pods of each priority that is named, the lowest first.
pub(super) fn groups(grace: &ShutdownGrace, leaving: Vec<Leaving>) -> Vec<Group> {
    let mut groups: BTreeMap<i32, Group> = grace
        .0
        .iter()
        .map(|(priority, grace)| (*priority, Group { grace: *grace, pods: Vec::new() }))
        .collect();
    for pod in leaving {
        if let Some(group) = grace.named(pod.priority).and_then(|named| groups.get_mut(&named)) {
            group.pods.push(pod);
        }
    }
    groups.into_values().collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_end_with_the_next_priority_below_theirs() {
        let seconds = Duration::from_secs;
        let grace =
            ShutdownGrace::by_priority([(1_000, seconds(20)), (0, seconds(30)), (CRITICAL, seconds(10))]);
        let check =
            |priority: i32, expected: i32| assert_eq!(grace.named(priority), Some(expected), "{priority}");
        check(i32::MIN, 0);
        check(-1, 0);
        check(0, 0);
        check(999, 0);
        check(1_000, 1_000);
        check(CRITICAL - 1, 1_000);
        check(CRITICAL, CRITICAL);
        check(i32::MAX, CRITICAL);
        assert_eq!(grace.total(), seconds(60));
        assert_eq!(ShutdownGrace::default().named(0), None);
        assert_eq!(ShutdownGrace::of(seconds(30), seconds(10)).total(), seconds(30));
    }
}
