//! Clients that are too many, stay without a word, leave in the middle, or send without end: their pod's business alone.

use std::net::SocketAddr;
use std::time::Duration;

use coracle_lifecycle::{Cause, ContainerSpec};
use coracle_testing::conformance::{Bench, exit_of};
use coracle_wasi_provider::raise_descriptor_limit;
use futures::future::join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::client::{self, IMPATIENT, Served, ensure_well, serve};
use crate::machine::{built, provider};

const KINDS: [&str; 2] = ["http-test-rust", "http-concurrent-rust"];

/// Waits until no instance has any memory.
async fn at_rest(served: &Served) {
    while served.container.usage().await.memory > 0 {
        tokio::task::yield_now().await;
    }
}

/// That many hundred connections, as far as they can be had.
async fn crowd(address: SocketAddr, hundreds: usize) -> Vec<TcpStream> {
    let mut crowd = Vec::new();
    for _ in 0..hundreds {
        let some = (0..100).map(|_| TcpStream::connect(address));
        crowd.extend(join_all(some).await.into_iter().flatten());
    }
    crowd
}

#[tokio::test]
async fn nothing_is_left_of_clients_that_leave_in_the_middle() {
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(folder.path());
    let bench = Bench::new(&provider, folder.path());
    for name in KINDS {
        let served = serve(&bench, &built(folder.path(), name), &[IMPATIENT]).await;
        for words in [
            "GET /hel",
            "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\nsome",
            "POST /hello HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhel",
            "GET /never HTTP/1.1\r\nhost: a\r\n\r\n",
            "GET /half HTTP/1.1\r\nhost: a\r\n\r\n",
        ] {
            let mut leaving: Vec<TcpStream> = join_all((0..20).map(|_| served.connect())).await;
            for client in &mut leaving {
                client.write_all(words.as_bytes()).await.unwrap();
            }
            let ((), ()) = tokio::join!(ensure_well(&served), async { drop(leaving) });
        }
        at_rest(&served).await;
        ensure_well(&served).await;
    }
    let served = serve(&bench, &built(folder.path(), KINDS[0]), &[]).await;
    let mut leaving = served.connect().await;
    leaving.write_all(b"GET /zeros?1000000000 HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    leaving.read_exact(&mut vec![0; 100_000]).await.unwrap();
    drop(leaving);
    at_rest(&served).await;
    ensure_well(&served).await;
}

#[tokio::test]
async fn a_gigabyte_that_the_guest_does_not_read_stays_with_its_client() {
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(folder.path());
    let bench = Bench::new(&provider, folder.path());
    for name in KINDS {
        let served = serve(&bench, &built(folder.path(), name), &[("max-body", "2Gi")]).await;
        for target in ["/hello", "/sleep?300"] {
            let (mut from, mut to) = served.connect().await.into_split();
            let head = format!("POST {target} HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", 1 << 30);
            to.write_all(head.as_bytes()).await.unwrap();
            let sending = async {
                let (piece, mut sent) = (vec![0; 1 << 20], 0_usize);
                while sent < 1 << 30 && to.write_all(&piece).await.is_ok() {
                    sent += piece.len();
                }
                sent
            };
            let mut answer = Vec::new();
            let (sent, _) = tokio::join!(sending, from.read_to_end(&mut answer));
            let answer = String::from_utf8_lossy(&answer);
            assert!(answer.starts_with("HTTP/1.1 200 "), "{name} {target}: {answer}");
            assert!(sent < 64 << 20, "{name} {target}: {sent} bytes were taken");
        }
        ensure_well(&served).await;
    }
}

#[tokio::test]
async fn silent_connections_to_one_server_hurt_no_other() {
    raise_descriptor_limit();
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(folder.path());
    let bench = Bench::new(&provider, folder.path());
    let image = built(folder.path(), KINDS[0]);
    let (busy, other) = (serve(&bench, &image, &[]).await, serve(&bench, &image, &[]).await);
    let silent = crowd(busy.address, 20).await;
    ensure_well(&other).await;
    // One more is told, or turned away.
    let refused = busy.get("/hello").await;
    assert!(matches!(refused.status, 503 | 0), "{refused:?}");
    drop(silent);
    while busy.get("/hello").await.status != 200 {
        tokio::task::yield_now().await;
    }
}

/// A server that sends back what it gets, and where.
fn echo(bench: &Bench<'_>, folder: &std::path::Path, name: &str) -> (ContainerSpec, SocketAddr) {
    let mut spec = client::spec(bench, &built(folder, name), &[]);
    spec.network.shared = true;
    let address = SocketAddr::new(spec.network.addresses[0], spec.ports[1].number);
    if name == "command-concurrent-rust" {
        spec.args = vec!["echo".to_owned(), format!("0.0.0.0:{}", address.port())];
    }
    (spec, address)
}

/// Connects as soon as somebody listens.
async fn connect(address: SocketAddr) -> TcpStream {
    loop {
        match TcpStream::connect(address).await {
            Ok(stream) => return stream,
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

async fn exchange(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut answer = [0; 5];
    let exchanged = async {
        stream.write_all(b"hello").await?;
        stream.read_exact(&mut answer).await
    };
    tokio::time::timeout(Duration::from_mins(1), exchanged).await.unwrap()?;
    assert_eq!(&answer, b"hello");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_sockets_of_its_own_has_no_more_connections_than_its_share() {
    raise_descriptor_limit();
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(folder.path());
    let bench = Bench::new(&provider, folder.path());
    let other = serve(&bench, &built(folder.path(), KINDS[0]), &[]).await;
    for name in ["tcp-echo-go", "command-concurrent-rust"] {
        let (spec, address) = echo(&bench, folder.path(), name);
        let container = bench.start(spec).await;
        let mut first = connect(address).await;
        exchange(&mut first).await.unwrap();
        let silent = crowd(address, 25).await;
        ensure_well(&other).await;
        exchange(&mut first).await.unwrap();
        drop(silent);
        exchange(&mut first).await.unwrap();
        // There is room again as soon as the guest has seen that they are gone.
        while exchange(&mut connect(address).await).await.is_err() {}
        container.stop(Duration::ZERO);
        assert_eq!(exit_of(&*container).await.cause, Cause::Killed, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_makes_sockets_without_end_has_its_share_and_gives_it_back() {
    raise_descriptor_limit();
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(folder.path());
    let bench = Bench::new(&provider, folder.path());
    let other = serve(&bench, &built(folder.path(), KINDS[0]), &[]).await;
    for name in KINDS {
        let greedy = serve(&bench, &built(folder.path(), name), &[]).await;
        let first: usize = greedy.text("/sockets").await.trim().parse().unwrap();
        assert!((1..10_001).contains(&first), "{name}: {first}");
        ensure_well(&other).await;
        assert_eq!(greedy.text("/sockets").await.trim().parse(), Ok(first), "{name}");
    }
}
