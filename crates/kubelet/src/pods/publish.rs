use std::sync::Arc;
use std::time::Duration;

use coracle_lifecycle::PodIdentity;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{debug, warn};

use super::api::{PodApi, Written};
use super::patch;
use crate::waits::Waits;

/// The waits between tries while the API server does not take a status: 250 ms doubling to 16 s.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(16);

/// What the API server answered to a status.
#[derive(Clone, Debug)]
pub(crate) struct Acknowledgement {
    pub(super) written: Written,
    pub(super) status: Arc<PodStatus>,
    /// The object's version that holds it; `None` when it is not known.
    pub(super) version: Option<u64>,
}

impl Acknowledgement {
    /// The status that `pod` shows.
    pub(super) fn of(pod: &Pod) -> Self {
        let status = Arc::new(pod.status.clone().unwrap_or_default());
        Self { written: Written::Done, status, version: version(&pod.metadata) }
    }

    /// Whether the API server is known to show `status` of `pod`, as last seen.
    ///
    /// Others may overwrite a status: the node lifecycle controller does when it has not heard of a node for long.
    pub(super) fn shows(&self, status: &PodStatus, pod: &Pod) -> bool {
        let is_overwritten =
            || self.is_older_than(pod) && patch::was_overwritten(&self.status, pod.status.as_ref());
        *self.status == *status && !is_overwritten()
    }

    /// Whether `pod` is known to be a later state of the object than the one acknowledged here.
    fn is_older_than(&self, pod: &Pod) -> bool {
        matches!((self.version, version(&pod.metadata)), (Some(ours), Some(theirs)) if ours < theirs)
    }
}

/// An object's version. Those of one resource can be compared as numbers: KEP-5504.
pub(super) fn version(metadata: &ObjectMeta) -> Option<u64> {
    metadata.resource_version.as_ref()?.parse().ok()
}

/// Writes the newest status until the API server has answered. A status is never lost, and never written after a newer
/// one.
pub(super) async fn publish(
    api: &PodApi,
    pod: &PodIdentity,
    statuses: watch::Receiver<Arc<PodStatus>>,
) -> Acknowledgement {
    let (mut waits, mut is_told) = (Waits::new(FIRST_WAIT, LONGEST_WAIT), false);
    loop {
        match api.write_status(pod, || statuses.borrow().clone()).await {
            Ok(answer) => return answer,
            Err(error) if !is_told => {
                warn!(pod = %pod.name, namespace = %pod.namespace, %error, "the API server did not take a status");
            }
            Err(error) => {
                debug!(pod = %pod.name, namespace = %pod.namespace, %error, "the API server did not take a status");
            }
        }
        is_told = true;
        sleep(jittered(waits.next(), pod)).await;
    }
}

/// Up to half as long again, different for each pod, so that they do not come back all at once.
fn jittered(wait: Duration, pod: &PodIdentity) -> Duration {
    let seed =
        pod.uid.as_str().bytes().fold(0u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)));
    wait + wait * (seed % 1_000) / 2_000
}
