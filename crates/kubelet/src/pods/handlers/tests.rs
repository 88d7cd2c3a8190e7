use std::time::Duration;

use bytes::Bytes;
use coracle_lifecycle::{Endpoint, Handler, HttpGet};
use hyper::header::HeaderMap;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::{Handlers, HookError, Outcome};

/// No answer that comes takes longer, however slow the machine.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long an answer is waited for that does not come.
const MOMENT: Duration = Duration::from_secs(1);

/// A server on the loopback: it lives as long as this.
struct Server {
    endpoint: Endpoint,
    requests: mpsc::UnboundedReceiver<String>,
    _tasks: JoinSet<()>,
}

async fn listen() -> (TcpListener, Endpoint) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, Endpoint { host: "127.0.0.1".to_owned(), port })
}

/// The head of a request, in lower case.
async fn head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            // The hello of TLS: the rest of it is here too.
            Ok(0x16) if text.is_empty() => {
                let _ = stream.read(&mut [0; 8192]).await;
                break;
            }
            Ok(byte) => text.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&text).to_lowercase()
}

/// Gives one of these answers after the other, each on a connection of its own, and the last one for ever.
async fn answering(answers: &[&str]) -> Server {
    let (listener, endpoint) = listen().await;
    let (told, requests) = mpsc::unbounded_channel();
    let answers: Vec<String> = answers.iter().map(ToString::to_string).collect();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        for number in 0.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = told.send(head(&mut stream).await);
            let answer = answers.get(number).or(answers.last()).unwrap();
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    Server { endpoint, requests, _tasks: tasks }
}

fn get(endpoint: &Endpoint, tls: bool) -> HttpGet {
    HttpGet { tls, endpoint: endpoint.clone(), path: "/health".to_owned(), headers: Vec::new() }
}

async fn probe(handler: Handler) -> Outcome {
    Handlers::new().probe(&Ok(handler).into(), &None, PATIENCE).await
}

async fn probe_shortly(handler: Handler) -> Outcome {
    Handlers::new().probe(&Ok(handler).into(), &None, MOMENT).await
}

/// What a probe of an HTTP server says that gives these answers.
async fn probe_http(answers: &[&str]) -> Outcome {
    let server = answering(answers).await;
    probe(Handler::Http(get(&server.endpoint, false))).await
}

fn bad(text: &str) -> Outcome {
    Outcome::Bad(text.to_owned())
}

#[tokio::test]
async fn codes_from_200_to_399_are_good() {
    for code in [200, 204, 299] {
        let answer = format!("HTTP/1.1 {code} X\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(probe_http(&[&answer]).await, Outcome::Good, "{code}");
    }
    for code in [400, 404, 500, 599] {
        let answer = format!("HTTP/1.1 {code} X\r\ncontent-length: 0\r\n\r\n");
        let expected = format!("HTTP probe failed with statuscode: {code}");
        assert_eq!(probe_http(&[&answer]).await, Outcome::Bad(expected), "{code}");
    }
}

#[tokio::test]
async fn redirects_are_followed_on_the_same_host_only() {
    let next = "HTTP/1.1 302 Found\r\nlocation: /next?a=b\r\ncontent-length: 0\r\n\r\n";
    let fine = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    let mut server = answering(&[next, fine]).await;
    assert_eq!(probe(Handler::Http(get(&server.endpoint, false))).await, Outcome::Good);
    assert!(server.requests.recv().await.unwrap().starts_with("get /health http/1.1\r\n"));
    assert!(server.requests.recv().await.unwrap().starts_with("get /next?a=b http/1.1\r\n"));

    let away = "HTTP/1.1 301 Moved\r\nlocation: http://elsewhere.invalid/\r\ncontent-length: 5\r\n\r\nmoved";
    let expected = "Probe terminated redirects, Response body: moved";
    assert_eq!(probe_http(&[away]).await, Outcome::Warned(expected.to_owned()));
    let nowhere = "HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n";
    let expected = "Probe terminated redirects, Response body: ";
    assert_eq!(probe_http(&[nowhere]).await, Outcome::Warned(expected.to_owned()));

    let endless = answering(&[next]).await;
    let expected = format!("Get \"http://{}/next?a=b\": stopped after 10 redirects", endless.endpoint);
    assert_eq!(probe(Handler::Http(get(&endless.endpoint, false))).await, Outcome::Bad(expected));
}

#[tokio::test]
async fn a_request_is_a_kubelets() {
    let mut server = answering(&["HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"]).await;
    let usual = get(&server.endpoint, false);
    assert_eq!(probe(Handler::Http(usual.clone())).await, Outcome::Good);
    let request = server.requests.recv().await.unwrap();
    for line in ["user-agent: kube-probe/1.36", "accept: */*", "connection: close"] {
        assert!(request.contains(&format!("\r\n{line}\r\n")), "{request}");
    }
    assert!(request.contains(&format!("\r\nhost: {}\r\n", server.endpoint)), "{request}");

    let headers = [("Host", "web.example"), ("User-Agent", ""), ("X-Twice", "1"), ("X-Twice", "2")];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let own = HttpGet { path: "/a b?c=d#e".to_owned(), headers, ..usual };
    assert_eq!(probe(Handler::Http(own)).await, Outcome::Good);
    let request = server.requests.recv().await.unwrap();
    assert!(request.starts_with("get /a%20b?c=d http/1.1\r\n"), "{request}");
    assert!(request.contains("\r\nhost: web.example\r\n") && !request.contains("user-agent"), "{request}");
    assert_eq!(request.matches("\r\nx-twice: ").count(), 2, "{request}");
}

#[tokio::test]
async fn what_is_no_answer_is_told_in_the_words_of_a_kubelet() {
    let (closed, endpoint) = listen().await;
    drop(closed);
    let refused = format!("dial tcp {endpoint}: connect: connection refused");
    assert_eq!(probe(Handler::Tcp(endpoint.clone())).await, Outcome::Bad(refused.clone()));
    let expected = format!("Get \"http://{endpoint}/health\": {refused}");
    assert_eq!(probe(Handler::Http(get(&endpoint, false))).await, Outcome::Bad(expected));

    let (silent, endpoint) = listen().await;
    assert_eq!(probe(Handler::Tcp(endpoint.clone())).await, Outcome::Good);
    let expected = format!(
        "Get \"http://{endpoint}/health\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
    );
    assert_eq!(probe_shortly(Handler::Http(get(&endpoint, false))).await, Outcome::Bad(expected));
    drop(silent);

    for (answer, end) in [("", ": EOF"), ("garbage\r\n\r\n", "malformed HTTP response")] {
        let outcome = probe_http(&[answer]).await;
        assert!(matches!(&outcome, Outcome::Bad(text) if text.ends_with(end)), "{outcome:?}");
    }
}

#[tokio::test]
async fn an_endless_answer_is_not_read_to_its_end() {
    let (listener, endpoint) = listen().await;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
    });
    assert_eq!(probe(Handler::Http(get(&endpoint, false))).await, Outcome::Good);
    tasks.join_next().await.unwrap().unwrap();
}

