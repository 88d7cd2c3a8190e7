//! Waiting for the Events that tell people what happens to a pod.

use anyhow::{Context, bail};
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Event;
use kube::runtime::{WatchStreamExt, watcher};

use crate::scene::{LIMIT, Scene};

impl Scene<'_> {
    /// Waits for an Event about a pod with this reason and a message that contains `part`.
    pub(crate) async fn event(&self, pod: &str, reason: &str, part: &str) -> anyhow::Result<Event> {
        let config = watcher::Config::default()
            .fields(&format!("involvedObject.kind=Pod,involvedObject.name={pod},reason={reason}"));
        let mut events = Box::pin(watcher(self.api::<Event>(), config).applied_objects());
        let mut seen = Vec::new();
        let found = tokio::time::timeout(LIMIT, async {
            while let Some(event) = events.try_next().await? {
                let message = event.message.as_deref().unwrap_or_default();
                if message.contains(part) {
                    return Ok(event);
                }
                seen.push(message.to_owned());
            }
            bail!("the watch of the events ended")
        });
        let found = found.await;
        found.with_context(|| format!("no event {reason} with {part:?} about {pod}; there were {seen:?}"))?
    }
}
