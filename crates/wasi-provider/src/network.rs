//! The addresses of pods.

use std::io;
use std::net::SocketAddr;

use coracle_lifecycle::ContainerSpec;
use tokio::net::{TcpListener, TcpSocket};

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;

/// Listens on a port of the container's pod.
///
/// # Errors
/// The pod has no address, or the port is taken.
pub(crate) async fn listen(spec: &ContainerSpec, port: u16) -> io::Result<TcpListener> {
    let address = spec.network.addresses.first().ok_or_else(|| io::Error::other("the pod has no address"))?;
    let address = SocketAddr::new(*address, port);
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Or the port would stay taken for a minute after its connections.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
