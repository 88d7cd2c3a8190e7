//! One client's connection.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt as _};
use http::StatusCode;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::alarm::Alarm;
use super::patient::Patient;
use super::refusal::Refusal;
use super::service::Service;

/// The largest head of a request; hyper refuses a larger one with 431.
const MAX_HEAD: usize = 64 << 10;
/// What is kept of a body that the guest does not read yet.
const MAX_BUFFER: usize = 128 << 10;
/// How long a connection without a request stays open after the service was asked to end: what its client has sent by
/// then is still answered.
const LAST_CALL: Duration = Duration::from_millis(250);
/// How long, and how much, a client that was refused may go on sending before the connection is closed: closed at once,
/// it would never see the refusal.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: u64 = 4 << 20;

/// Answers a client's requests until it has no more, does something wrong, or the service ends.
pub(super) async fn serve(service: Arc<Service>, stream: TcpStream) {
    let alarm = Alarm::default();
    let answers = service_fn(|request| {
        let answering = Arc::clone(&service).answer(request, alarm.clone());
        Box::pin(async move { Ok::<_, Infallible>(answering.await) })
    });
    let patience = service.settings.patience;
    let stream = TokioIo::new(Patient::new(stream, patience));
    let mut connection = builder(patience).serve_connection(stream, answers);
    let ended = {
        // Looked at when it goes on, and not whenever the connection does.
        let mut closing = FuturesUnordered::from_iter([async {
            service.drain.cancelled().await;
            sleep(LAST_CALL).await;
        }]);
        poll_fn(|context| {
            if let Poll::Ready(Some(())) = closing.poll_next_unpin(context) {
                Pin::new(&mut connection).graceful_shutdown();
            }
            connection.poll_without_shutdown(context)
        })
        .await
    };
    let parts = connection.into_parts();
    // A client that had begun a request and one that had none both let the time pass.
    let is_slow = ended.is_err_and(|error| error.is_timeout()) && !parts.read_buf.is_empty();
    let last_words = is_slow.then(|| Refusal::of_fault(StatusCode::REQUEST_TIMEOUT));
    let _ = part(parts.io.into_inner().into_inner(), last_words).await;
}

/// Refuses a client that there is no place for. What it says is not read.
pub(super) async fn turn_away(stream: TcpStream, refusal: Refusal) {
    let _ = part(stream, Some(refusal)).await;
}

fn builder(patience: Duration) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(patience).half_close(true);
    builder.max_header_size(MAX_HEAD).max_buf_size(MAX_BUFFER);
    builder
}

/// Ends a connection so that the client sees the last answer.
async fn part(mut stream: TcpStream, last_words: Option<Refusal>) -> io::Result<()> {
    if let Some(refusal) = last_words {
        timeout(LINGER, stream.write_all(refusal.bytes().as_bytes())).await??;
    }
    stream.shutdown().await?;
    let mut rest = stream.take(LINGER_BYTES);
    timeout(LINGER, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await??;
    Ok(())
}
