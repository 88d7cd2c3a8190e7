use std::net::Ipv4Addr;
use std::path::Path;

use hyper::{Request, Response};
use k8s_openapi::api::core::v1::PodStatus;
use kube::Client;
use kube::client::Body;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair,
};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::{Layout, PodDirectory, PodView};
use coracle_lifecycle::PodUid;

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A server on loopback, with one running pod whose log lies in a temporary directory.
struct Scene {
    address: SocketAddr,
    authority: Authority,
    /// The certificate the server shows.
    serving: rustls::pki_types::CertificateDer<'static>,
    root: tempfile::TempDir,
    status: watch::Sender<Arc<PodStatus>>,
    shutdown: CancellationToken,
    tasks: JoinSet<()>,
}

fn status() -> Arc<PodStatus> {
    let running = json!({ "name": "c", "image": "", "imageID": "", "state": { "running": {} }, "containerID": "r://u_c_0" });
    Arc::new(serde_json::from_value(json!({ "containerStatuses": [running] })).unwrap())
}

/// An API server that allows everybody but `denied`.
async fn allow(mut handle: tower_test::mock::Handle<Request<Body>, Response<Body>>) {
    while let Some((request, reply)) = handle.next_request().await {
        let body = request.into_body().collect_bytes().await.unwrap();
        let mut review: Value = serde_json::from_slice(&body).unwrap();
        review["status"] = json!({ "allowed": review["spec"]["user"] != "denied" });
        reply.send_response(Response::new(Body::from(review.to_string().into_bytes())));
    }
}

impl Scene {
    async fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let (pods, status) = (PodDirectory::default(), watch::channel(status()).0);
        let pod = json!({
            "metadata": { "name": "p", "namespace": "n", "uid": "u" },
            "spec": { "containers": [{ "name": "c" }] },
        });
        let pod = Arc::new(serde_json::from_value(pod).unwrap());
        pods.insert(PodUid::new("u"), PodView { pod, status: status.subscribe() });
        let directory = root.path().join("logs/n_p_u/c");
        std::fs::create_dir_all(&directory).unwrap();
        write(&directory, "one\n");

