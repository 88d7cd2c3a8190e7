use std::error::Error as _;
use std::net::IpAddr;
use std::path::PathBuf;

use coracle_lifecycle::{Credential, Digest};
use oci_client::errors::OciErrorCode;
use parking_lot::Mutex;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue, RANGE};
use reqwest::{Client, Response, StatusCode, Url};
use serde::Deserialize;
use thiserror::Error;

use crate::authentication::{Applicant, Challenge};
use crate::clients::{ClientError, Clients};
use crate::digest::digest_of;
use crate::hosts::{Host, HostsError, hosts};
use crate::manifest::{self, ACCEPTED, ManifestError};
use crate::name::ImageName;

/// The most that a manifest may have, as the distribution specification advises.
pub(crate) const MANIFEST_LIMIT: u64 = 4 * 1024 * 1024;
/// Error documents are short.
const ERROR_LIMIT: u64 = 64 * 1024;
const DIGEST_HEADER: &str = "docker-content-digest";

/// Why a registry did not give what it was asked for. Messages hold nothing that a registry wrote but its error code.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum RegistryError {
    #[error("not found")]
    NotFound,
    #[error("pull access denied, repository does not exist or may require authorization")]
    Denied,
    #[error("{0}")]
    Unavailable(String),
    #[error("{0}")]
    Malformed(String),
}

impl RegistryError {
    /// The same error, with who answered so.
    pub(crate) fn at(self, whom: &str) -> Self {
        match self {
            Self::Unavailable(cause) => Self::Unavailable(format!("{whom}: {cause}")),
            other => other,
        }
    }
}

/// All registries, as they are configured.
///
/// The requests are this crate's own and not `oci_client::Client`'s, which reads manifests, tokens and the bodies of
/// errors into memory however long they are: any pod's author could end the node with a registry of their own.
#[derive(Debug)]
pub(crate) struct Registries {
    insecure: Vec<String>,
    directory: Option<PathBuf>,
    clients: Clients,
}

/// Why a registry cannot be asked at all.
#[derive(Debug, Error)]
pub(crate) enum ConfigurationError {
    #[error(transparent)]
    Hosts(#[from] HostsError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("{0:?} is no host")]
    Address(String),
}

/// A server that holds the content of a registry, and the client for it.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    host: Host,
    http: Client,
}

impl Registries {
    /// Reaches the registries in `insecure` (`host[:port]`) without TLS and all others with it, unless `directory`
    /// says something else of them.
    pub(crate) fn new(insecure: Vec<String>, directory: Option<PathBuf>, clients: Clients) -> Self {
        Self { insecure, directory, clients }
    }

    /// Whether [`Self::servers`] has files to read.
    pub(crate) fn reads_files(&self) -> bool {
        self.directory.is_some()
    }

    /// The servers that are asked for the content of `name`, in this order; the last is the registry itself.
    pub(crate) fn servers(&self, name: &ImageName) -> Result<Vec<Server>, ConfigurationError> {
        let is_plain = self.insecure.iter().any(|host| host == name.registry());
        let scheme = if is_plain { "http" } else { "https" };
        let usual = Url::parse(&format!("{scheme}://{}/v2", name.host()));
        let usual = usual.map_err(|_| ConfigurationError::Address(name.host().to_owned()))?;
        let hosts = hosts(self.directory.as_deref(), name.registry(), &usual)?;
        let with_client = |host: Host| {
            let http = self.clients.client(&host.tls, is_local(&host.base))?;
            Ok(Server { host, http })
        };
        hosts.into_iter().map(with_client).collect()
    }
}

impl Server {
    /// Whether it is the registry itself and no mirror.
    pub(crate) fn is_registry(&self) -> bool {
        self.host.is_registry
    }

    /// The host, and the port when it is not the usual one.
    pub(crate) fn address(&self) -> String {
        address(&self.host.base)
    }
}

/// Whether an address is one of this machine's loopback.
fn is_local(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let is_loopback = host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
    is_loopback || host == "localhost" || host.ends_with(".localhost")
}

/// One repository at all servers that hold it, asked by one user.
pub(crate) struct Repository {
    sources: Vec<Source>,
}

impl Repository {
    /// The repository of `name` at `servers`, asked as the users beside them or as nobody.
    pub(crate) fn new(name: &ImageName, servers: Vec<(Server, Option<Credential>)>) -> Self {
        let sources = servers.into_iter().map(|(server, credential)| Source::new(name, server, credential));
        Self { sources: sources.collect() }
    }

