//! Connections, and what is said of those that fail: in the words that a kubelet's users know.

use std::io;

use coracle_lifecycle::Endpoint;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

/// Connects to a server; gives up at `deadline`.
pub(super) async fn connect(endpoint: &Endpoint, deadline: Option<Instant>) -> Result<TcpStream, String> {
    let connecting = TcpStream::connect((endpoint.host.as_str(), endpoint.port));
    let connected = match deadline {
        Some(deadline) => timeout_at(deadline, connecting).await,
        None => Ok(connecting.await),
    };
    match connected {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(format!("dial tcp {endpoint}: {}", words(&error))),
        Err(_) => Err(format!("dial tcp {endpoint}: i/o timeout")),
    }
}

fn words(error: &io::Error) -> String {
    let text = match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused",
        io::ErrorKind::ConnectionReset => "connect: connection reset by peer",
        io::ErrorKind::HostUnreachable => "connect: no route to host",
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable",
        io::ErrorKind::TimedOut => "connect: connection timed out",
        _ => return error.to_string(),
    };
    text.to_owned()
}
