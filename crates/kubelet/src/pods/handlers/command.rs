//! Commands that run in a container for a probe or a hook.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use coracle_lifecycle::{ExecError, ExecRequest, Streams};
use futures::io::AsyncWrite;
use parking_lot::Mutex;
use tokio::time::timeout;

use super::{Handle, HookError, Outcome, go_seconds};

/// What is kept of a command's output, in bytes.
const MOST_OUTPUT: usize = 10 << 10;

/// What a command writes, to whichever stream: the beginning of it.
#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl Output {
    fn streams(&self) -> Streams {
        Streams { stdin: None, stdout: Some(Box::new(self.clone())), stderr: Some(Box::new(self.clone())) }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock()).into_owned()
    }
}

impl AsyncWrite for Output {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut kept = self.0.lock();
        let room = MOST_OUTPUT.saturating_sub(kept.len()).min(bytes.len());
        kept.extend_from_slice(&bytes[..room]);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Runs a command that says by its exit code how the container is. One that takes too long is ended.
pub(super) async fn probe(container: &Handle, command: &[String], limit: Duration) -> Outcome {
    let output = Output::default();
    match timeout(limit, run(container, command, &output)).await {
        Ok(Ok(0)) => Outcome::Good,
        Ok(Ok(_)) => Outcome::Bad(output.text()),
        Ok(Err(error)) => Outcome::Impossible(error.to_string()),
        Err(_) => {
            let (command, limit) = (command.join(" "), go_seconds(limit));
            Outcome::Bad(format!("command timed out: {command:?} timed out after {limit}"))
        }
    }
}

/// Runs a hook's command to its end.
pub(super) async fn hook(container: &Handle, command: &[String]) -> Result<(), HookError> {
    let output = Output::default();
    match run(container, command, &output).await? {
        0 => Ok(()),
        code => Err(HookError::Code { code, output: output.text() }),
    }
}

async fn run(container: &Handle, command: &[String], output: &Output) -> Result<i32, ExecError> {
    let container = container.as_ref().ok_or(ExecError::NotRunning)?;
    let request = ExecRequest { command: command.to_vec() };
    container.exec(request, output.streams()).await
}