fn acceptor() -> TlsAcceptor {
    let issued = rcgen::generate_simple_self_signed(["elsewhere.example".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(issued.signing_key.serialize_der()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![issued.cert.der().clone()], key)
        .unwrap();
    TlsAcceptor::from(std::sync::Arc::new(config))
}

#[tokio::test]
async fn nobody_vouches_for_a_server_that_is_probed() {
    let (listener, endpoint) = listen().await;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = acceptor().accept(stream).await.unwrap();
        head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        stream.flush().await.unwrap();
    });
    assert_eq!(probe(Handler::Http(get(&endpoint, true))).await, Outcome::Good);
}

#[tokio::test]
async fn a_hook_by_https_falls_back_to_http() {
    let plain = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
    let mut server = answering(&[plain]).await;
    let header = |name: &str| (name.to_owned(), "x".to_owned());
    let wanted =
        HttpGet { headers: vec![header("Authorization"), header("X-Other")], ..get(&server.endpoint, true) };
    let handlers = Handlers::new();
    let fell_back = handlers.hook(&Handler::Http(wanted), &None).await.unwrap();
    assert_eq!(fell_back, Some(server.endpoint.clone()));
    server.requests.recv().await.unwrap();
    let request = server.requests.recv().await.unwrap();
    assert!(request.contains("x-other: x") && !request.contains("authorization"), "{request}");
    assert!(request.contains("user-agent: kube-lifecycle/1.36"), "{request}");
}

#[tokio::test]
async fn a_hook_takes_any_answer_and_no_silence() {
    let handlers = Handlers::new();
    let server = answering(&["HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n"]).await;
    let hook = Handler::Http(get(&server.endpoint, false));
    assert_eq!(handlers.hook(&hook, &None).await.unwrap(), None);
    let (closed, endpoint) = listen().await;
    drop(closed);
    let failed = handlers.hook(&Handler::Http(get(&endpoint, false)), &None).await;
    assert!(
        matches!(failed, Err(HookError::Http(error)) if error.to_string().contains("connection refused"))
    );
    assert!(handlers.hook(&Handler::Tcp(endpoint), &None).await.is_err());
}

