//! Requests that guests send.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use coracle_lifecycle::ContainerSpec;
use coracle_testing::conformance::Bench;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::client::{self, Served};
use crate::machine::{built, provider};

/// The servers that ask others when they are told to: of WASI 0.2 and 0.3.
const ASKERS: [&str; 2] = ["http-test-rust", "http-concurrent-rust"];

/// Such a server's container, in the machine's own network.
fn asker(bench: &Bench<'_>, folder: &Path, name: &str) -> ContainerSpec {
    let mut spec = client::spec(bench, &built(folder, name), &[]);
    spec.network.host = true;
    spec.network.addresses = vec![Ipv4Addr::LOCALHOST.into()];
    spec.ports[1].number = free_port();
    spec
}

fn free_port() -> u16 {
    coracle_testing::ports::free().unwrap()
}

async fn listener(address: impl Into<IpAddr>) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((address.into(), 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// What the next client says until its head ends.
async fn head(listener: &TcpListener) -> (TcpStream, SocketAddr, String) {
    let (mut stream, from) = listener.accept().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    (stream, from, String::from_utf8(head).unwrap())
}

async fn fetch(served: &Served, url: &str) -> String {
    served.text(&format!("/fetch?{url}")).await
}

#[tokio::test]
async fn a_guest_asks_and_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(folder.path());
    let bench = Bench::new(&provider, folder.path());
    for name in ASKERS {
        let served = client::start(&bench, asker(&bench, folder.path(), name)).await;
        let (listener, address) = listener(Ipv4Addr::LOCALHOST).await;
        let answering = async {
            let (mut stream, _, head) = head(&listener).await;
            stream.write_all(b"HTTP/1.1 203 Fine\r\ncontent-length: 6\r\n\r\nhello\n").await.unwrap();
            head.to_lowercase()
        };
        let url = format!("http://{address}/a/b%20c?d=e");
        let (answer, head) = tokio::join!(fetch(&served, &url), answering);
        assert_eq!(answer, "203 hello\n", "{name}");
        assert!(head.starts_with("get /a/b%20c?d=e http/1.1\r\n"), "{head}");
        assert_eq!(head.matches(&format!("\r\nhost: {address}\r\n")).count(), 1, "{head}");
    }
}

#[tokio::test]
async fn requests_leave_from_the_pods_address_and_do_not_reach_the_machines_loopback() {
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(folder.path());
    let bench = Bench::new(&provider, folder.path());
    for name in ASKERS {
        let spec = client::spec(&bench, &built(folder.path(), name), &[]);
        let pod = spec.network.addresses[0];
        let served = client::start(&bench, spec).await;
        let (own, address) = listener(pod).await;
        let answering = async {
            let (mut stream, from, _) = head(&own).await;
            stream.write_all(b"HTTP/1.1 204 Fine\r\n\r\n").await.unwrap();
            from.ip()
        };
        let url = format!("http://{address}/");
        let (answer, from) = tokio::join!(fetch(&served, &url), answering);
        assert_eq!((answer.as_str(), from), ("204 ", pod), "{name}");
        let (_machines, address) = listener(Ipv4Addr::LOCALHOST).await;
        let refused = fetch(&served, &format!("http://{address}/")).await;
        assert_eq!(refused, "ErrorCode::ConnectionRefused\n", "{name}");
    }
}

#[tokio::test]
async fn krustlets_annotations_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(folder.path());
    let bench = Bench::new(&provider, folder.path());
    for name in ASKERS {
        let mut spec = asker(&bench, folder.path(), name);
        for (annotation, value) in
            [("allowed-domains", r#"["http://127.0.0.1"]"#), ("max-concurrent-requests", "1")]
        {
            spec.annotations.insert(format!("alpha.wasi.krustlet.dev/{annotation}"), value.to_owned());
        }
        let served = client::start(&bench, spec).await;
        let denied = fetch(&served, "http://localhost/").await;
        assert_eq!(denied, "ErrorCode::HttpRequestDenied\n", "{name}");
        let (listener, address) = listener(Ipv4Addr::LOCALHOST).await;
        let url = format!("http://{address}/");
        let second = async {
            let (mut stream, ..) = head(&listener).await;
            let second = fetch(&served, &url).await;
            stream.write_all(b"HTTP/1.1 200 Fine\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            second
        };
        let (first, second) = tokio::join!(fetch(&served, &url), second);
        assert_eq!(
            (first.as_str(), second.as_str()),
            ("200 ", "ErrorCode::ConnectionLimitReached\n"),
            "{name}"
        );
    }
}

#[tokio::test]
async fn what_goes_wrong_on_the_way_is_told_to_the_guest() {
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(folder.path());
    let bench = Bench::new(&provider, folder.path());
    for name in ASKERS {
        let served = client::start(&bench, asker(&bench, folder.path(), name)).await;
        let nobody = format!("http://127.0.0.1:{}/", free_port());
        assert_eq!(fetch(&served, &nobody).await, "ErrorCode::ConnectionRefused\n", "{name}");
        let unknown = fetch(&served, "http://nobody.example/").await;
        assert!(unknown.starts_with("ErrorCode::DnsError"), "{name}: {unknown}");
        let (listener, address) = listener(Ipv4Addr::LOCALHOST).await;
        let plain = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"no TLS here").await.unwrap();
        };
        let url = format!("https://{address}/");
        let (answer, ()) = tokio::join!(fetch(&served, &url), plain);
        assert_eq!(answer, "ErrorCode::TlsProtocolError\n", "{name}");
        let half = async {
            let (mut stream, ..) = head(&listener).await;
            stream.write_all(b"HTTP/1.1 200 Fine\r\ncontent-length: 10\r\n\r\nhalf\n").await.unwrap();
        };
        let url = format!("http://{address}/");
        let (answer, ()) = tokio::join!(fetch(&served, &url), half);
        assert!(!answer.starts_with("200 half\n"), "{name}: half is told as the whole: {answer}");
        assert_eq!(served.text("/hello").await, "hello\n");
    }
}

/// A server with a certificate for 127.0.0.1 that answers one connection with the version it was asked in.
struct Secure {
    listener: TcpListener,
    url: String,
    acceptor: TlsAcceptor,
    certificate: String,
}

impl Secure {
    async fn speaking(protocols: &[&str]) -> Self {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.unwrap().with_no_client_auth();
        let mut config = config.with_single_cert(vec![made.cert.der().clone()], key).unwrap();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let (listener, address) = listener(Ipv4Addr::LOCALHOST).await;
        let (url, certificate) = (format!("https://{address}/"), made.cert.pem());
        Self { listener, url, acceptor: TlsAcceptor::from(Arc::new(config)), certificate }
    }

    async fn answer_one(&self) {
        let (stream, _) = self.listener.accept().await.unwrap();
        let Ok(stream) = self.acceptor.accept(stream).await else { return };
        let service = service_fn(async |request: http::Request<hyper::body::Incoming>| {
            let host = request.headers().contains_key("host");
            Ok::<_, std::convert::Infallible>(http::Response::new(format!("{:?} {host}", request.version())))
        });
        // The guest's connection ends with its request.
        let _ =
            auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
    }
}

#[tokio::test]
async fn https_is_spoken_in_both_versions_to_whom_the_container_trusts() {
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(folder.path());
    let bench = Bench::new(&provider, folder.path());
    for name in ASKERS {
        for (protocols, answer) in [
            (&["h2", "http/1.1"][..], "200 HTTP/2.0 false"),
            (&["http/1.1"], "200 HTTP/1.1 true"),
            (&[], "200 HTTP/1.1 true"),
        ] {
            let secure = Secure::speaking(protocols).await;
            let mut spec = asker(&bench, folder.path(), name);
            std::fs::write(spec.root.join("ca.pem"), &secure.certificate).unwrap();
            spec.env.push(("SSL_CERT_FILE".to_owned(), "/ca.pem".to_owned()));
            let served = client::start(&bench, spec).await;
            let (answered, ()) = tokio::join!(fetch(&served, &secure.url), secure.answer_one());
            assert_eq!(answered, answer, "{name} {protocols:?}");
        }
        let secure = Secure::speaking(&["h2"]).await;
        let stranger = client::start(&bench, asker(&bench, folder.path(), name)).await;
        let (refused, ()) = tokio::join!(fetch(&stranger, &secure.url), secure.answer_one());
        assert_eq!(refused, "ErrorCode::TlsCertificateError\n", "{name}");
    }
}

#[tokio::test]
async fn a_file_of_certificates_outside_the_container_is_out_of_reach() {
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(folder.path());
    let bench = Bench::new(&provider, folder.path());
    let secure = Secure::speaking(&[]).await;
    let outside = folder.path().join("outside.pem");
    std::fs::write(&outside, &secure.certificate).unwrap();
    let mut spec = asker(&bench, folder.path(), ASKERS[0]);
    std::os::unix::fs::symlink(&outside, spec.root.join("ca.pem")).unwrap();
    spec.env.push(("SSL_CERT_FILE".to_owned(), "/ca.pem".to_owned()));
    let served = client::start(&bench, spec).await;
    let (refused, ()) = tokio::join!(fetch(&served, &secure.url), async {
        let _ = secure.listener.accept().await.unwrap();
    });
    assert_eq!(refused, "ErrorCode::ConfigurationError\n");
}
