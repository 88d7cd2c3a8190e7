use std::time::Duration;

use coracle_lifecycle::reasons::Waiting;
use coracle_lifecycle::{Credential, Event, ImageError, LocalImage, PullTime, Wish};
use k8s_openapi::api::core::v1::{Container, Pod};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

use super::Context;
use super::credentials::pull_secrets;
use super::worker::Message;

/// Finds or pulls a container's image as its policy says, and prepares it: `Fetched` or `FetchFailed`.
pub(super) async fn fetch(
    context: &Context,
    pod: &Pod,
    container: &str,
    events: &UnboundedSender<Message>,
) -> Event {
    let Some(declared) = pod.container(container) else {
        return failed(
            container,
            Waiting::CreateContainerConfigError,
            "the pod does not declare it".to_owned(),
        );
    };
    let (image, pull) = match find_or_pull(context, pod, &declared, events).await {
        Ok(found) => found,
        Err(Unavailable { reason, message }) => return failed(container, reason, message),
    };
    let here = Event::Pulled { container: container.to_owned(), size: image.size, pull };
    let _ = events.send(Message::Event(here));
    match context.provider.prepare(&image).await {
        Ok(kind) => Event::Fetched { container: container.to_owned(), image: Box::new(image), kind },
        Err(error) => failed(container, Waiting::from(&error), error.to_string()),
    }
}

struct Unavailable {
    reason: Waiting,
    message: String,
}

impl From<ImageError> for Unavailable {
    fn from(error: ImageError) -> Self {
        Self { reason: Waiting::from(&error), message: error.to_string() }
    }
}

fn failed(container: &str, reason: Waiting, message: String) -> Event {
    Event::FetchFailed { container: container.to_owned(), reason, message }
}

async fn find_or_pull(
    context: &Context,
    pod: &Pod,
    declared: &Container,
    events: &UnboundedSender<Message>,
) -> Result<(LocalImage, Option<PullTime>), Unavailable> {
    let reference = declared.image.as_deref().unwrap_or_default();
    let policy = declared.image_pull_policy.as_deref();
    if policy != Some("Always")
        && let Some(image) = context.images.find(reference).await?
    {
        return Ok((image, None));
    }
    if policy == Some("Never") {
        let message = format!("Container image {reference:?} is not present with pull policy of Never");
        return Err(Unavailable { reason: Waiting::ErrImageNeverPull, message });
    }
    let secrets = pull_secrets(context, pod).await;
    if !secrets.missing.is_empty() {
        let _ = events.send(Message::Event(Event::PullSecretsMissing { names: secrets.missing }));
    }
    let _ = events.send(Message::Event(Event::PullBegan { container: declared.name.clone() }));
    let (image, time) = pull(context, reference, &secrets.credentials).await?;
    Ok((image, Some(time)))
}

async fn pull(
    context: &Context,
    reference: &str,
    credentials: &[Credential],
) -> Result<(LocalImage, PullTime), ImageError> {
    let asked = Instant::now();
    let _permit = context.pulls.acquire().await;
    let began = Instant::now();
    let image = context.images.pull(reference, credentials).await?;
    let pulling: Duration = began.elapsed();
    Ok((image, PullTime { pulling, waiting: asked.elapsed() }))
}
