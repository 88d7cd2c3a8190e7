use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use coracle_lifecycle::reasons::Waiting;
use coracle_lifecycle::{
    Container, ContainerSpec, Event, Exit, ImageError, LocalImage, Mount, PrepareError, Role, RootUser,
    StartError, Wish, ensure_non_root,
};
use k8s_openapi::api::core::v1::Pod;
use thiserror::Error;
use tokio::sync::mpsc::UnboundedSender;

use super::filesystem::{Furnishing, FurnishingError, LastWords};
use super::spec::{ConfigError, Resolved};
use super::volumes::MountError;
use super::worker::Message;
use super::{Context, disk, spec, volumes};
use crate::clock;

/// One run of a container that is to be started.
pub(super) struct Run {
    pub(super) container: String,
    pub(super) attempt: u32,
    pub(super) image: LocalImage,
    /// The addresses that are the pod's own.
    pub(super) addresses: Vec<IpAddr>,
}

#[derive(Debug, Error)]
enum Failure {
    #[error("the pod has no container {0:?}")]
    Undeclared(String),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Volumes(#[from] MountError),
    #[error(transparent)]
    User(#[from] RootUser),
    #[error("cannot make {path}: {source}")]
    Directory { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Furnishing(#[from] FurnishingError),
    #[error("cannot lay out the image's files: {0}")]
    Image(#[from] ImageError),
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    #[error(transparent)]
    Start(#[from] StartError),
}

impl Failure {
    /// Whether there is a container, which cannot run for what is in its image: that is an end, in the words of container
    /// runtimes.
    fn is_of_container(&self) -> bool {
        match self {
            Self::Prepare(error) => error.is_of_program(),
            Self::Furnishing(error) => error.is_of_container(),
            Self::Start(error) => matches!(error, StartError::Command(_)),
            _ => false,
        }
    }

    fn reason(&self) -> Waiting {
        match self {
            Self::Prepare(error) => Waiting::from(error),
            Self::Start(error) => Waiting::from(error),
            // What is wrong with the pod as a whole, before there is a container.
            Self::Config(ConfigError::Name(_) | ConfigError::Handler(_)) | Self::Volumes(_) => {
                Waiting::ContainerCreating
            }
            Self::Config(_) | Self::User(_) => Waiting::CreateContainerConfigError,
            Self::Undeclared(_) | Self::Directory { .. } | Self::Furnishing(_) | Self::Image(_) => {
                Waiting::CreateContainerError
            }
        }
    }
}

/// Starts a run and reports it, then its end: `Started` and `Exited`, or `StartFailed`. A container that cannot run has ended.
pub(super) async fn start(context: &Context, pod: Arc<Pod>, run: Run, events: UnboundedSender<Message>) {
    let (container, attempt) = (run.container.clone(), run.attempt);
    // On the heap, so that the task that waits for the end does not hold what only the start needs.
    let started = Box::pin(try_start(context, &pod, run)).await;
    drop(pod);
    match started {
        Ok((handle, words)) => {
            let _ =
                events.send(Message::Handle { container: container.clone(), handle: Arc::clone(&handle) });
            let _ = events.send(Message::Event(Event::Started { container: container.clone() }));
            watch_end(container, attempt, handle, Some(words), events).await;
        }
        Err(failure) if failure.is_of_container() => {
            let exit = Exit::unstarted(failure.to_string(), clock::now());
            let _ = events.send(Message::Event(Event::Exited { container, attempt, exit }));
        }
        Err(failure) => {
            let (reason, message) = (failure.reason(), failure.to_string());
            let _ = events.send(Message::Event(Event::StartFailed { container, reason, message }));
        }
    }
}

/// Reports the end of a run, with its last words.
pub(super) async fn watch_end(
    container: String,
    attempt: u32,
    handle: Arc<dyn Container>,
    words: Option<LastWords>,
    events: UnboundedSender<Message>,
) {
    let exit = handle.exited().await;
    let exit = match words {
        Some(words) => words.add_to(exit).await,
        None => exit,
    };
    let _ = events.send(Message::Event(Event::Exited { container, attempt, exit }));
}

async fn try_start(
    context: &Context,
    pod: &Pod,
    run: Run,
) -> Result<(Arc<dyn Container>, LastWords), Failure> {
    let attempt = run.attempt;
    let declared = pod.container(&run.container).ok_or_else(|| Failure::Undeclared(run.container.clone()))?;
    ensure_non_root(pod, &declared, &run.image)?;
    if pod.roles().contains(&(Role::Ephemeral, &run.container)) {
        // It may mount what nobody has mounted so far.
        volumes::mount(context, pod).await?;
    }
    context.provider.prepare(&run.image).await?;
    let Resolved { mut spec, furnishing } = spec::resolve(context, pod, &declared, run).await?;
    make_directories(context, &spec, attempt).await?;
    context.images.root_file_system(&spec.image, &spec.root).await?;
    spec.mounts.extend(furnish(furnishing).await?);
    let mut words = LastWords::of(&spec, pod, &declared);
    let prepared = words.prepare(&mut spec).await;
    prepared.map_err(|source| Failure::Directory { path: spec.root.clone(), source })?;
    Ok((context.provider.start(spec).await?, words))
}

async fn furnish(furnishing: Furnishing) -> Result<Vec<Mount>, Failure> {
    let root = furnishing.root.clone();
    let put = disk::off_thread(move || Ok(furnishing.put())).await;
    Ok(put.map_err(|source| Failure::Directory { path: root, source })??)
}

/// Makes a fresh root directory, where nothing of an earlier run is left, and the log's directory, where only the log of
/// the run before is kept.
async fn make_directories(context: &Context, spec: &ContainerSpec, attempt: u32) -> Result<(), Failure> {
    let earlier = context.layout.containers(&spec.pod.uid).join(&spec.name);
    let (root, log) = (spec.root.clone(), spec.log.path.clone());
    let made = disk::off_thread(move || {
        disk::remove(&earlier)?;
        disk::private_directory(&root)?;
        let logs = log.parent().unwrap_or(&root);
        disk::private_directory(logs)?;
        disk::prune_logs(logs, attempt)
    });
    made.await.map_err(|source| Failure::Directory { path: spec.root.clone(), source })
}
