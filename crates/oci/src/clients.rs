//! The HTTP clients of registries: one for each way in which a server and this node prove who they are.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use coracle_lifecycle::Digest;
use parking_lot::Mutex;
use reqwest::redirect::{Attempt, Policy};
use reqwest::{Certificate, Client, ClientBuilder, Identity, NoProxy, Proxy};
use thiserror::Error;

use crate::digest::digest_of;
use crate::disk::read_limited;
use crate::hosts::Tls;

const FILE_LIMIT: u64 = 1024 * 1024;
const REDIRECTS: usize = 10;
/// Clients that are kept; beyond that all are made anew.
const MOST_CLIENTS: usize = 64;

/// The HTTP proxies that registries are reached through. Registries on this machine's loopback never are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// The proxy for registries without TLS, as a URL.
    pub http: Option<String>,
    /// The proxy for registries with TLS, as a URL.
    pub https: Option<String>,
    /// Hosts, domains and networks that are reached without a proxy, with commas between.
    pub except: String,
}

/// Why there is no client for a registry.
#[derive(Debug, Error)]
pub(crate) enum ClientError {
    #[error("{path} cannot be read: {cause}")]
    Unreadable { path: PathBuf, cause: io::Error },
    #[error("{path} is no {what}: {cause}")]
    Certificate { path: PathBuf, what: &'static str, cause: reqwest::Error },
    #[error("the client for it cannot be made: {0}")]
    Client(#[from] reqwest::Error),
}

/// The clients that were made.
#[derive(Debug)]
pub(crate) struct Clients {
    connect: Duration,
    stalled: Duration,
    proxies: Vec<Proxy>,
    made: Mutex<HashMap<Digest, Client>>,
}

/// What a client is made of, read.
#[derive(Debug)]
struct Material {
    authorities: Vec<(PathBuf, Vec<u8>)>,
    identity: Option<(PathBuf, Vec<u8>)>,
    is_unchecked: bool,
}

impl Clients {
    pub(crate) fn new(connect: Duration, stalled: Duration, proxies: &Proxies) -> reqwest::Result<Self> {
        let except = NoProxy::from_string(&proxies.except);
        let http = proxies.http.iter().map(Proxy::http);
        let all = http.chain(proxies.https.iter().map(Proxy::https));
        let all = all.map(|proxy| Ok(proxy?.no_proxy(except.clone()))).collect::<reqwest::Result<_>>()?;
        Ok(Self { connect, stalled, proxies: all, made: Mutex::default() })
    }

    /// A client for servers that prove themselves so, through no proxy when they are on this machine. It reads files.
    pub(crate) fn client(&self, tls: &Tls, is_local: bool) -> Result<Client, ClientError> {
        let material = Material::read(tls)?;
        let key = digest_of(format!("{is_local} {material:?}").as_bytes());
        if let Some(client) = self.made().get(&key) {
            return Ok(client.clone());
        }
        let client = material.configure(self.builder(is_local))?.build()?;
        let mut made = self.made();
        if made.len() >= MOST_CLIENTS {
            made.clear();
        }
        made.insert(key, client.clone());
        Ok(client)
    }

    fn made(&self) -> parking_lot::MutexGuard<'_, HashMap<Digest, Client>> {
        self.made.lock()
    }

    fn builder(&self, is_local: bool) -> ClientBuilder {
        let builder = Client::builder()
            .user_agent(concat!("coracle/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(self.connect)
            .read_timeout(self.stalled)
            .redirect(Policy::custom(redirect))
            .referer(false)
            // What is verified and limited is what came over the wire.
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate()
            // Those of the settings alone, whatever this process has in its environment.
            .no_proxy();
        let proxies = self.proxies.iter().filter(|_| !is_local);
        proxies.fold(builder, |builder, proxy| builder.proxy(proxy.clone()))
    }
}

impl Material {
    fn read(tls: &Tls) -> Result<Self, ClientError> {
        let authorities = tls.authorities.iter().map(|path| Ok((path.clone(), read(path)?)));
        let identity = match &tls.identity {
            None => None,
            Some((certificate, key)) => {
                let mut pem = read(certificate)?;
                if let Some(key) = key {
                    pem.push(b'\n');
                    pem.extend(read(key)?);
                }
                Some((certificate.clone(), pem))
            }
        };
        let authorities = authorities.collect::<Result<_, ClientError>>()?;
        Ok(Self { authorities, identity, is_unchecked: tls.is_unchecked })
    }

    fn configure(&self, mut builder: ClientBuilder) -> Result<ClientBuilder, ClientError> {
        let wrong =
            |path: &Path, what, cause| ClientError::Certificate { path: path.to_owned(), what, cause };
        for (path, pem) in &self.authorities {
            let authorities = Certificate::from_pem_bundle(pem);
            let authorities = authorities.map_err(|cause| wrong(path, "certificate in PEM", cause))?;
            builder = builder.tls_certs_merge(authorities);
        }
        if let Some((path, pem)) = &self.identity {
            let identity = Identity::from_pem(pem);
            builder = builder
                .identity(identity.map_err(|cause| wrong(path, "certificate with its key in PEM", cause))?);
        }
        Ok(builder.tls_danger_accept_invalid_certs(self.is_unchecked))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ClientError> {
    read_limited(path, FILE_LIMIT).map_err(|cause| ClientError::Unreadable { path: path.to_owned(), cause })
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
