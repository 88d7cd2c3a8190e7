use std::time::Duration;

use coracle_lifecycle::reasons::Waiting;
use coracle_lifecycle::{Credential, Event, ImageError, ImageKind, LocalImage, PullTime, PulledImage, Wish};
use k8s_openapi::api::core::v1::{Container, Pod};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{Instant, timeout};
use tracing::warn;

use super::Context;
use super::credentials::pull_secrets;
use super::disk::off_thread;
use super::volumes;
use super::worker::Message;

/// How long pull secrets are waited for.
const SECRETS_LIMIT: Duration = Duration::from_secs(10);

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
    let image = match bring(context, pod, &declared, events).await {
        Ok(image) => image,
        Err(Unavailable { reason, message }) => return failed(container, reason, message),
    };
    let kind = match context.provider.prepare(&image).await {
        Ok(kind) => kind,
        // What is no program shows when it is to be started.
        Err(error) if error.is_of_program() => ImageKind::default(),
        Err(error) => return failed(container, Waiting::from(&error), error.to_string()),
    };
    Event::Fetched { container: container.to_owned(), image: Box::new(image), kind }
}

/// Why an image is not here, in the kubelet's words.
pub(super) struct Unavailable {
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

/// Sees to it that a container's image is here, and so are those that it mounts.
async fn bring(
    context: &Context,
    pod: &Pod,
    declared: &Container,
    events: &UnboundedSender<Message>,
) -> Result<LocalImage, Unavailable> {
    let secrets = secrets(context, pod, events).await;
    let container = declared.name.clone();
    let reference = declared.image.as_deref().unwrap_or_default();
    let wanted = Wanted { reference, policy: declared.image_pull_policy.as_deref() };
    let begins = || {
        let _ = events.send(Message::Event(Event::PullBegan { container: container.clone() }));
    };
    let (image, pull) = find_or_pull(context, &wanted, &secrets, begins).await?;
    let here = Event::Pulled { container: container.clone(), size: image.size, pull };
    let _ = events.send(Message::Event(here));
    volumes::provide_images(context, pod, declared, &secrets).await?;
    Ok(image)
}

/// An image as a pod asks for it.
pub(super) struct Wanted<'a> {
    pub(super) reference: &'a str,
    pub(super) policy: Option<&'a str>,
}

/// Finds an image, or pulls it as the pod's policy says, with the credentials that the pod brings along. Whoever is asked
/// for it may use it.
pub(super) async fn find_or_pull(
    context: &Context,
    &Wanted { reference, policy }: &Wanted<'_>,
    secrets: &[Credential],
    begins: impl FnOnce() + Send,
) -> Result<(LocalImage, Option<PullTime>), Unavailable> {
    if policy != Some("Always")
        && let Some(image) = context.images.find(reference).await?
    {
        if allows(context, &image, secrets).await {
            return Ok((image, None));
        }
        if policy == Some("Never") {
            let message = format!(
                "Container image {reference:?} is present with pull policy of Never, but the pod does not have the \
                 credentials to access it"
            );
            return Err(Unavailable { reason: Waiting::ErrImageNeverPull, message });
        }
    } else if policy == Some("Never") {
        let message = format!("Container image {reference:?} is not present with pull policy of Never");
        return Err(Unavailable { reason: Waiting::ErrImageNeverPull, message });
    }
    begins();
    let (pulled, time) = pull(context, reference, secrets).await?;
    note(context, &pulled, secrets).await;
    Ok((pulled.image, Some(time)))
}

/// Whether a pod that brings these credentials along may use an image that is here.
async fn allows(context: &Context, image: &LocalImage, secrets: &[Credential]) -> bool {
    let (access, digest, secrets) = (context.access.clone(), image.digest.clone(), secrets.to_vec());
    off_thread(move || Ok(access.allows(&digest, &secrets))).await.unwrap_or(false)
}

/// Notes who may use an image that was pulled: a user that the pod did not bring along is the node's own.
async fn note(context: &Context, pulled: &PulledImage, secrets: &[Credential]) {
    let (access, digest) = (context.access.clone(), pulled.image.digest.clone());
    let user = pulled.user.clone().filter(|user| secrets.contains(user));
    if let Err(error) = off_thread(move || access.note(&digest, user.as_ref())).await {
        warn!(image = %pulled.image.digest, %error, "it cannot be noted who pulled an image");
    }
}

/// The credentials that the pod brings along. What is missing of them is told even when nothing is to be pulled; then nobody
/// waits long for an API server that does not answer.
async fn secrets(context: &Context, pod: &Pod, events: &UnboundedSender<Message>) -> Vec<Credential> {
    let Ok(secrets) = timeout(SECRETS_LIMIT, pull_secrets(context, pod)).await else { return Vec::new() };
    if !secrets.missing.is_empty() {
        let _ = events.send(Message::Event(Event::PullSecretsMissing { names: secrets.missing }));
    }
    secrets.credentials
}

async fn pull(
    context: &Context,
    reference: &str,
    secrets: &[Credential],
) -> Result<(PulledImage, PullTime), ImageError> {
    let asked = Instant::now();
    let _permit = context.pulls.admit().await;
    let mut credentials = secrets.to_vec();
    credentials.extend(context.pulls.credentials.for_image(reference).await);
    let began = Instant::now();
    let pulled = context.images.pull(reference, &credentials).await?;
    let pulling: Duration = began.elapsed();
    Ok((pulled, PullTime { pulling, waiting: asked.elapsed() }))
}