    /// As whom the registry itself or a mirror wanted to be asked.
    pub(crate) fn user(&self) -> Option<Credential> {
        self.sources.iter().rev().find_map(Source::user)
    }

    /// The servers that are asked for content by digest.
    pub(crate) fn sources(&self) -> impl Iterator<Item = &Source> {
        self.sources.iter().filter(|source| source.server.host.pulls)
    }

    /// The manifest or index under a tag or digest, and its digest, from the first server that has it. One that the
    /// registry itself sends under a digest may be another.
    pub(crate) async fn manifest(&self, target: &str) -> Result<(Digest, Vec<u8>), RegistryError> {
        let is_digest = target.contains(':');
        let asked = |source: &&Source| {
            if is_digest { source.server.host.pulls } else { source.server.host.resolves }
        };
        let mut failure = RegistryError::NotFound;
        for source in self.sources.iter().filter(asked) {
            match source.manifest(target).await {
                Ok((digest, _)) if is_digest && digest.as_str() != target && !source.server.is_registry() => {
                    failure = RegistryError::Malformed(format!("the manifest {target} has the wrong digest"));
                }
                Ok((_, bytes)) if !source.server.is_registry() && is_malformed(&bytes) => {
                    failure = RegistryError::Malformed("it sent no manifest".to_owned());
                }
                Ok(found) => return Ok(found),
                Err(error) => failure = error,
            }
            source.note(&failure);
        }
        Err(failure)
    }

