//! A connection for one request.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use http::header::HOST;
use http::uri::PathAndQuery;
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use wasmtime_wasi_http::{Error, Result, WasiBody};

use super::{Target, WayOut};
use crate::room::Place;
use crate::tasks::Tasks;

/// The largest head of an answer.
const MAX_HEAD: u32 = 64 << 10;
/// What is kept of an answer that the guest does not read yet.
const MAX_BUFFER: usize = 128 << 10;
const MAX_WINDOW: u32 = 128 << 10;

/// What is left to do on a connection once its answer has begun.
pub(super) type Progress = Box<dyn Future<Output = Result<(), Error>> + Send>;

/// A connection to whom a request is for.
pub(super) enum Connection {
    Plain(Stream<TcpStream>),
    Secure(Box<Stream<TlsStream<TcpStream>>>),
}

impl Connection {
    /// Opens it over the pod's network.
    pub(super) async fn open(way: &WayOut, target: &Target) -> Result<Self> {
        let place = way.room.take_descriptors(1).map_err(|_| Error::ConnectionLimitReached)?;
        let stream = way.network.connect(target.host(), target.port).await?;
        // Or the end of each request would wait for an acknowledgement of its beginning.
        let _ = stream.set_nodelay(true);
        if !target.is_secure {
            return Ok(Self::Plain(Stream { stream, _place: place }));
        }
        let name =
            ServerName::try_from(target.host().to_owned()).map_err(|_| Error::HttpRequestUriInvalid)?;
        let connector = TlsConnector::from(way.trust.config().await?);
        let stream = connector.connect(name, stream).await.map_err(tls_error)?;
        Ok(Self::Secure(Box::new(Stream { stream, _place: place })))
    }

    /// Sends the request and waits until its answer begins.
    pub(super) async fn ask(
        self,
        request: Request<WasiBody>,
        target: &Target,
        way: &WayOut,
    ) -> Result<(Response<Incoming>, Progress)> {
        match self {
            Self::Plain(stream) => ask_http1(stream, request, target).await,
            Self::Secure(stream) if stream.stream.get_ref().1.alpn_protocol() == Some(&b"h2"[..]) => {
                ask_http2(*stream, request, way).await
            }
            Self::Secure(stream) => ask_http1(*stream, request, target).await,
        }
    }
}

/// The failure of a handshake, by who is to blame.
fn tls_error(error: io::Error) -> Error {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::InvalidCertificate(_)) => Error::TlsCertificateError,
        Some(rustls::Error::AlertReceived(alert)) => Error::TlsAlertReceived {
            alert_id: Some(u8::from(*alert)),
            alert_message: Some(format!("{alert:?}")),
        },
        Some(_) => Error::TlsProtocolError,
        None => Error::Tls(error),
    }
}

async fn ask_http1(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    mut request: Request<WasiBody>,
    target: &Target,
) -> Result<(Response<Incoming>, Progress)> {
    request.headers_mut().insert(HOST, target.header()?);
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    let mut builder = http1::Builder::new();
    builder.max_buf_size(MAX_BUFFER);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    driven(async move { sender.send_request(request).await }, connection).await
}

async fn ask_http2(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<WasiBody>,
    way: &WayOut,
) -> Result<(Response<Incoming>, Progress)> {
    let mut builder = http2::Builder::new(Spawner(Arc::downgrade(&way.tasks)));
    builder.timer(TokioTimer::new()).max_header_list_size(MAX_HEAD);
    builder.initial_stream_window_size(MAX_WINDOW).initial_connection_window_size(MAX_WINDOW);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    driven(async move { sender.send_request(request).await }, connection).await
}

/// Makes the tasks of HTTP/2 tasks of the container, for as long as it has any: a task must not keep them all.
#[derive(Clone)]
struct Spawner(Weak<Tasks>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Spawner {
    fn execute(&self, task: F) {
        if let Some(tasks) = self.0.upgrade() {
            tasks.spawn(task);
        }
    }
}

/// Lets the connection work until the answer has begun; what it has to do then is returned.
async fn driven<C>(
    asking: impl Future<Output = hyper::Result<Response<Incoming>>>,
    connection: C,
) -> Result<(Response<Incoming>, Progress)>
where
    C: Future<Output = hyper::Result<()>> + Send + 'static,
{
    let mut asking = pin!(asking);
    let mut connection = Some(Box::pin(connection));
    let response = poll_fn(|context| {
        if let Poll::Ready(answered) = asking.as_mut().poll(context) {
            return Poll::Ready(answered);
        }
        if let Some(Poll::Ready(ended)) = connection.as_mut().map(|one| one.as_mut().poll(context)) {
            connection = None;
            ended?;
            // It may have ended with the answer.
            return asking.as_mut().poll(context);
        }
        Poll::Pending
    })
    .await?;
    let rest: Progress = Box::new(async move {
        match connection {
            Some(connection) => connection.await.map_err(Error::Hyper),
            None => Ok(()),
        }
    });
    Ok((response, rest))
}

/// A stream that keeps its descriptor's place for as long as it is there.
pub(super) struct Stream<S> {
    stream: S,
    _place: Place,
}

impl<S: AsyncRead + Unpin> AsyncRead for Stream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