        let authority = authority();
        let certificate = ServingCertificate::self_signed("n1", &[Ipv4Addr::LOCALHOST.into()]).unwrap();
        let serving = certificate.first().clone();
        let tls =
            server_config(certificate, ClientAuthorities::from_der([authority.der().to_vec()]).unwrap())
                .unwrap();
        let (service, handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
        let gate = Gate::new(Client::new(service, "default"), "n1");
        let server = Server::bind((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
        let (address, shutdown) = (server.address(), CancellationToken::new());
        let logs = Logs::new(pods.clone(), Layout::new(root.path()));
        let figures = Stats::new("n1", root.path(), root.path(), pods);
        let mut tasks = JoinSet::new();
        tasks.spawn(allow(handle));
        tasks.spawn(server.serve(tls, gate, (logs, figures), shutdown.clone()));
        Self { address, authority, serving, root, status, shutdown, tasks }
    }

    fn log(&self) -> std::path::PathBuf {
        self.root.path().join("logs/n_p_u/c")
    }

    /// A connection of a client with this common name, or of nobody.
    async fn connect(&self, issuer: &Authority, name: Option<&str>) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.serving.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(roots);
        let config = match name {
            Some(name) => {
                let mut params = CertificateParams::default();
                params.distinguished_name = DistinguishedName::new();
                params.distinguished_name.push(DnType::CommonName, name);
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
                let key = KeyPair::generate().unwrap();
                let certificate = params.signed_by(&key, issuer).unwrap();
                let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
                builder.with_client_auth_cert(vec![certificate.der().clone()], key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from(self.address.ip().to_string()).unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// The whole answer to one request.
    async fn ask(&self, name: Option<&str>, request: &str) -> String {
        let mut stream = self.connect(&self.authority, name).await.unwrap();
        send(&mut stream, request).await;
        read_to_end(&mut stream).await
    }
}

fn write(directory: &Path, text: &str) {
    use std::io::Write;
    let mut file =
        std::fs::OpenOptions::new().create(true).append(true).open(directory.join("0.log")).unwrap();
    for line in text.lines() {
        writeln!(file, "2026-11-21T10:00:00Z stdout F {line}").unwrap();
    }
}

async fn send(stream: &mut TlsStream<TcpStream>, request: &str) {
    let text = format!("{request} HTTP/1.1\r\nhost: n1\r\nconnection: close\r\n\r\n");
    stream.write_all(text.as_bytes()).await.unwrap();
}

/// What comes until the end; a missing `close_notify` is an ordinary end.
async fn read_to_end(stream: &mut TlsStream<TcpStream>) -> String {
    let mut answer = Vec::new();
    let _ = timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await.expect("an end");
    String::from_utf8(answer).unwrap()
}

async fn read_until(stream: &mut TlsStream<TcpStream>, part: &str) -> String {
    let mut answer = Vec::new();
    while !String::from_utf8_lossy(&answer).contains(part) {
        let read = timeout(Duration::from_secs(20), stream.read_buf(&mut answer)).await;
        assert!(read.expect(part).unwrap() > 0, "{part} in {}", String::from_utf8_lossy(&answer));
    }
    String::from_utf8(answer).unwrap()
}

#[track_caller]
fn check(answer: &str, code: u16, body: &str) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {code} ")), "{answer}");
    assert!(answer.ends_with(&format!("\r\n\r\n{body}")), "{answer}");
}

#[tokio::test]
async fn no_certificate_no_answer() {
    let scene = Scene::new().await;
    for path in ["/healthz", "/metrics", "/containerLogs/n/p/c", "/unknown"] {
        check(&scene.ask(None, &format!("GET {path}")).await, 401, "Unauthorized");
    }
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused() {
    let scene = Scene::new().await;
    let refused = match scene.connect(&authority(), Some("u")).await {
        Err(_) => true,
        // With TLS 1.3 the client learns of it when it first reads.
        Ok(mut stream) => {
            let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: n1\r\n\r\n").await;
            stream.read(&mut [0; 1]).await.is_err()
        }
    };
    assert!(refused);
}

#[tokio::test]
async fn the_api_server_has_the_last_word() {
    let scene = Scene::new().await;
    let text = "Forbidden (user=denied, verb=get, resource=nodes, subresource(s)=[healthz proxy])";
    check(&scene.ask(Some("denied"), "GET /healthz").await, 403, text);
}

#[tokio::test]
async fn the_known_are_answered() {
    let scene = Scene::new().await;
    check(&scene.ask(Some("u"), "GET /healthz").await, 200, "ok");
    let metrics = scene.ask(Some("u"), "GET /metrics").await;
    assert!(metrics.contains("\r\ncontent-type: application/openmetrics-text; version=1.0.0"), "{metrics}");
    assert!(metrics.contains("\nkubelet_pod_start_duration_seconds_count 0\n"), "{metrics}");
    check(&scene.ask(Some("u"), "GET /unknown").await, 404, "404 page not found");
    check(&scene.ask(Some("u"), "POST /healthz").await, 405, "405: Method Not Allowed");
    let logs = |path: &str| format!("GET /containerLogs/{path}");
    let answer = scene.ask(Some("u"), &logs("n/p/c")).await;
    assert!(answer.contains("transfer-encoding: chunked") && answer.contains("one\n"), "{answer}");
    check(&scene.ask(Some("u"), &logs("n/x/c")).await, 404, r#"pod "x" does not exist"#);
    check(&scene.ask(Some("u"), &logs("n/p/x")).await, 404, r#"container "x" not found in pod "p""#);
    let previous = r#"previous terminated container "c" in pod "p" not found"#;
    check(&scene.ask(Some("u"), &logs("n/p/c?previous=true")).await, 400, previous);
    let invalid = r#"{"message": "Invalid request."}"#;
    check(
        &scene.ask(Some("u"), &logs("n/p/c?sinceSeconds=1&sinceTime=2026-11-21T10:00:00Z")).await,
        422,
        invalid,
    );
    let undecodable = r#"{"message": "Unable to decode query."}"#;
    check(&scene.ask(Some("u"), &logs("n/p/c?tailLines=x")).await, 400, undecodable);
    let answer = scene.ask(Some("u"), &logs("n/p/c?tailLines=9223372036854775807")).await;
    assert!(answer.contains("one\n"), "{answer}");
}

#[tokio::test]
async fn a_followed_log_begins_at_once_and_ends_when_the_pod_is_gone() {
    let scene = Scene::new().await;
    let mut stream = scene.connect(&scene.authority, Some("u")).await.unwrap();
    send(&mut stream, "GET /containerLogs/n/p/c?follow=true&tailLines=0").await;
    read_until(&mut stream, "\r\n\r\n").await;
    write(&scene.log(), "two\n");
    read_until(&mut stream, "two\n").await;
    let Scene { status, .. } = scene;
    drop(status);
    assert!(read_to_end(&mut stream).await.ends_with("0\r\n\r\n"));
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_stream() {
    let scene = Scene::new().await;
    let mut stream = scene.connect(&scene.authority, Some("u")).await.unwrap();
    send(&mut stream, "GET /containerLogs/n/p/c?follow=true").await;
    read_until(&mut stream, "one\n").await;
    assert_eq!(scene.status.receiver_count(), 2);
    drop(stream);
    // The directory keeps one receiver, the stream held the other.
    let left = async {
        while scene.status.receiver_count() > 1 {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(20), left).await.expect("the stream is dropped");
}

#[tokio::test]
async fn streams_do_not_delay_the_shutdown() {
    let mut scene = Scene::new().await;
    let mut stream = scene.connect(&scene.authority, Some("u")).await.unwrap();
    send(&mut stream, "GET /containerLogs/n/p/c?follow=true").await;
    read_until(&mut stream, "one\n").await;
    scene.shutdown.cancel();
    timeout(Duration::from_secs(20), scene.tasks.join_next())
        .await
        .expect("the server ends")
        .unwrap()
        .unwrap();
    assert!(TcpStream::connect(scene.address).await.is_err(), "the port is free");
}

#[tokio::test]
async fn a_head_beyond_the_limit_is_refused() {
    let scene = Scene::new().await;
    let mut stream = scene.connect(&scene.authority, Some("u")).await.unwrap();
    let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nx: ").await;
    let filler = vec![b'x'; 64 << 10];
    for _ in 0..40 {
        if stream.write_all(&filler).await.is_err() {
            break;
        }
    }
    let answer = read_to_end(&mut stream).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let first = Server::bind((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
    let error = Server::bind(first.address()).await.err().unwrap();
    assert_eq!(error.to_string(), format!("cannot listen on {}", first.address()));
}
