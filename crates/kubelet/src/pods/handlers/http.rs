//! Asking HTTP servers, as a kubelet's probes and hooks do.

use std::borrow::Cow;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::http::response::Parts;
use hyper_util::rt::TokioIo;
use rustix::net::sockopt::set_socket_linger;
use rustls::pki_types::ServerName;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use super::Outcome;
use super::connection::connect;
use super::request::{Get, GetError};

/// How probes name themselves.
pub(super) const PROBE_AGENT: &str = "kube-probe/1.36";
/// How hooks name themselves.
pub(super) const HOOK_AGENT: &str = "kube-lifecycle/1.36";

/// Requests that one probe makes at most, redirects among them.
const MOST_REQUESTS: usize = 10;
/// What is read of an answer's body, in bytes.
const MOST_BODY: usize = 10 << 10;

/// A connection to a server.
type Stream = Either<Box<TlsStream<TcpStream>>, TcpStream>;

/// Asks servers, whoever they are.
#[derive(Clone, Copy)]
pub(super) struct Client<'a> {
    pub(super) tls: &'a TlsConnector,
    /// When it gives up.
    pub(super) deadline: Option<Instant>,
}

/// The last answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    /// The beginning of its body.
    pub(super) body: String,
}

/// Asks once; codes from 200 to 399 are good.
pub(super) async fn probe(tls: &TlsConnector, get: &Get, limit: Duration) -> Outcome {
    let client = Client { tls, deadline: Some(Instant::now() + limit) };
    match client.get(get).await {
        Ok(reply) if reply.status.is_success() => Outcome::Good,
        Ok(Reply { status, body }) if status.is_redirection() => {
            Outcome::Warned(format!("Probe terminated redirects, Response body: {body}"))
        }
        Ok(Reply { status, .. }) => {
            Outcome::Bad(format!("HTTP probe failed with statuscode: {}", status.as_u16()))
        }
        Err(error) => Outcome::Bad(error.to_string()),
    }
}

impl Client<'_> {
    /// Asks, and follows redirects within the same host.
    ///
    /// # Errors
    /// When there is no answer in time, or no end of redirects.
    pub(super) async fn get(&self, get: &Get) -> Result<Reply, GetError> {
        let mut get = Cow::Borrowed(get);
        for _ in 0..MOST_REQUESTS {
            let (head, body) = self.in_time(&get).await?;
            match get.redirected(&head) {
                Some(next) => get = Cow::Owned(next?),
                None => return Ok(Reply { status: head.status, body }),
            }
        }
        Err(get.failed(format!("stopped after {MOST_REQUESTS} redirects")))
    }

    async fn in_time(&self, get: &Get) -> Result<(Parts, String), GetError> {
        let asking = self.ask(get);
        let Some(deadline) = self.deadline else { return asking.await };
        // The connection keeps the deadline itself, and has other words for it.
        let slack = Duration::from_millis(1);
        timeout_at(deadline + slack, asking).await.unwrap_or_else(|_| {
            let why = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
            Err(get.failed(why.to_owned()))
        })
    }

    async fn ask(&self, get: &Get) -> Result<(Parts, String), GetError> {
        let stream = self.connect(get).await?;
        let broken = |error: hyper::Error| get.failed(broken(&error));
        let mut connection = http1::Builder::new();
        connection.title_case_headers(true);
        let (mut sender, mut connection) =
            connection.handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let mut exchange = pin!(async {
            let (head, body) = sender.send_request(get.request()).await?.into_parts();
            Ok::<_, hyper::Error>((head, beginning(body).await?))
        });
        let answer = tokio::select! {
            biased;
            answer = &mut exchange => answer,
            // What it has received is still to be had.
            _ = poll_fn(|turn| connection.poll_without_shutdown(turn)) => exchange.await,
        };
        let answer = answer.map_err(broken)?;
        close(connection.into_parts().io.into_inner()).await;
        Ok(answer)
    }

    async fn connect(&self, get: &Get) -> Result<Stream, GetError> {
        let server = &get.server;
        let stream = connect(server, self.deadline).await.map_err(|why| get.failed(with_timeout(why)))?;
        if !get.is_secure() {
            return Ok(Either::Right(stream));
        }
        let name =
            ServerName::try_from(server.host.clone()).map_err(|error| get.failed(error.to_string()))?;
        match self.tls.connect(name, stream).await {
            Ok(stream) => Ok(Either::Left(Box::new(stream))),
            Err(error) if is_not_tls(&error) => Err(GetError::NotTls(get.shown())),
            Err(error) => Err(get.failed(error.to_string())),
        }
    }
}

/// Ends a connection after its answer.
async fn close(stream: Stream) {
    match stream {
        // A server of TLS is told, or it takes the end for an attack.
        Either::Left(mut stream) => {
            let _ = stream.shutdown().await;
        }
        // Where the server has let go, nobody is left to be told: the kernel drops what it keeps of both ends at once.
        Either::Right(stream) if matches!(stream.try_read(&mut [0]), Ok(0)) => {
            let _ = set_socket_linger(stream, Some(Duration::ZERO));
        }
        Either::Right(_) => {}
    }
}

/// A connection that took too long, as Go's client tells it.
fn with_timeout(why: String) -> String {
    if why.ends_with("i/o timeout") {
        return format!("{why} (Client.Timeout exceeded while awaiting headers)");
    }
    why
}

/// What Go says of an answer that is none.
fn broken(error: &hyper::Error) -> String {
    if error.is_incomplete_message() || error.is_canceled() {
        return "EOF".to_owned();
    }
    if error.is_parse() {
        return "net/http: HTTP/1.x transport connection broken: malformed HTTP response".to_owned();
    }
    let source = std::error::Error::source(error);
    source.map_or_else(|| error.to_string(), ToString::to_string)
}

fn is_not_tls(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::InvalidMessage(_)))
}

async fn beginning(mut body: Incoming) -> Result<String, hyper::Error> {
    let mut bytes = Vec::new();
    while bytes.len() < MOST_BODY {
        let Some(frame) = body.frame().await else { break };
        if let Ok(data) = frame?.into_data() {
            let room = data.len().min(MOST_BODY - bytes.len());
            bytes.extend_from_slice(&data[..room]);
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
