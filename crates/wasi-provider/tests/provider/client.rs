//! Servers as tests start them, and what they ask of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use coracle_lifecycle::{Container, ContainerSpec, LocalImage, Port, Protocol};
use coracle_testing::conformance::{Bench, is_running};
use coracle_testing::http::{self, Answer};
use tokio::net::TcpStream;

/// A server's container, where it listens.
pub(crate) struct Served {
    pub(crate) container: Arc<dyn Container>,
    pub(crate) address: SocketAddr,
    pub(crate) spec: ContainerSpec,
}

/// The port of all servers: each has an address of its own.
const PORT: u16 = 8081;

/// A setting for servers: short, so that what never comes is soon known.
pub(crate) const IMPATIENT: (&str, &str) = ("timeout-seconds", "1");

/// Fails unless a server answers and goes on.
pub(crate) async fn ensure_well(served: &Served) {
    assert_eq!(served.text("/hello").await, "hello\n");
    assert!(is_running(&*served.container));
}

/// Starts a server on an address of its own, with annotations `coracle.dev/http-<name>`.
pub(crate) async fn serve(bench: &Bench<'_>, image: &LocalImage, settings: &[(&str, &str)]) -> Served {
    let spec = spec(bench, image, settings);
    start(bench, spec).await
}

/// What such a server is started with.
pub(crate) fn spec(bench: &Bench<'_>, image: &LocalImage, settings: &[(&str, &str)]) -> ContainerSpec {
    let mut spec = bench.spec(image, &[]);
    spec.network.addresses = vec![Bench::address().into()];
    spec.ports = vec![port("dns", 53, Protocol::Udp), port("web", PORT, Protocol::Tcp)];
    let settings =
        settings.iter().map(|(name, value)| (format!("coracle.dev/http-{name}"), (*value).to_owned()));
    spec.annotations = settings.collect::<BTreeMap<_, _>>();
    spec
}

/// Starts it.
pub(crate) async fn start(bench: &Bench<'_>, spec: ContainerSpec) -> Served {
    let port = spec.ports.iter().find(|port| port.protocol == Protocol::Tcp);
    let address = SocketAddr::new(spec.network.addresses[0], port.map_or(8080, |port| port.number));
    Served { container: bench.start(spec.clone()).await, address, spec }
}

fn port(name: &str, number: u16, protocol: Protocol) -> Port {
    Port { name: Some(name.to_owned()), number, protocol, host_port: None, host_ip: None }
}

impl Served {
    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// The answer to a `GET` on a connection of its own.
    pub(crate) async fn get(&self, target: &str) -> Answer {
        http::get(self.address, target).await.unwrap()
    }

    /// The body of that answer, which is to be a good one.
    pub(crate) async fn text(&self, target: &str) -> String {
        let answer = self.get(target).await;
        assert_eq!(answer.status, 200, "{target}: {answer:?}");
        answer.body
    }

    /// The answer to whatever is said on a connection of its own.
    pub(crate) async fn say(&self, words: &[u8]) -> Answer {
        http::say(self.address, words).await.unwrap()
    }
}
