//! Where a container listens on one of its ports: on each of its pod's addresses.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use coracle_lifecycle::Network;
use socket2::SockRef;
use thiserror::Error;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::bolt;

/// How many connections may wait to be accepted on each address.
pub(super) const BACKLOG: u32 = 1024;

/// The sockets of one port.
pub(crate) struct Doorway {
    sockets: Vec<TcpListener>,
    /// Which of them is looked at first: a busy one leaves the others their turn.
    turn: AtomicUsize,
}

/// A port that cannot be had.
#[derive(Debug, Error)]
#[error("cannot listen on address {address}, port {port}: {error}")]
pub(crate) struct ListenError {
    address: IpAddr,
    port: u16,
    pub(super) error: io::Error,
}

impl Doorway {
    /// Listens on a port of a pod. To be called on a thread that runs guests of this pod: a socket belongs to the network
    /// namespace of the thread that makes it.
    ///
    /// # Errors
    /// The port is taken, or may not be had: on which address.
    pub(crate) fn open(network: &Network, port: u16) -> Result<Self, ListenError> {
        let listening = |address| listen(address, port).map_err(|error| ListenError { address, port, error });
        let sockets = places(network).into_iter().map(listening).collect::<Result<_, _>>()?;
        Ok(Self { sockets, turn: AtomicUsize::new(0) })
    }

    /// Ready with whoever came next. One task at a time is woken.
    pub(crate) fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<TcpStream>> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.sockets.len();
        let (later, sooner) = self.sockets.split_at(turn);
        for socket in sooner.iter().chain(later) {
            if let Poll::Ready(accepted) = socket.poll_accept(context) {
                return Poll::Ready(accepted.map(|(stream, _)| stream));
            }
        }
        Poll::Pending
    }

    /// Waits for whoever comes next.
    pub(crate) async fn accept(&self) -> io::Result<TcpStream> {
        poll_fn(|context| self.poll_accept(context)).await
    }

    /// Shuts it for good, and gives those who had come.
    pub(crate) fn close(self) -> Vec<TcpStream> {
        self.sockets.into_iter().flat_map(bolt::close).collect()
    }

    #[cfg(test)]
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.sockets.iter().map(|socket| socket.local_addr().unwrap()).collect()
    }
}

/// The addresses on which a pod is reached; in the node's own network those of each family that it has.
fn places(network: &Network) -> Vec<IpAddr> {
    let any = |address: &IpAddr| match address {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let mut places: Vec<IpAddr> =
        if network.host { network.addresses.iter().map(any).collect() } else { network.addresses.clone() };
    places.dedup();
    if places.is_empty() {
        places.push(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    }
    places
}

fn listen(address: IpAddr, port: u16) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if address.is_ipv6() {
        // Or it would be in the way of the other family's.
        SockRef::from(&socket).set_only_v6(true)?;
    }
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::new(address, port))?;
    socket.listen(BACKLOG)
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream as Client;

    use super::*;

    fn network(addresses: &[&str], host: bool) -> Network {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        Network { host, addresses, ..Network::default() }
    }

    #[tokio::test]
    async fn the_node_listens_on_the_pods_own_address() {
        let doorway = Doorway::open(&network(&["127.0.0.7"], false), 0).unwrap();
        let address = doorway.addresses()[0];
        assert_eq!(address.ip(), "127.0.0.7".parse::<IpAddr>().unwrap());
        let taken = Doorway::open(&network(&["127.0.0.7"], false), address.port()).err().unwrap();
        assert_eq!(taken.error.kind(), io::ErrorKind::AddrInUse);
        assert!(
            taken
                .to_string()
                .starts_with(&format!("cannot listen on address 127.0.0.7, port {}: ", address.port()))
        );
        Doorway::open(&network(&["127.0.0.8"], false), address.port()).unwrap();
    }

    #[tokio::test]
    async fn whoever_comes_to_any_of_a_pods_addresses_is_let_in() {
        let port = Doorway::open(&network(&["::1"], false), 0).unwrap().addresses()[0].port();
        let doorway = Doorway::open(&network(&["::1", "127.0.0.9"], false), port).unwrap();
        let addresses = doorway.addresses();
        assert_eq!(addresses.len(), 2);
        let clients: Vec<_> =
            addresses.iter().cycle().take(4).map(|address| Client::connect(address).unwrap()).collect();
        let mut met = Vec::new();
        for _ in 0..2 {
            met.push(doorway.accept().await.unwrap().local_addr().unwrap());
        }
        // Neither had to wait for the other's queue to be empty.
        met.sort();
        assert_eq!(met, [addresses[1], addresses[0]]);
        assert_eq!(doorway.close().len(), 2);
        assert!(addresses.iter().all(|address| Client::connect(address).is_err()));
        drop(clients);
    }

    #[test]
    fn in_the_nodes_network_it_is_every_address_of_the_families_that_the_node_has() {
        let of =
            |addresses| places(&network(addresses, true)).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(of(&["192.0.2.1"]), ["0.0.0.0"]);
        assert_eq!(of(&["192.0.2.1", "2001:db8::1"]), ["0.0.0.0", "::"]);
        assert_eq!(of(&[]), ["0.0.0.0"]);
    }
}
