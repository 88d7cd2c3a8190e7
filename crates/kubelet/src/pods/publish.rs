use std::sync::Arc;
use std::time::Duration;

use coracle_lifecycle::PodIdentity;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{debug, warn};

use super::api::{PodApi, Written};

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
    /// A status that the API server is known to have.
    pub(super) fn of(status: Arc<PodStatus>) -> Self {
        Self { written: Written::Done, status, version: None }
    }

    /// Whether `pod` is known to be a later state of the object than the one acknowledged here.
    ///
    /// Versions of one resource can be compared as numbers: KEP-5504.
    pub(super) fn is_older_than(&self, pod: &Pod) -> bool {
        let version = pod.metadata.resource_version.as_deref().and_then(|version| version.parse().ok());
        matches!((self.version, version), (Some(ours), Some(theirs)) if ours < theirs)
    }
}

/// Writes the newest status until the API server has answered. A status is never lost, and never written after a newer
/// one.
pub(super) async fn publish(
    api: &PodApi,
    pod: &PodIdentity,
    statuses: watch::Receiver<Arc<PodStatus>>,
) -> Acknowledgement {
    let mut wait = FIRST_WAIT;
    loop {
        match api.write_status(pod, || statuses.borrow().clone()).await {
            Ok(answer) => return answer,
            Err(error) if wait == FIRST_WAIT => {
                warn!(pod = %pod.name, namespace = %pod.namespace, %error, "the API server did not take a status");
            }
            Err(error) => {
                debug!(pod = %pod.name, namespace = %pod.namespace, %error, "the API server did not take a status");
            }
        }
        sleep(jittered(wait, pod)).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

/// Up to half as long again, different for each pod, so that they do not come back all at once.
fn jittered(wait: Duration, pod: &PodIdentity) -> Duration {
    let seed =
        pod.uid.as_str().bytes().fold(0u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)));
    wait + wait * (seed % 1_000) / 2_000
}
