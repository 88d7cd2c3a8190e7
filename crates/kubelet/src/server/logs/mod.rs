//! Container logs: from files in the CRI format to what `kubectl logs` shows.

mod files;
mod growth;
mod options;
mod reader;
mod run;
mod selection;

use std::io;

use bytes::Bytes;
use coracle_lifecycle::{PodIdentity, PodUid};
use futures::Stream;
use k8s_openapi::api::core::v1::Pod;
use thiserror::Error;

use crate::{Layout, PodDirectory};
use files::LogFiles;
pub(super) use options::{LogOptions, OptionsError};
use reader::Run;
pub(super) use run::RunError;

/// Finds the logs of this node's pods.
#[derive(Clone)]
pub struct Logs {
    pods: PodDirectory,
    layout: Layout,
}

/// Why a log cannot be shown. The text is the body of the answer.
#[derive(Debug, Error)]
pub(super) enum LogError {
    /// 404.
    #[error("pod {0:?} does not exist")]
    NoPod(String),
    /// As it says.
    #[error(transparent)]
    Run(#[from] RunError),
    /// 400: the files are gone or cannot be read.
    #[error("the log of container {0:?} cannot be read")]
    Unreadable(String, #[source] io::Error),
}

impl Logs {
    /// The logs of the pods in `pods`, where `layout` says they lie.
    #[must_use]
    pub fn new(pods: PodDirectory, layout: Layout) -> Self {
        Self { pods, layout }
    }

    /// The log of one container, as `options` ask for it.
    pub(super) async fn read(
        &self,
        namespace: &str,
        name: &str,
        container: &str,
        options: LogOptions,
    ) -> Result<impl Stream<Item = io::Result<Bytes>> + Send + use<>, LogError> {
        let view = self.pods.find(namespace, name).ok_or_else(|| LogError::NoPod(name.to_owned()))?;
        let id = run::choose(&view.pod, &view.status.borrow(), container, options.previous)?;
        let attempt = id.attempt().ok_or_else(|| {
            RunError::NoRun(format!("container {container:?} in pod {name:?} has no log of its own: {id}"))
        })?;
        let files = LogFiles::new(self.layout.log(&identity(&view.pod), container, attempt));
        let run = Run { container: container.to_owned(), id, status: view.status };
        let unreadable = |error| LogError::Unreadable(container.to_owned(), error);
        reader::read(files, run, options).await.map_err(unreadable)
    }
}

fn identity(pod: &Pod) -> PodIdentity {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    PodIdentity {
        namespace: text(&pod.metadata.namespace),
        name: text(&pod.metadata.name),
        uid: PodUid::new(text(&pod.metadata.uid)),
    }
}