    /// The content of `digest`, verified, from the first server that has it.
    pub(crate) async fn small(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, RegistryError> {
        let mut failure = RegistryError::NotFound;
        for source in self.sources() {
            match source.small(digest, limit).await {
                Ok(bytes) => return Ok(bytes),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// The index of what refers to `digest`, from the first server that keeps one
    /// (<https://github.com/opencontainers/distribution-spec/blob/main/spec.md#listing-referrers>).
    pub(crate) async fn referrers(&self, digest: &Digest) -> Result<Vec<u8>, RegistryError> {
        let mut failure = RegistryError::NotFound;
        for source in self.sources() {
            match source.referrers(digest).await {
                Ok(bytes) => return Ok(bytes),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }
}

fn is_malformed(manifest: &[u8]) -> bool {
    matches!(manifest::read(manifest), Err(ManifestError::Malformed(_)))
}

/// One repository at one server, asked by one user. Authorization is found at the first refusal and kept.
pub(crate) struct Source {
    server: Server,
    base: String,
    query: String,
    path: String,
    credential: Option<Credential>,
    authorization: Mutex<Option<HeaderValue>>,
}

impl Source {
    fn new(name: &ImageName, server: Server, credential: Option<Credential>) -> Self {
        let base = format!("{}/{}", server.host.base.as_str().trim_end_matches('/'), name.path());
        // So that a mirror of several registries knows which is meant.
        let query = if server.is_registry() { String::new() } else { format!("?ns={}", name.registry()) };
        let authorization = Mutex::new(None);
        Self { server, base, query, path: name.path().to_owned(), credential, authorization }
    }

    /// The user that the server asked for.
    fn user(&self) -> Option<Credential> {
        let authorization = self.authorization.lock();
        authorization.as_ref().and(self.credential.clone())
    }

    /// Says in the log that a mirror failed: whoever waits for the image is told of the registry only.
    pub(crate) fn note(&self, failure: &impl std::fmt::Display) {
        if !self.server.is_registry() {
            tracing::warn!(mirror = self.base, %failure, "a mirror does not have what is pulled");
        }
    }

    async fn manifest(&self, target: &str) -> Result<(Digest, Vec<u8>), RegistryError> {
        let response = self.get(&format!("{}/manifests/{target}{}", self.base, self.query), 0).await?;
        let named =
            response.headers().get(DIGEST_HEADER).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let body = read_body(response, MANIFEST_LIMIT).await?;
        let digest = digest_of(&body);
        match named {
            Some(named) if named.starts_with("sha256:") && named != digest.as_str() => {
                Err(RegistryError::Malformed(format!(
                    "the manifest {digest} has the wrong digest: the registry promised another"
                )))
            }
            _ => Ok((digest, body)),
        }
    }

    /// The response whose body is the content of `digest`, from its byte `start` when the status is 206 and from its first
    /// when it is 200; nothing of the body has been checked.
    pub(crate) async fn blob(&self, digest: &Digest, start: u64) -> Result<Response, RegistryError> {
        self.get(&format!("{}/blobs/{digest}{}", self.base, self.query), start).await
    }

    async fn small(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, RegistryError> {
        let body = read_body(self.blob(digest, 0).await?, limit).await?;
        if digest_of(&body) == *digest {
            return Ok(body);
        }
        Err(RegistryError::Malformed(format!("{digest} has the wrong digest")))
    }

    async fn referrers(&self, digest: &Digest) -> Result<Vec<u8>, RegistryError> {
        let response = self.get(&format!("{}/referrers/{digest}{}", self.base, self.query), 0).await?;
        read_body(response, MANIFEST_LIMIT).await
    }

    async fn get(&self, url: &str, start: u64) -> Result<Response, RegistryError> {
        let mut response = self.send(url, start).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            self.authorize(&response).await?;
            response = self.send(url, start).await?;
        }
        match response.status() {
            StatusCode::OK => Ok(response),
            StatusCode::PARTIAL_CONTENT if start > 0 => Ok(response),
            _ => Err(refused(response).await),
        }
    }

    async fn send(&self, url: &str, start: u64) -> Result<Response, RegistryError> {
        let mut request = self.server.http.get(url).header(ACCEPT, ACCEPTED);
        for (name, value) in &self.server.host.headers {
            request = request.header(name, value);
        }
        if start > 0 {
            request = request.header(RANGE, format!("bytes={start}-"));
        }
        let authorization = self.authorization.lock().clone();
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        request.send().await.map_err(|error| network(&error))
    }

    async fn authorize(&self, response: &Response) -> Result<(), RegistryError> {
        let challenge = Challenge::find(response.headers()).ok_or(RegistryError::Denied)?;
        let applicant = Applicant {
            http: &self.server.http,
            credential: self.credential.as_ref(),
            plain: self.server.host.base.scheme() == "http",
            repository: &self.path,
        };
        let answer = applicant.answer(&challenge).await?;
        *self.authorization.lock() = Some(answer);
        Ok(())
    }
}

/// The whole body, when it has no more than `limit` bytes.
pub(crate) async fn read_body(mut response: Response, limit: u64) -> Result<Vec<u8>, RegistryError> {
    let too_long = || RegistryError::Malformed(format!("the answer is longer than {limit} bytes"));
    if response.content_length().is_some_and(|length| length > limit) {
        return Err(too_long());
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| interrupted(&error))? {
        if body.len() as u64 + chunk.len() as u64 > limit {
            return Err(too_long());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn interrupted(error: &reqwest::Error) -> RegistryError {
    if error.is_timeout() {
        return network(error);
    }
    RegistryError::Malformed(format!("the answer is truncated: {}", innermost(error)))
}

/// What a status other than 200 means.
pub(crate) async fn refused(response: Response) -> RegistryError {
    let status = response.status();
    match status {
        StatusCode::NOT_FOUND => RegistryError::NotFound,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => RegistryError::Denied,
        _ => RegistryError::Unavailable(match error_code(response).await {
            Some(code) => format!("the registry answered {status} ({code})"),
            None => format!("the registry answered {status}"),
        }),
    }
}

/// A request that could not be made or answered, without its URL: that may hold a signature.
pub(crate) fn network(error: &reqwest::Error) -> RegistryError {
    let host = error.url().map(address).unwrap_or_default();
    let cause = if error.is_timeout() { "timed out".to_owned() } else { innermost(error) };
    RegistryError::Unavailable(format!("cannot reach {host}: {cause}"))
}

/// The host, and the port when it is not the usual one.
fn address(url: &reqwest::Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn innermost(error: &reqwest::Error) -> String {
    let mut cause = error.source();
    while let Some(deeper) = cause.and_then(std::error::Error::source) {
        cause = Some(deeper);
    }
    cause.map_or_else(|| "the request failed".to_owned(), ToString::to_string)
}

#[derive(Deserialize)]
struct Refusal {
    errors: Vec<RefusalCode>,
}

#[derive(Deserialize)]
struct RefusalCode {
    code: OciErrorCode,
}

/// The distribution specification's code in an error document. The words beside it are the registry's own and could
/// hold anything, even the credentials it was sent.
async fn error_code(response: Response) -> Option<String> {
    let body = read_body(response, ERROR_LIMIT).await.ok()?;
    let refusal: Refusal = serde_json::from_slice(&body).ok()?;
    let code = serde_json::to_value(&refusal.errors.first()?.code).ok()?;
    code.as_str().map(str::to_owned)
}
