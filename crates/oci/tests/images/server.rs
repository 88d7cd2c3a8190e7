//! A registry that does what a test tells it to, on loopback and without TLS.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, Stream, StreamExt, stream};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{AUTHORIZATION, RANGE};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

pub(crate) type Answer = Response<BoxBody<Bytes, io::Error>>;
type Route = Arc<dyn Fn(Asked) -> BoxFuture<'static, Answer> + Send + Sync>;

/// A request as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) authorization: Option<String>,
    pub(crate) range: Option<String>,
}

/// The server; it ends when it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    script: Arc<Script>,
    _listening: JoinSet<()>,
}

struct Script {
    routes: Mutex<HashMap<String, Route>>,
    guard: Mutex<Option<Guard>>,
    asked: watch::Sender<Vec<Asked>>,
}

/// What each request must pass first: `None` lets it through.
type Guard = Arc<dyn Fn(&Asked) -> Option<Answer> + Send + Sync>;

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_as(None).await
    }

    pub(crate) async fn start_with_tls(files: &TlsFiles) -> Self {
        Self::start_as(Some(files.acceptor())).await
    }

    async fn start_as(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, _) = watch::channel(Vec::new());
        let script = Arc::new(Script { routes: Mutex::default(), guard: Mutex::default(), asked });
        let mut listening = JoinSet::new();
        listening.spawn(listen(listener, tls, script.clone()));
        Self { address, script, _listening: listening }
    }

    /// The host and port as an image reference names them.
    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    /// Answers requests for `path` with what `answer` makes.
    pub(crate) fn route<F>(&self, path: &str, answer: impl Fn(Asked) -> F + Send + Sync + 'static)
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        let route: Route = Arc::new(move |asked| answer(asked).boxed());
        self.script.routes.lock().unwrap().insert(path.to_owned(), route);
    }

    /// Answers requests for `path` always with the same bytes.
    pub(crate) fn content(&self, path: &str, bytes: impl Into<Bytes>) {
        let bytes = bytes.into();
        self.route(path, move |_| std::future::ready(ok(bytes.clone())));
    }

    /// Answers requests for `path` with no more than a status.
    pub(crate) fn status(&self, path: &str, code: u16) {
        self.route(path, move |_| std::future::ready(status(code, "")));
    }

    pub(crate) fn guard(&self, guard: impl Fn(&Asked) -> Option<Answer> + Send + Sync + 'static) {
        *self.script.guard.lock().unwrap() = Some(Arc::new(guard));
    }

    /// All requests so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.script.asked.borrow().clone()
    }

    /// How many requests for `path` came so far.
    pub(crate) fn count(&self, path: &str) -> usize {
        self.asked().iter().filter(|asked| asked.path == path).count()
    }

    /// Waits until `path` has been asked for.
    pub(crate) async fn until_asked(&self, path: &str) {
        let mut asked = self.script.asked.subscribe();
        asked.wait_for(|all| all.iter().any(|asked| asked.path == path)).await.unwrap();
    }
}

/// What a server proves itself with, and who signs its clients' certificates if it asks for them.
pub(crate) struct TlsFiles {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) clients: Option<PathBuf>,
}

impl TlsFiles {
    fn acceptor(&self) -> TlsAcceptor {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let certificates = CertificateDer::pem_file_iter(&self.certificate).unwrap();
        let certificates = certificates.collect::<Result<Vec<_>, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_file(&self.key).unwrap();
        let builder = match &self.clients {
            None => ServerConfig::builder().with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(CertificateDer::from_pem_file(authority).unwrap()).unwrap();
                let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
                ServerConfig::builder().with_client_cert_verifier(verifier)
            }
        };
        TlsAcceptor::from(Arc::new(builder.with_single_cert(certificates, key).unwrap()))
    }
}

async fn listen(listener: TcpListener, tls: Option<TlsAcceptor>, script: Arc<Script>) {
    let mut connections = JoinSet::new();
    while let Ok((connection, _)) = listener.accept().await {
        let (tls, script) = (tls.clone(), script.clone());
        connections.spawn(async move {
            match tls {
                None => serve(connection, script).await,
                // Who does not trust the server leaves here.
                Some(tls) => {
                    if let Ok(connection) = tls.accept(connection).await {
                        serve(connection, script).await;
                    }
                }
            }
        });
    }
}

async fn serve(connection: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, script: Arc<Script>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let script = script.clone();
        async move { Ok::<_, Infallible>(script.answer(&request).await) }
    });
    // The clients of these tests leave as they like.
    let _ =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(connection), service).await;
}

impl Script {
    async fn answer(&self, request: &Request<Incoming>) -> Answer {
        let header = |name| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let (authorization, range) = (header(AUTHORIZATION), header(RANGE));
        let uri = request.uri();
        let query = uri.query().unwrap_or_default().to_owned();
        let asked = Asked { path: uri.path().to_owned(), query, authorization, range };
        self.asked.send_modify(|all| all.push(asked.clone()));
        let guard = self.guard.lock().unwrap().clone();
        if let Some(refusal) = guard.and_then(|guard| guard(&asked)) {
            return refusal;
        }
        let route = self.routes.lock().unwrap().get(&asked.path).cloned();
        match route {
            Some(route) => route(asked).await,
            None => status(404, r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"never heard of it"}]}"#),
        }
    }
}

pub(crate) fn ok(bytes: impl Into<Bytes>) -> Answer {
    Response::new(Full::new(bytes.into()).map_err(|never| match never {}).boxed())
}

pub(crate) fn status(code: u16, body: &str) -> Answer {
    let mut answer = ok(body.to_owned());
    *answer.status_mut() = StatusCode::from_u16(code).unwrap();
    answer
}

pub(crate) fn with_header(mut answer: Answer, name: &'static str, value: &str) -> Answer {
    answer.headers_mut().insert(name, value.parse().unwrap());
    answer
}

/// The bytes, and then what a broken line looks like.
pub(crate) fn cut_off(bytes: impl Into<Bytes>) -> Answer {
    let cut = async {
        // Only while it waits for more does the server send what it has.
        tokio::task::yield_now().await;
        Err(io::Error::from(io::ErrorKind::ConnectionReset))
    };
    streamed(stream::iter([Ok(bytes.into())]).chain(stream::once(cut)))
}

/// The bytes, and then nothing more, and no end.
pub(crate) fn stalled(bytes: impl Into<Bytes>) -> Answer {
    streamed(stream::iter([Ok(bytes.into())]).chain(stream::pending()))
}

/// The bytes, and then more without end; `sent` counts them all.
pub(crate) fn endless(bytes: impl Into<Bytes>, sent: Arc<AtomicU64>) -> Answer {
    let filler = Bytes::from(vec![b'x'; 64 * 1024]);
    let more = stream::repeat_with(move || Ok(filler.clone()));
    streamed(stream::iter([Ok(bytes.into())]).chain(more).inspect(move |chunk: &io::Result<Bytes>| {
        sent.fetch_add(chunk.as_ref().unwrap().len() as u64, Ordering::SeqCst);
    }))
}

fn streamed(chunks: impl Stream<Item = io::Result<Bytes>> + Send + Sync + 'static) -> Answer {
    Response::new(BodyExt::boxed(StreamBody::new(chunks.map(|chunk| chunk.map(Frame::data)))))
}
