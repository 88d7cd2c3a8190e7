//! What probes and hooks ask HTTP servers: put together once, sent as often as is wanted.

use bytes::Bytes;
use coracle_lifecycle::{Endpoint, HttpGet};
use http_body_util::Empty;
use hyper::header::{
    ACCEPT, CONNECTION, Entry, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION, USER_AGENT,
};
use hyper::http::response::Parts;
use hyper::{Request, Uri};
use thiserror::Error;
use url::{Position, Url};

/// Why there is no answer, in the words of Go's HTTP client.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(in crate::pods) enum GetError {
    /// HTTPS was wanted, and the server speaks something else.
    #[error("Get {0:?}: http: server gave HTTP response to HTTPS client")]
    NotTls(String),
    #[error("Get {url:?}: {why}")]
    Failed { url: String, why: String },
}

/// A request without a body that may be sent many times.
#[derive(Clone, Debug)]
pub(in crate::pods) struct Get {
    url: Url,
    /// Who is asked.
    pub(super) server: Endpoint,
    target: Uri,
    headers: HeaderMap,
    /// The pod says itself which host is meant.
    names_host: bool,
}

impl Get {
    /// What a pod wants to be asked, by somebody of that name.
    ///
    /// # Errors
    /// When that makes no URL or no header.
    pub(super) fn new(wanted: &HttpGet, agent: &'static str) -> Result<Self, GetError> {
        let url = url(wanted)?;
        let mut headers = headers(wanted).map_err(|error| failed(&url, error.to_string()))?;
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
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        let names_host = headers.contains_key(HOST);
        Self::of(url, headers, names_host)
    }

    fn of(url: Url, mut headers: HeaderMap, names_host: bool) -> Result<Self, GetError> {
        let wrong = |error: hyper::http::Error| failed(&url, error.to_string());
        let server = endpoint(&url);
        if !names_host {
            let host = HeaderValue::try_from(server.to_string()).map_err(|error| wrong(error.into()))?;
            headers.insert(HOST, host);
        }
        let target = &url[Position::BeforePath..Position::AfterQuery];
        let target = Uri::try_from(target).map_err(|error| wrong(error.into()))?;
        Ok(Self { url, server, target, headers, names_host })
    }

    /// The request as it is sent.
    pub(super) fn request(&self) -> Request<Empty<Bytes>> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = self.target.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }

    /// Whether it goes by TLS.
    pub(super) fn is_secure(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// What is to be asked instead, where an answer sends the client to another page of the same host.
    pub(super) fn redirected(&self, head: &Parts) -> Option<Result<Self, GetError>> {
        if !matches!(head.status.as_u16(), 301 | 302 | 303 | 307 | 308) {
            return None;
        }
        let next = self.url.join(head.headers.get(LOCATION)?.to_str().ok()?).ok()?;
        let is_followed = matches!(next.scheme(), "http" | "https") && next.host_str() == self.url.host_str();
        is_followed.then(|| Self::of(next, self.headers.clone(), self.names_host))
    }

    /// The URL with its port, whatever it is, as a kubelet writes it.
    pub(super) fn shown(&self) -> String {
        shown(&self.url)
    }

    /// That there was no answer.
    pub(super) fn failed(&self, why: String) -> GetError {
        failed(&self.url, why)
    }
}

fn failed(url: &Url, why: String) -> GetError {
    GetError::Failed { url: shown(url), why }
}

fn shown(url: &Url) -> String {
    format!("{}://{}{}", url.scheme(), endpoint(url), &url[Position::BeforePath..Position::AfterQuery])
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

fn endpoint(url: &Url) -> Endpoint {
    let host = url.host_str().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    Endpoint { host, port: url.port_or_known_default().unwrap_or_default() }
}

fn headers(wanted: &HttpGet) -> Result<HeaderMap, hyper::http::Error> {
    let mut headers = HeaderMap::new();
    for (name, value) in &wanted.headers {
        headers.append(HeaderName::try_from(name)?, HeaderValue::try_from(value)?);
    }
    Ok(headers)
}
