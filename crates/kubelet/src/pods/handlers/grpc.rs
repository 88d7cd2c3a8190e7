//! The gRPC health protocol, without the rest of gRPC.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use coracle_lifecycle::Endpoint;
use h2::RecvStream;
use h2::client::SendRequest;
use hyper::Request;
use hyper::header::{CONTENT_TYPE, HeaderMap, TE, USER_AGENT};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::connection::connect;
use super::http::PROBE_AGENT;
use super::{Outcome, go_seconds, health};

/// Longer answers are none.
const MOST_ANSWER: usize = 10 << 10;

/// The names of gRPC's status codes in Go.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];
const UNIMPLEMENTED: usize = 12;
const INTERNAL: usize = 13;
const UNAVAILABLE: usize = 14;

/// Why a server did not tell of its health.
#[derive(Debug, Error)]
enum CallError {
    #[error("rpc error: code = {} desc = {message}", CODES.get(*code).unwrap_or(&"Unknown"))]
    Status { code: usize, message: String },
    #[error("rpc error: code = Unavailable desc = {0}")]
    Transport(#[from] h2::Error),
    #[error("rpc error: code = Internal desc = {0}")]
    Request(#[from] hyper::http::Error),
}

/// Asks a server once whether a service, or the server as a whole, is well.
pub(super) async fn probe(endpoint: &Endpoint, service: &str, limit: Duration) -> Outcome {
    let (deadline, server) = (Instant::now() + limit, endpoint.to_string());
    let stream = match connect(endpoint, Some(deadline)).await {
        Ok(stream) => stream,
        Err(_) if Instant::now() >= deadline => {
            let limit = go_seconds(limit);
            let why = "context deadline exceeded";
            return Outcome::Bad(format!(
                "timeout: failed to connect service {server:?} within {limit}: {why}"
            ));
        }
        Err(why) => {
            let why = format!("connection error: desc = \"transport: error while dialing: {why}\"");
            return Outcome::Bad(format!("error: failed to connect service at {server:?}: {why}"));
        }
    };
    match timeout_at(deadline, check(stream, &server, service)).await {
        Ok(Ok(health::SERVING)) => Outcome::Good,
        Ok(Ok(status)) => {
            let status = health::status_name(status);
            Outcome::Bad(format!("service unhealthy (responded with {status:?})"))
        }
        Ok(Err(error)) => Outcome::Bad(told(&error)),
        Err(_) => Outcome::Bad(format!("timeout: health rpc did not complete within {}", go_seconds(limit))),
    }
}

fn told(error: &CallError) -> String {
    match error {
        CallError::Status { code: UNIMPLEMENTED, message } => format!(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {message}"
        ),
        error => format!("error: health rpc probe failed: {error}"),
    }
}

async fn check(stream: TcpStream, server: &str, service: &str) -> Result<u64, CallError> {
    let (client, connection) = h2::client::handshake(stream).await?;
    let mut call = pin!(call(client, server, service));
    tokio::select! {
        biased;
        answer = &mut call => answer,
        // What it has received is still to be had.
        _ = connection => call.await,
    }
}

async fn call(client: SendRequest<Bytes>, server: &str, service: &str) -> Result<u64, CallError> {
    let mut client = client.ready().await?;
    let request = Request::post(format!("http://{server}/grpc.health.v1.Health/Check"))
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .header(USER_AGENT, PROBE_AGENT)
        .body(())?;
    let (response, mut body) = client.send_request(request, false)?;
    body.send_data(health::request(service), true)?;
    let (head, mut answer) = response.await?.into_parts();
    if !head.status.is_success() {
        let message = format!("unexpected HTTP status code received from server: {}", head.status.as_u16());
        return Err(CallError::Status { code: UNAVAILABLE, message });
    }
    ensure_ok(&head.headers)?;
    let message = message(&mut answer).await?;
    ensure_ok(&answer.trailers().await?.unwrap_or_default())?;
    health::status(&message)
        .ok_or_else(|| CallError::Status { code: INTERNAL, message: "not a health status".to_owned() })
}

/// A status is told in the trailers, or in the headers of an answer that has nothing else.
fn ensure_ok(headers: &HeaderMap) -> Result<(), CallError> {
    let text =
        |name: &str| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    match text("grpc-status").map(|code| code.parse().unwrap_or(2)) {
        None | Some(0) => Ok(()),
        Some(code) => Err(CallError::Status { code, message: text("grpc-message").unwrap_or_default() }),
    }
}

async fn message(answer: &mut RecvStream) -> Result<Vec<u8>, CallError> {
    let mut message = Vec::new();
    while let Some(chunk) = answer.data().await {
        let chunk = chunk?;
        if message.len() + chunk.len() > MOST_ANSWER {
            return Err(CallError::Status { code: INTERNAL, message: "the answer is too long".to_owned() });
        }
        message.extend_from_slice(&chunk);
        answer.flow_control().release_capacity(chunk.len())?;
    }
    Ok(message)
}
