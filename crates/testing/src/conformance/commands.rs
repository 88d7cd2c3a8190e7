//! Commands beside a container's program.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use coracle_lifecycle::{Cause, Container, ExecError, ExecRequest, Streams};
use futures::AsyncWrite;
use tokio::time::timeout;

use super::{Bench, PATIENCE, Programs, exit_of, is_running};

/// Everything that is written to it, to be read once that is done.
#[derive(Clone, Default)]
struct Text(Arc<Mutex<Vec<u8>>>);

impl Text {
    fn read(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("nobody panicked")).into_owned()
    }
}

impl AsyncWrite for Text {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.lock().expect("nobody panicked").extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Runs a command and tells what it came to, and what it wrote to its outputs.
async fn exec(
    container: &dyn Container,
    words: &[&str],
    stdin: &'static str,
) -> (Result<i32, ExecError>, String, String) {
    let (stdout, stderr) = (Text::default(), Text::default());
    let streams = Streams {
        stdin: Some(Box::new(stdin.as_bytes())),
        stdout: Some(Box::new(stdout.clone())),
        stderr: Some(Box::new(stderr.clone())),
    };
    let command = words.iter().map(|word| (*word).to_owned()).collect();
    let ended = timeout(PATIENCE, container.exec(ExecRequest { command }, streams)).await;
    (ended.expect("the command ends"), stdout.read(), stderr.read())
}

pub(super) async fn check_commands(bench: &Bench<'_>, programs: &Programs) {
    let mut spec = bench.spec(&programs.tools, &["sleep"]);
    spec.command = vec!["program".to_owned()];
    let container = bench.start(spec).await;
    let ended = |code, stdout: &str| (Ok(code), stdout.to_owned(), String::new());
    assert_eq!(exec(&*container, &["program", "exit", "3"], "").await, ended(3, ""));
    assert_eq!(exec(&*container, &["program", "say", "hello"], "").await, ended(0, "hello\n"));
    assert_eq!(exec(&*container, &["program", "copy"], "to and fro").await, ended(0, "to and fro"));
    let (code, stdout, stderr) = exec(&*container, &["/bin/no-such-program"], "").await;
    assert_eq!((code, stdout.as_str()), (Ok(127), ""));
    assert!(stderr.contains("executable file not found"), "{stderr}");
    let request = || ExecRequest { command: vec!["program".to_owned(), "sleep".to_owned()] };
    let given_up = timeout(Duration::from_millis(50), container.exec(request(), Streams::default())).await;
    assert!(given_up.is_err());
    assert!(is_running(&*container), "no command ends its container");
    let outlived = futures::future::join(container.exec(request(), Streams::default()), async {
        container.stop(Duration::ZERO);
        exit_of(&*container).await
    });
    let (command, exit) = timeout(PATIENCE, outlived).await.expect("a command ends with its container");
    assert_eq!((command, exit.cause), (Err(ExecError::NotRunning), Cause::Killed));
    assert_eq!(exec(&*container, &["program", "exit", "0"], "").await.0, Err(ExecError::NotRunning));
}
