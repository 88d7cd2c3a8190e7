use futures_io::{AsyncRead, AsyncWrite};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What a command is fed from.
pub type Source = Box<dyn AsyncRead + Send + Unpin>;

/// Where what a command writes goes.
pub type Sink = Box<dyn AsyncWrite + Send + Unpin>;

/// A command to run beside a container's program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecRequest {
    /// The program and its arguments.
    pub command: Vec<String>,
}

/// The streams of a command. One that is not given is empty, or what is written to it is thrown away.
#[derive(Default)]
pub struct Streams {
    /// Its standard input.
    pub stdin: Option<Source>,
    /// Its standard output.
    pub stdout: Option<Sink>,
    /// Its standard error.
    pub stderr: Option<Sink>,
}

/// Why a command could not be run, or not to its end. Each message names the cause.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ExecError {
    /// The container does not run, or ended before the command did.
    #[error("container not running")]
    NotRunning,
    /// The container's program is of a kind that runs no commands.
    #[error("{0}")]
    Unsupported(String),
    /// The runtime has no room for one more instance now.
    #[error("{0}")]
    Exhausted(String),
    /// The runtime failed.
    #[error("{0}")]
    Failed(String),
}