/// How a server of the health protocol answers.
#[derive(Clone, Copy)]
enum Health {
    Status(u8),
    Code(&'static str),
    Garbage,
    Nothing,
}

async fn serve_health(stream: impl AsyncRead + AsyncWrite + Unpin, health: Health) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    let mut unanswered = Vec::new();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
        assert_eq!(request.headers()["content-type"], "application/grpc");
        let head = hyper::Response::builder().header("content-type", "application/grpc");
        let (bytes, code) = match health {
            Health::Nothing => {
                unanswered.push(respond);
                continue;
            }
            Health::Code(code) => {
                let head = head.header("grpc-status", code).header("grpc-message", "why");
                respond.send_response(head.body(()).unwrap(), true).unwrap();
                continue;
            }
            Health::Status(status) => (vec![0, 0, 0, 0, 2, 8, status], "0"),
            Health::Garbage => (vec![7; 3], "0"),
        };
        let mut body = respond.send_response(head.body(()).unwrap(), false).unwrap();
        body.send_data(Bytes::from(bytes), false).unwrap();
        let trailers =
            [("grpc-status", code)].map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        body.send_trailers(HeaderMap::from_iter(trailers)).unwrap();
    }
}

async fn probe_health(health: Health) -> Outcome {
    let (listener, endpoint) = listen().await;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        serve_health(stream, health).await;
    });
    let handler = Handler::Grpc { endpoint, service: "s".to_owned() };
    if matches!(health, Health::Nothing) { probe_shortly(handler).await } else { probe(handler).await }
}

#[tokio::test]
async fn a_service_says_itself_how_it_is() {
    assert_eq!(probe_health(Health::Status(1)).await, Outcome::Good);
    let expected = bad("service unhealthy (responded with \"NOT_SERVING\")");
    assert_eq!(probe_health(Health::Status(2)).await, expected);
    let expected =
        bad("error: this server does not implement the grpc health protocol (grpc.health.v1.Health): why");
    assert_eq!(probe_health(Health::Code("12")).await, expected);
    let expected = bad("error: health rpc probe failed: rpc error: code = NotFound desc = why");
    assert_eq!(probe_health(Health::Code("5")).await, expected);
    let expected =
        bad("error: health rpc probe failed: rpc error: code = Internal desc = not a health status");
    assert_eq!(probe_health(Health::Garbage).await, expected);
    assert_eq!(probe_health(Health::Nothing).await, bad("timeout: health rpc did not complete within 1s"));
}

#[tokio::test]
async fn a_server_that_does_not_listen_has_no_healthy_service() {
    let (closed, endpoint) = listen().await;
    drop(closed);
    let expected = format!(
        "error: failed to connect service at \"{endpoint}\": connection error: desc = \"transport: error while dialing: dial tcp {endpoint}: connect: connection refused\""
    );
    let outcome = probe(Handler::Grpc { endpoint, service: String::new() }).await;
    assert_eq!(outcome, Outcome::Bad(expected));
}

/// Says this again and again on the first connection, after a client has begun to speak.
async fn repeating(beginning: &'static [u8], again: &'static [u8], pause: Duration) -> Server {
    let (listener, endpoint) = listen().await;
    let (_told, requests) = mpsc::unbounded_channel();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 1024]).await;
        let _ = stream.write_all(beginning).await;
        while stream.write_all(again).await.is_ok() {
            tokio::time::sleep(pause).await;
        }
    });
    Server { endpoint, requests, _tasks: tasks }
}

#[tokio::test]
async fn an_answer_that_trickles_is_given_up() {
    let pause = Duration::from_millis(100);
    for (beginning, again) in [(&b"HTTP/1.1 200 OK\r\n"[..], &b"a"[..]), (b"HTTP/1.1 200 OK\r\n\r\n", b"a")] {
        let server = repeating(beginning, again, pause).await;
        let began = tokio::time::Instant::now();
        let outcome = probe_shortly(Handler::Http(get(&server.endpoint, false))).await;
        assert!(matches!(&outcome, Outcome::Bad(text) if text.contains("deadline exceeded")), "{outcome:?}");
        assert!(began.elapsed() < MOMENT * 20);
    }
}

#[tokio::test]
async fn garbage_in_the_place_of_tls_or_grpc_is_no_answer() {
    let garbage = &[0xfe; 512];
    let server = repeating(garbage, garbage, Duration::ZERO).await;
    let outcome = probe(Handler::Http(get(&server.endpoint, true))).await;
    assert!(matches!(outcome, Outcome::Bad(_)), "{outcome:?}");
    let server = repeating(garbage, garbage, Duration::ZERO).await;
    let handler = Handler::Grpc { endpoint: server.endpoint.clone(), service: String::new() };
    let outcome = probe(handler).await;
    assert!(matches!(&outcome, Outcome::Bad(text) if text.starts_with("error: health rpc")), "{outcome:?}");
    let (silent, endpoint) = listen().await;
    for handler in [Handler::Http(get(&endpoint, true)), Handler::Grpc { endpoint, service: String::new() }] {
        assert!(matches!(probe_shortly(handler).await, Outcome::Bad(_)));
    }
    drop(silent);
}
