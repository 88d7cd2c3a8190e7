//! How connections come into a container: by sockets that a wasip1 module finds open, or by a component's own; and how
//! those inside are treated when it is stopped.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use coracle_lifecycle::{Cause, Container, ContainerSpec, Provider as _, StartError};
use coracle_testing::conformance::{Bench, exit_of};

use crate::client;
use crate::machine;

const GRACE: Duration = Duration::from_secs(30);
/// A server as a module, and as a component.
const SERVERS: [&str; 2] = ["net-rust", "net-rust-p2"];

/// A server that sends back what it gets, and its only TCP port.
fn spec(bench: &Bench<'_>, folder: &Path, name: &str) -> (ContainerSpec, SocketAddr) {
    let mut spec = client::spec(bench, &machine::built(folder, name), &[]);
    spec.network.shared = true;
    let address = SocketAddr::new(spec.network.addresses[0], spec.ports[1].number);
    spec.args = vec!["echo".to_owned(), format!("0.0.0.0:{}", address.port())];
    (spec, address)
}

async fn start(bench: &Bench<'_>, spec: &ContainerSpec) -> Arc<dyn Container> {
    let container = bench.start(spec.clone()).await;
    let log = || std::fs::read_to_string(&spec.log.path).unwrap_or_default();
    while !log().contains("listening") {
        let ended = tokio::time::timeout(Duration::from_millis(5), container.exited()).await;
        assert!(ended.is_err(), "{ended:?}: {}", log());
    }
    container
}

/// Has a word sent back; the other side's threads are others.
fn exchange(stream: &mut TcpStream, word: &str) {
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(word.as_bytes()).unwrap();
    let mut answer = vec![0; word.len()];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, word.as_bytes());
}

