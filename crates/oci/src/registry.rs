use std::error::Error as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use coracle_lifecycle::{Credential, Digest};
use oci_client::errors::OciErrorCode;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue};
use reqwest::redirect::{Attempt, Policy};
use reqwest::{Client, Response, StatusCode};
use serde::Deserialize;
use thiserror::Error;

use crate::authentication::{Applicant, Challenge};
use crate::digest::digest_of;
use crate::manifest::ACCEPTED;
use crate::name::ImageName;

/// The most that a manifest may have, as the distribution specification advises.
pub(crate) const MANIFEST_LIMIT: u64 = 4 * 1024 * 1024;
/// Error documents are short.
const ERROR_LIMIT: u64 = 64 * 1024;
const REDIRECTS: usize = 10;
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

/// The HTTP client of all registries.
///
/// The requests are this crate's own and not `oci_client::Client`'s, which reads manifests, tokens and the bodies of
/// errors into memory however long they are: any pod's author could end the node with a registry of their own.
#[derive(Debug)]
pub(crate) struct Registries {
    http: Client,
    insecure: Vec<String>,
}

impl Registries {
    /// Reaches the registries in `insecure` (`host[:port]`) without TLS and all others with it.
    pub(crate) fn new(insecure: Vec<String>, connect: Duration, stalled: Duration) -> reqwest::Result<Self> {
        let http = Client::builder()
            .user_agent(concat!("coracle/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(connect)
            .read_timeout(stalled)
            .redirect(Policy::custom(redirect))
            .referer(false)
            // What is verified and limited is what came over the wire.
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate()
            .build()?;
        Ok(Self { http, insecure })
    }

    /// The repository of `name`, asked as `credential` or as nobody.
    pub(crate) fn repository(&self, name: &ImageName, credential: Option<Credential>) -> Repository {
        let plain = self.insecure.iter().any(|host| host == name.registry());
        let scheme = if plain { "http" } else { "https" };
        Repository {
            http: self.http.clone(),
            base: format!("{scheme}://{}/v2/{}", name.host(), name.path()),
            path: name.path().to_owned(),
            plain,
            credential,
            authorization: Mutex::new(None),
        }
    }
}

/// Follows a registry to where it keeps its blobs, but never from TLS to the clear.
fn redirect(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let was_https = attempt.previous().last().is_some_and(|url| url.scheme() == "https");
    if attempt.previous().len() > REDIRECTS {
        attempt.error("too many redirects")
    } else if was_https && attempt.url().scheme() != "https" {
        attempt.error("redirected from https to http")
    } else {
        attempt.follow()
    }
}

/// One repository, asked by one user. Authorization is found at the first refusal and kept.
pub(crate) struct Repository {
    http: Client,
    base: String,
    path: String,
    plain: bool,
    credential: Option<Credential>,
    authorization: Mutex<Option<HeaderValue>>,
}

impl Repository {
    /// The manifest or index under a tag or digest, and its digest, which is the one the registry names if it does.
    pub(crate) async fn manifest(&self, target: &str) -> Result<(Digest, Vec<u8>), RegistryError> {
        let response = self.get(&format!("{}/manifests/{target}", self.base)).await?;
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

    /// The response whose body is the content of `digest`; nothing of the body has been checked.
    pub(crate) async fn blob(&self, digest: &Digest) -> Result<Response, RegistryError> {
        self.get(&format!("{}/blobs/{digest}", self.base)).await
    }

    async fn get(&self, url: &str) -> Result<Response, RegistryError> {
        let mut response = self.send(url).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            self.authorize(&response).await?;
            response = self.send(url).await?;
        }
        if response.status() == StatusCode::OK { Ok(response) } else { Err(refused(response).await) }
    }

    async fn send(&self, url: &str) -> Result<Response, RegistryError> {
        let mut request = self.http.get(url).header(ACCEPT, ACCEPTED);
        let authorization = self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        request.send().await.map_err(|error| network(&error))
    }

    async fn authorize(&self, response: &Response) -> Result<(), RegistryError> {
        let challenge = Challenge::find(response.headers()).ok_or(RegistryError::Denied)?;
        let applicant = Applicant {
            http: &self.http,
            credential: self.credential.as_ref(),
            plain: self.plain,
            repository: &self.path,
        };
        let answer = applicant.answer(&challenge).await?;
        *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
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
