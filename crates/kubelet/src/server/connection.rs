use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tracing::debug;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::gate::Gate;
use super::identity::User;
use super::routes::text;

/// How long the two sides may take to agree on keys.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long a connection may be idle, and how long a request's head may take.
const IDLE: Duration = Duration::from_secs(90);

/// How long requests in flight may take to end once the server is told to stop.
const FAREWELL: Duration = Duration::from_secs(2);

/// The most bytes that the head of a request may have.
const HEAD: usize = 1 << 20;

/// What all connections share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) tls: Arc<ServerConfig>,
    pub(super) gate: Gate,
    pub(super) routes: BoxedFilter<(Response,)>,
    pub(super) shutdown: CancellationToken,
}

impl Shared {
    /// Serves one connection to its end.
    pub(super) async fn serve(self, stream: TcpStream) {
        // Without it small answers wait for the client's delayed acknowledgement.
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%error, "a connection cannot be made prompt");
        }
        let acceptor = TlsAcceptor::from(Arc::clone(&self.tls));
        match timeout(HANDSHAKE, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => self.converse(stream).await,
            Ok(Err(error)) => debug!(%error, "a TLS handshake failed"),
            Err(_) => debug!("a TLS handshake took too long"),
        }
    }

    async fn converse(self, stream: TlsStream<TcpStream>) {
        let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let user = Arc::new(certificate.and_then(User::of));
        let shutdown = self.shutdown.clone();
        let service = service_fn(move |request| {
            let (shared, user) = (self.clone(), Arc::clone(&user));
            async move { Ok::<_, Infallible>(shared.answer(user.as_ref().as_ref(), request).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE)
            .max_buf_size(HEAD)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => Some(ended),
            () = shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                timeout(FAREWELL, connection).await.ok()
            }
        };
        if let Some(Err(error)) = ended {
            debug!(%error, "a connection ended early");
        }
    }

    async fn answer(&self, user: Option<&User>, request: Request<Incoming>) -> Response {
        let admitted = self.gate.admit(user, request.method(), request.uri().path()).await;
        match admitted {
            Ok(()) => {
                let answered =
                    TowerToHyperService::new(warp::service(self.routes.clone())).call(request).await;
                answered.unwrap_or_else(|never| match never {})
            }
            Err(refusal) => text(refusal.code, refusal.text),
        }
    }
}
