//! What probes and hooks do: commands, requests and connections.

mod command;
mod connection;
mod grpc;
mod health;
mod http;
mod request;
#[cfg(test)]
mod tests;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use coracle_lifecycle::{Container, Endpoint, ExecError, Handler, HttpGet, InvalidHandler};
use thiserror::Error;
use tokio::time::{Instant, sleep};
use tokio_rustls::TlsConnector;

use http::Client;
use request::{Get, GetError};

/// A container that probes and hooks are of; `None` when it is no longer there.
pub(super) type Handle = Option<Arc<dyn Container>>;

/// What one try of a probe came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Good,
    /// Good, but there is something to say.
    Warned(String),
    Bad(String),
    /// It could not be tried, which says nothing of the container.
    Impossible(String),
}

/// A probe, made ready to be tried again and again.
pub(super) enum Trial {
    Exec(Vec<String>),
    Http(Result<Box<Get>, GetError>),
    Tcp(Endpoint),
    Grpc { endpoint: Endpoint, service: String },
    Impossible(InvalidHandler),
}

impl Trial {
    /// Whether a server is asked, and nothing is run.
    pub(super) fn is_by_network(&self) -> bool {
        matches!(self, Self::Http(_) | Self::Tcp(_) | Self::Grpc { .. })
    }
}

impl From<Result<Handler, InvalidHandler>> for Trial {
    fn from(handler: Result<Handler, InvalidHandler>) -> Self {
        match handler {
            Ok(Handler::Exec(command)) => Self::Exec(command),
            Ok(Handler::Http(wanted)) => Self::Http(Get::new(&wanted, http::PROBE_AGENT).map(Box::new)),
            Ok(Handler::Tcp(endpoint)) => Self::Tcp(endpoint),
            Ok(Handler::Grpc { endpoint, service }) => Self::Grpc { endpoint, service },
            Ok(Handler::Sleep(_)) => Self::Impossible(InvalidHandler::Missing),
            Err(invalid) => Self::Impossible(invalid),
        }
    }
}

/// Why a hook did not do what it should.
#[derive(Debug, Error)]
pub(super) enum HookError {
    #[error(transparent)]
    Invalid(#[from] InvalidHandler),
    #[error(transparent)]
    Exec(#[from] ExecError),
    #[error("the command ended with exit code {code}: {output}")]
    Code { code: i32, output: String },
    #[error(transparent)]
    Http(#[from] GetError),
}

/// Tries probes and runs hooks.
pub(crate) struct Handlers {
    tls: TlsConnector,
    /// When the agent began.
    pub(super) began: Instant,
}

impl Handlers {
    pub(crate) fn new() -> Self {
        Self { tls: tls::unverified(), began: Instant::now() }
    }

    /// Tries a probe once; the try is given up after `limit`, and counts as a bad one then.
    pub(super) async fn probe(&self, trial: &Trial, container: &Handle, limit: Duration) -> Outcome {
        match trial {
            Trial::Exec(command) => command::probe(container, command, limit).await,
            Trial::Http(Ok(get)) => http::probe(&self.tls, get, limit).await,
            Trial::Http(Err(error)) => Outcome::Bad(error.to_string()),
            Trial::Tcp(endpoint) => probe_connection(endpoint, limit).await,
            Trial::Grpc { endpoint, service } => grpc::probe(endpoint, service, limit).await,
            Trial::Impossible(invalid) => Outcome::Impossible(invalid.to_string()),
        }
    }

    /// Runs a hook to its end. Gives the server that was asked by HTTP because it does not speak HTTPS, if it was so.
    pub(super) async fn hook(
        &self,
        handler: &Handler,
        container: &Handle,
    ) -> Result<Option<Endpoint>, HookError> {
        match handler {
            Handler::Exec(command) => command::hook(container, command).await.map(|()| None),
            Handler::Http(wanted) => self.hook_by_http(wanted).await,
            Handler::Sleep(time) => {
                sleep(*time).await;
                Ok(None)
            }
            Handler::Tcp(_) | Handler::Grpc { .. } => Err(InvalidHandler::Missing.into()),
        }
    }

    /// Any answer will do: <https://github.com/kubernetes/kubernetes/blob/v1.36.0/pkg/kubelet/lifecycle/handlers.go>.
    async fn hook_by_http(&self, wanted: &HttpGet) -> Result<Option<Endpoint>, HookError> {
        let client = Client { tls: &self.tls, deadline: None };
        match client.get(&Get::new(wanted, http::HOOK_AGENT)?).await {
            Ok(_) => Ok(None),
            Err(GetError::NotTls(_)) => {
                let plain = wanted.without_tls();
                client.get(&Get::new(&plain, http::HOOK_AGENT)?).await?;
                Ok(Some(plain.endpoint))
            }
            Err(error) => Err(error.into()),
        }
    }
}

async fn probe_connection(endpoint: &Endpoint, limit: Duration) -> Outcome {
    match connection::connect(endpoint, Some(Instant::now() + limit)).await {
        Ok(_) => Outcome::Good,
        Err(error) => Outcome::Bad(error),
    }
}

/// A duration of whole seconds, as Go writes it.
fn go_seconds(duration: Duration) -> String {
    match (duration.as_secs() / 60, duration.as_secs() % 60) {
        (0, seconds) => format!("{seconds}s"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    }
}
