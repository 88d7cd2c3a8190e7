//! Requests that guests send: over the pod's network, to whom the pod's annotations allow, with HTTP/1.1 or 2.

mod answer;
mod connection;
mod rules;
mod trust;

use std::sync::Arc;
use std::time::Duration;

use coracle_lifecycle::ContainerSpec;
use http::header::HOST;
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Request, Response};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use tracing::debug;
use wasmtime_wasi_http::{Error, RequestOptions, Result, WasiBody, WasiHttpHooks};

use crate::http::Malformed;
use crate::network::GuestNetwork;
use crate::room::Room;
use crate::tasks::Tasks;
use answer::AnswerBody;
use connection::{Connection, Progress};
use trust::Trust;

pub(crate) use rules::Rules;

/// How long a guest waits for a connection, or for an answer to begin or go on, when it does not say.
const PATIENCE: Duration = Duration::from_mins(10);
/// No guest waits longer for a connection: it occupies a descriptor of the node.
const LONGEST_CONNECT: Duration = Duration::from_mins(2);

/// The way out of one container, which its instances share.
struct WayOut {
    rules: Rules,
    network: Arc<GuestNetwork>,
    trust: Trust,
    requests: Arc<Semaphore>,
    room: Arc<Room>,
    /// What connections of HTTP/2 do by themselves.
    tasks: Arc<Tasks>,
}

impl WayOut {
    async fn send(self: Arc<Self>, mut request: Request<WasiBody>, times: Times) -> Result<Sent> {
        let permit = Arc::clone(&self.requests).try_acquire_owned();
        let permit = permit.map_err(|_| Error::ConnectionLimitReached)?;
        let target = Target::of(&request)?;
        if !self.rules.allow(target.host()) {
            return Err(Error::HttpRequestDenied);
        }
        // HTTP/2 has a field of its own for it.
        request.headers_mut().remove(HOST);
        let connected = timeout_at(times.connected, Connection::open(&self, &target)).await;
        let connection = connected.map_err(|_| Error::ConnectionTimeout)??;
        let answered = timeout_at(times.first_byte(), connection.ask(request, &target, &self)).await;
        let (response, progress) = answered.map_err(|_| Error::ConnectionReadTimeout)??;
        let response = response.map(|body| AnswerBody::boxed(body, times.between_bytes, permit));
        Ok((response, progress))
    }
}

/// How long the parts of an exchange may take.
#[derive(Clone, Copy)]
struct Times {
    connected: Instant,
    first_byte: Duration,
    between_bytes: Duration,
}

impl Times {
    fn of(options: Option<RequestOptions>) -> Self {
        let time = |time: Option<Duration>| time.unwrap_or(PATIENCE).min(PATIENCE);
        let connect = time(options.and_then(|options| options.connect_timeout)).min(LONGEST_CONNECT);
        Self {
            connected: Instant::now() + connect,
            first_byte: time(options.and_then(|options| options.first_byte_timeout)),
            between_bytes: time(options.and_then(|options| options.between_bytes_timeout)),
        }
    }

    /// From now.
    fn first_byte(&self) -> Instant {
        Instant::now() + self.first_byte
    }
}

/// Whom a request is for.
struct Target {
    authority: Authority,
    port: u16,
    is_secure: bool,
}

impl Target {
    fn of(request: &Request<WasiBody>) -> Result<Self> {
        let uri = request.uri();
        let authority = uri.authority().cloned().ok_or(Error::HttpRequestUriInvalid)?;
        let is_secure = uri.scheme() == Some(&Scheme::HTTPS);
        if authority.host().is_empty() || !is_secure && uri.scheme() != Some(&Scheme::HTTP) {
            return Err(Error::HttpRequestUriInvalid);
        }
        let port = authority.port_u16().unwrap_or(if is_secure { 443 } else { 80 });
        Ok(Self { authority, port, is_secure })
    }

    /// The host's name or address, that of IPv6 without brackets.
    fn host(&self) -> &str {
        let host = self.authority.host();
        host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
    }

    /// What the header `host` says of it.
    fn header(&self) -> Result<HeaderValue> {
        let authority = self.authority.as_str();
        // Whoever is named before an `@` is nobody's business.
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        HeaderValue::from_str(host).map_err(|_| Error::HttpRequestUriInvalid)
    }
}

type Sent = (Response<WasiBody>, Progress);

/// One guest's hold of its container's way out.
#[derive(Clone)]
pub(crate) struct Outgoing(Arc<WayOut>);

impl Outgoing {
    /// The way out of a container. To be called in the runtime that runs guests.
    ///
    /// # Errors
    /// An annotation says nothing that can be done.
    pub(crate) fn new(
        spec: &ContainerSpec,
        network: &Arc<GuestNetwork>,
        room: &Arc<Room>,
    ) -> Result<Self, Malformed> {
        let rules = Rules::of(&spec.annotations)?;
        let way = WayOut {
            network: Arc::clone(network),
            trust: Trust::of(spec),
            requests: Arc::new(Semaphore::new(rules.requests)),
            rules,
            room: Arc::clone(room),
            tasks: Arc::new(Tasks::on(Handle::current())),
        };
        Ok(Self(Arc::new(way)))
    }
}

impl WasiHttpHooks for Outgoing {
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Result<(Response<WasiBody>, Progress)>> + Send> {
        let way = Arc::clone(&self.0);
        let times = Times::of(options);
        Box::new(async move {
            let title = format!("{} {:?}", request.method(), request.uri().authority());
            let sent = way.send(request, times).await;
            if let Err(error) = &sent {
                debug!(request = title, %error, "a guest's request has failed");
            }
            sent
        })
    }
}

/// Counts as a request of the container until it is dropped.
type Permit = OwnedSemaphorePermit;

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, Empty};

    use super::*;

    fn target(uri: &str) -> Result<(String, u16, bool), String> {
        let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
        let request = Request::builder().uri(uri).body(body).unwrap();
        let target = Target::of(&request).map_err(|error| error.to_string())?;
        Ok((target.host().to_owned(), target.port, target.is_secure))
    }

    #[test]
    fn a_request_says_whom_it_is_for() {
        assert_eq!(target("http://a.example/x"), Ok(("a.example".to_owned(), 80, false)));
        assert_eq!(target("https://a.example:8443/"), Ok(("a.example".to_owned(), 8443, true)));
        assert_eq!(target("https://[::1]/"), Ok(("::1".to_owned(), 443, true)));
        for wrong in ["/path", "ftp://a.example/", "a.example:80"] {
            assert!(target(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_guest_cannot_wait_for_ever() {
        let day = Some(Duration::from_hours(24));
        let options = RequestOptions {
            connect_timeout: day,
            first_byte_timeout: day,
            between_bytes_timeout: Some(Duration::from_secs(1)),
        };
        let times = Times::of(Some(options));
        assert!(times.connected <= Instant::now() + LONGEST_CONNECT);
        assert_eq!((times.first_byte, times.between_bytes), (PATIENCE, Duration::from_secs(1)));
    }
}
