//! Requests of probes and hooks, as a kubelet makes them.

use std::io;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use coracle_lifecycle::{Endpoint, HttpGet};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{
    ACCEPT, CONNECTION, Entry, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION, USER_AGENT,
};
use hyper::http::response::Parts;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;
use url::{Position, Url};

use super::Outcome;
use super::connection::connect;

/// How probes name themselves.
pub(super) const PROBE_AGENT: &str = "kube-probe/1.36";
/// How hooks name themselves.
pub(super) const HOOK_AGENT: &str = "kube-lifecycle/1.36";

/// Requests that one probe makes at most, redirects among them.
const MOST_REQUESTS: usize = 10;
/// What is read of an answer's body, in bytes.
const MOST_BODY: usize = 10 << 10;

/// Asks servers, whoever they are.
#[derive(Clone, Copy)]
pub(super) struct Client<'a> {
    pub(super) tls: &'a TlsConnector,
    pub(super) agent: &'static str,
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

/// Why there is no answer, in the words of Go's HTTP client.
#[derive(Debug, Error)]
pub(super) enum GetError {
    /// HTTPS was wanted, and the server speaks something else.
    #[error("Get {0:?}: http: server gave HTTP response to HTTPS client")]
    NotTls(String),
    #[error("Get {url:?}: {why}")]
    Failed { url: String, why: String },
}

/// Asks once; codes from 200 to 399 are good.
pub(super) async fn probe(tls: &TlsConnector, wanted: &HttpGet, limit: Duration) -> Outcome {
    let client = Client { tls, agent: PROBE_AGENT, deadline: Some(Instant::now() + limit) };
    match client.get(wanted).await {
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
    pub(super) async fn get(&self, wanted: &HttpGet) -> Result<Reply, GetError> {
        let mut url = url(wanted)?;
        let host = url.host_str().map(ToOwned::to_owned);
        for _ in 0..MOST_REQUESTS {
            let (head, body) = self.in_time(&url, wanted).await?;
            match redirect(&url, &head) {
                Some(next) if next.host_str() == host.as_deref() => url = next,
                _ => return Ok(Reply { status: head.status, body }),
            }
        }
        Err(failed(&url, format!("stopped after {MOST_REQUESTS} redirects")))
    }

    async fn in_time(&self, url: &Url, wanted: &HttpGet) -> Result<(Parts, String), GetError> {
        let asking = self.ask(url, wanted);
        let Some(deadline) = self.deadline else { return asking.await };
        // The connection keeps the deadline itself, and has other words for it.
        let slack = Duration::from_millis(1);
        timeout_at(deadline + slack, asking).await.unwrap_or_else(|_| {
            let why = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
            Err(failed(url, why.to_owned()))
        })
    }

    async fn ask(&self, url: &Url, wanted: &HttpGet) -> Result<(Parts, String), GetError> {
        let request = request(url, wanted, self.agent)?;
        let stream = self.connect(url).await?;
        let broken = |error: hyper::Error| failed(url, broken(&error));
        let mut connection = http1::Builder::new();
        connection.title_case_headers(true);
        let (mut sender, connection) = connection.handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let mut exchange = pin!(async {
            let (head, body) = sender.send_request(request).await?.into_parts();
            Ok::<_, hyper::Error>((head, beginning(body).await?))
        });
        tokio::select! {
            biased;
            answer = &mut exchange => answer,
            // What it has received is still to be had.
            _ = connection => exchange.await,
        }
        .map_err(broken)
    }

    async fn connect(&self, url: &Url) -> Result<Either<TlsStream<TcpStream>, TcpStream>, GetError> {
        let endpoint = endpoint(url);
        let stream = connect(&endpoint, self.deadline).await.map_err(|why| failed(url, with_timeout(why)))?;
        if url.scheme() != "https" {
            return Ok(Either::Right(stream));
        }
        let name = ServerName::try_from(endpoint.host).map_err(|error| failed(url, error.to_string()))?;
        match self.tls.connect(name, stream).await {
            Ok(stream) => Ok(Either::Left(stream)),
            Err(error) if is_not_tls(&error) => Err(GetError::NotTls(shown(url))),
            Err(error) => Err(failed(url, error.to_string())),
        }
    }
}

/// A connection that took too long, as Go's client tells it.
fn with_timeout(why: String) -> String {
    if why.ends_with("i/o timeout") {
        return format!("{why} (Client.Timeout exceeded while awaiting headers)");
    }
    why
}

fn failed(url: &Url, why: String) -> GetError {
    GetError::Failed { url: shown(url), why }
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

/// The path of a pod may hold a query, and what no URL may hold.
fn url(wanted: &HttpGet) -> Result<Url, GetError> {
    let scheme = if wanted.tls { "https" } else { "http" };
    let server = format!("{scheme}://{}", wanted.endpoint);
    let mut url = Url::parse(&server)
        .map_err(|error| GetError::Failed { url: server.clone(), why: error.to_string() })?;
    let path = wanted.path.split('#').next().unwrap_or_default();
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    url.set_path(path);
    url.set_query(query);
    Ok(url)
}

/// A URL with its port, whatever it is, as a kubelet writes it.
fn shown(url: &Url) -> String {
    format!("{}://{}{}", url.scheme(), endpoint(url), &url[Position::BeforePath..Position::AfterQuery])
}

fn endpoint(url: &Url) -> Endpoint {
    let host = url.host_str().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    Endpoint { host, port: url.port_or_known_default().unwrap_or_default() }
}

fn request(url: &Url, wanted: &HttpGet, agent: &'static str) -> Result<Request<Empty<Bytes>>, GetError> {
    let wrong = |error: hyper::http::Error| failed(url, error.to_string());
    let mut headers = headers(wanted).map_err(wrong)?;
    for (name, usual) in [(USER_AGENT, agent), (ACCEPT, "*/*")] {
        match headers.entry(name) {
            Entry::Vacant(entry) => {
                entry.insert(HeaderValue::from_static(usual));
            }
            Entry::Occupied(entry) if entry.get().is_empty() => {
                entry.remove();
            }
            Entry::Occupied(_) => {}
        }
    }
    if !headers.contains_key(HOST) {
        let host = HeaderValue::try_from(endpoint(url).to_string());
        headers.insert(HOST, host.map_err(|error| wrong(error.into()))?);
    }
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    let target = &url[Position::BeforePath..Position::AfterQuery];
    let mut request = Request::get(target).body(Empty::new()).map_err(wrong)?;
    *request.headers_mut() = headers;
    Ok(request)
}

fn headers(wanted: &HttpGet) -> Result<HeaderMap, hyper::http::Error> {
    let mut headers = HeaderMap::new();
    for (name, value) in &wanted.headers {
        headers.append(HeaderName::try_from(name)?, HeaderValue::try_from(value)?);
    }
    Ok(headers)
}

/// Where an answer sends the client on.
fn redirect(url: &Url, head: &Parts) -> Option<Url> {
    if !matches!(head.status.as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let next = url.join(head.headers.get(LOCATION)?.to_str().ok()?).ok()?;
    matches!(next.scheme(), "http" | "https").then_some(next)
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
