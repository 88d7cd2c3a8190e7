//! Containers that listen, each on the address of its pod.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use coracle_lifecycle::{Cause, Container, ContainerSpec, LocalImage, Network, Port, Protocol};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Bench, PATIENCE, Servers, exit_of, is_running, stop};
use crate::http;

/// All use this one: each pod has an address of its own.
const PORT: u16 = 7777;
const GRACE: Duration = Duration::from_secs(30);

pub(super) async fn check_network(bench: &Bench<'_>, servers: &Servers) {
    check_addresses(bench, &servers.echo).await;
    check_connections_outlive_a_stop(bench, &servers.echo).await;
    check_requests_outlive_a_stop(bench, &servers.http).await;
}

async fn check_addresses(bench: &Bench<'_>, echo: &LocalImage) {
    let one = start(bench, echo).await;
    let other = start(bench, echo).await;
    for (address, _) in [&one, &other] {
        let mut stream = connect(*address).await;
        assert_eq!(echoed(&mut stream, b"hello").await, b"hello");
    }
    for (address, container) in [one, other] {
        stop(&*container, Duration::ZERO).await;
        assert!(TcpStream::connect(address).await.is_err(), "{address} is free again");
    }
}

async fn check_connections_outlive_a_stop(bench: &Bench<'_>, echo: &LocalImage) {
    let (address, container) = start(bench, echo).await;
    let mut stream = connect(address).await;
    assert_eq!(echoed(&mut stream, b"before").await, b"before");
    container.stop(GRACE);
    assert_eq!(echoed(&mut stream, b"after").await, b"after");
    assert!(is_running(&*container), "somebody is still inside");
    drop(stream);
    assert_eq!(exit_of(&*container).await.cause, Cause::Stopped);
}

async fn check_requests_outlive_a_stop(bench: &Bench<'_>, server: &LocalImage) {
    let (address, container) = start(bench, server).await;
    connect(address).await;
    let mut slow = connect(address).await;
    let request = b"GET /sleep?200 HTTP/1.1\r\nhost: a\r\n\r\n";
    slow.write_all(request).await.expect("the server takes the request");
    // Once another is answered, the first is at the server too.
    let answer = http::get(address, "/hello").await.expect("the server answers");
    assert_eq!((answer.status, answer.is_whole), (200, true));
    container.stop(GRACE);
    let answer = timeout(PATIENCE, http::answer(&mut slow)).await.expect("what was accepted is answered");
    assert_eq!((answer.status, answer.body.as_str()), (200, "slept\n"));
    assert_eq!(exit_of(&*container).await.cause, Cause::Exited(0));
}

async fn start(bench: &Bench<'_>, image: &LocalImage) -> (SocketAddr, Arc<dyn Container>) {
    let address = Bench::address();
    let spec = bench.spec(image, &["echo", &format!("0.0.0.0:{PORT}")]);
    let port = Port { name: None, number: PORT, protocol: Protocol::Tcp, host_port: None, host_ip: None };
    let network = Network { addresses: vec![address.into()], shared: true, ..Network::default() };
    let container = bench.start(ContainerSpec { network, ports: vec![port], ..spec }).await;
    (SocketAddr::new(address.into(), PORT), container)
}

/// A connection to a server that may not listen yet.
async fn connect(address: SocketAddr) -> TcpStream {
    let connected = async {
        loop {
            match TcpStream::connect(address).await {
                Ok(stream) => return stream,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    timeout(PATIENCE, connected).await.expect("the server listens")
}

async fn echoed(stream: &mut TcpStream, words: &[u8]) -> Vec<u8> {
    let mut answer = vec![0; words.len()];
    let spoken = async {
        stream.write_all(words).await?;
        stream.read_exact(&mut answer).await
    };
    timeout(PATIENCE, spoken).await.expect("the server answers").expect("the connection holds");
    answer
}
