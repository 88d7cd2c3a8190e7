use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Why the node ends a pod for good though nobody has deleted it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Eviction {
    /// `status.reason`: one word, such as `Evicted`.
    pub reason: String,
    /// `status.message`: the sentence for people.
    pub message: String,
    /// The message of the condition `DisruptionTarget`; `None` when the pod itself asked for this end.
    pub disruption: Option<String>,
    /// The grace at most; the pod's own when `None`.
    pub grace: Option<Duration>,
}

const DEADLINE: &str = "DeadlineExceeded";
const SHUTDOWN: &str = "Terminated";

impl Eviction {
    /// The pod's `activeDeadlineSeconds` are over.
    #[must_use]
    pub fn past_deadline() -> Self {
        Self {
            reason: DEADLINE.to_owned(),
            message: "Pod was active on the node longer than the specified deadline".to_owned(),
            disruption: None,
            grace: None,
        }
    }

    /// A critical pod takes its place.
    #[must_use]
    pub fn preempted() -> Self {
        Self {
            reason: "Preempting".to_owned(),
            message: "Preempted in order to admit critical pod".to_owned(),
            disruption: Some("Pod was preempted by Kubelet to accommodate a critical pod.".to_owned()),
            grace: None,
        }
    }

    /// The pod uses more than it may, or than the node can spare.
    #[must_use]
    pub fn by_usage(message: String, grace: Option<Duration>) -> Self {
        Self { reason: "Evicted".to_owned(), disruption: Some(message.clone()), message, grace }
    }

    /// The machine goes down.
    #[must_use]
    pub fn shutdown(grace: Duration) -> Self {
        let message = "Pod was terminated in response to imminent node shutdown.".to_owned();
        let (reason, disruption) = (SHUTDOWN.to_owned(), Some(message.clone()));
        Self { reason, message, disruption, grace: Some(grace) }
    }

    /// Whether people are told by an Event: of a machine that goes down the Node's own tells.
    pub(crate) fn is_told(&self) -> bool {
        self.reason != SHUTDOWN
    }

    /// Whether something is wrong, and not just over.
    pub(crate) fn is_warning(&self) -> bool {
        self.reason != DEADLINE
    }
}