/// Waits until whoever comes is refused; the other side's threads are others.
fn closed(address: SocketAddr) {
    let began = Instant::now();
    let refused = loop {
        match TcpStream::connect_timeout(&address, GRACE) {
            Ok(_) => assert!(began.elapsed() < GRACE, "{address} is still open"),
            Err(error) => break error,
        }
    };
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{address}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_finds_its_declared_ports_open() {
    let folder = tempfile::tempdir().unwrap();
    let provider = machine::provider(folder.path());
    let bench = Bench::new(&provider, folder.path());
    let (spec, address) = spec(&bench, folder.path(), "net-rust");
    let container = start(&bench, &spec).await;
    for word in ["one", "other"] {
        exchange(&mut TcpStream::connect(address).unwrap(), word);
    }
    TcpStream::connect(address).unwrap().write_all(b"quit").unwrap();
    assert_eq!(exit_of(&*container).await.cause, Cause::Exited(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_is_told_how_many_sockets_it_has_and_what_they_are_called() {
    let folder = tempfile::tempdir().unwrap();
    let provider = machine::provider(folder.path());
    let bench = Bench::new(&provider, folder.path());
    let mut spec = client::spec(&bench, &machine::built(folder.path(), "env-rust"), &[]);
    spec.network.shared = true;
    let mut unnamed = spec.ports[1].clone();
    (unnamed.name, unnamed.number) = (None, 9);
    spec.ports.push(unnamed);
    let (exit, text) = bench.run(spec).await;
    assert_eq!(exit.cause, Cause::Exited(0));
    // The UDP port that it declares too is none of them.
    assert!(text.contains("env LISTEN_FDNAMES=web:unknown\nenv LISTEN_FDS=2\n"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_still_finds_its_directories() {
    let folder = tempfile::tempdir().unwrap();
    let provider = machine::provider(folder.path());
    let bench = Bench::new(&provider, folder.path());
    let mut spec = client::spec(&bench, &machine::built(folder.path(), "files-rust"), &[]);
    spec.args = vec!["/known".to_owned()];
    spec.network.shared = true;
    std::fs::write(spec.root.join("known"), "content").unwrap();
    let (exit, text) = bench.run(spec).await;
    assert_eq!((exit.cause, text.as_str()), (Cause::Exited(0), "file /known\ncontent\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_go_module_serves_many_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let provider = machine::provider(folder.path());
    let bench = Bench::new(&provider, folder.path());
    let (mut spec, address) = spec(&bench, folder.path(), "tcp-echo-go");
    spec.args.clear();
    let container = start(&bench, &spec).await;
    let mut clients: Vec<_> = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
    for round in 0..3 {
        for (number, client) in clients.iter_mut().enumerate() {
            exchange(client, &format!("{round} {number}"));
        }
    }
    drop(clients);
    container.stop(GRACE);
    assert_eq!(exit_of(&*container).await.cause, Cause::Stopped);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let provider = machine::provider(folder.path());
    let bench = Bench::new(&provider, folder.path());
    let (spec, address) = spec(&bench, folder.path(), "net-rust");
    let _taken = TcpListener::bind(address).unwrap();
    provider.prepare(&spec.image).await.unwrap();
    let Err(StartError::Failed(why)) = provider.start(spec).await else { panic!("it has started") };
    let named = format!("cannot listen on address {}, port {}: ", address.ip(), address.port());
    assert!(why.starts_with(&named), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_inside_when_a_server_is_stopped_is_served_to_the_end_and_nobody_comes_after() {
    let folder = tempfile::tempdir().unwrap();
    let provider = machine::provider(folder.path());
    let bench = Bench::new(&provider, folder.path());
    for name in SERVERS {
        let (spec, address) = spec(&bench, folder.path(), name);
        let container = start(&bench, &spec).await;
        let mut inside = TcpStream::connect(address).unwrap();
        exchange(&mut inside, "before");
        // Connected, but not accepted: the server has one client at a time.
        let mut queued = TcpStream::connect(address).unwrap();
        container.stop(GRACE);
        closed(address);
        exchange(&mut inside, "after");
        drop(inside);
        exchange(&mut queued, "queued");
        let running = tokio::time::timeout(Duration::from_millis(50), container.exited()).await;
        assert!(running.is_err(), "{name}: {running:?}");
        drop(queued);
        assert_eq!(exit_of(&*container).await.cause, Cause::Stopped, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_nobody_inside_ends_at_once_and_one_with_somebody_after_its_grace() {
    let folder = tempfile::tempdir().unwrap();
    let provider = machine::provider(folder.path());
    let bench = Bench::new(&provider, folder.path());
    for name in SERVERS {
        let (spec, address) = spec(&bench, folder.path(), name);
        let container = start(&bench, &spec).await;
        exchange(&mut TcpStream::connect(address).unwrap(), "gone");
        container.stop(GRACE);
        assert_eq!(exit_of(&*container).await.cause, Cause::Stopped, "{name}");

        let (spec, address) = self::spec(&bench, folder.path(), name);
        let container = start(&bench, &spec).await;
        let mut inside = TcpStream::connect(address).unwrap();
        exchange(&mut inside, "here");
        container.stop(Duration::from_millis(300));
        assert_eq!(exit_of(&*container).await.cause, Cause::Killed, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_of_the_node_lead_to_a_container_by_tcp_and_udp() {
    let folder = tempfile::tempdir().unwrap();
    let provider = machine::provider(folder.path());
    let bench = Bench::new(&provider, folder.path());
    let node = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let open = |spec: &mut ContainerSpec, index: usize| {
        let port = coracle_testing::ports::free().unwrap();
        spec.ports[index].host_port = Some(port);
        spec.ports[index].host_ip = Some(node(port).ip());
        node(port)
    };

    let (mut tcp, _) = spec(&bench, folder.path(), "net-rust");
    let there = open(&mut tcp, 1);
    let container = start(&bench, &tcp).await;
    let mut inside = TcpStream::connect(there).unwrap();
    exchange(&mut inside, "before");
    container.stop(GRACE);
    closed(there);
    exchange(&mut inside, "after");
    drop(inside);
    assert_eq!(exit_of(&*container).await.cause, Cause::Stopped);

    let (mut udp, own) = spec(&bench, folder.path(), "net-rust-p2");
    udp.ports[0].number = own.port();
    udp.args = vec!["udp-echo".to_owned(), format!("0.0.0.0:{}", own.port())];
    let there = open(&mut udp, 0);
    let container = start(&bench, &udp).await;
    for client in [UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap()] {
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        client.send_to(b"hello", there).unwrap();
        let mut answer = [0; 5];
        assert_eq!(client.recv_from(&mut answer).unwrap(), (5, there));
        assert_eq!(&answer, b"hello");
    }
    container.stop(Duration::ZERO);
}
