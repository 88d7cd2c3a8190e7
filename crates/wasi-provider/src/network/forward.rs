//! Ports of the node that lead to a container (`hostPort`).

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use coracle_lifecycle::{ContainerSpec, Port, Protocol};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::bolt;
use super::doorway::BACKLOG;
use crate::container::Run;
use crate::room::Room;

/// How long the last that a container has said may take to its clients after its end.
const LINGER: Duration = Duration::from_secs(5);
/// How long the answers to a client's datagrams are awaited.
const IDLE: Duration = Duration::from_mins(1);
/// Clients of one port whose datagrams are answered at a time.
const MAX_CLIENTS: usize = 1_000;
/// The largest datagram.
const DATAGRAM: usize = 64 << 10;

/// A port of the node that is open and leads to a container.
pub(crate) struct Forward {
    socket: Socket,
    to: SocketAddr,
    /// The address from which the container hears it, where the system's choice may be one that it takes for its own
    /// loopback.
    from: Option<IpAddr>,
}

enum Socket {
    Tcp(TcpListener),
    Udp(Arc<UdpSocket>),
}

/// When a port stops leading anywhere.
#[derive(Clone)]
pub(crate) struct Until {
    /// Nobody is let in any more.
    pub(crate) closing: CancellationToken,
    /// Nobody is there any more.
    pub(crate) run: Arc<Run>,
}

/// Opens the node's ports that lead to this container. To be called in the machine's own network.
///
/// # Errors
/// Names the first port that cannot be had.
pub(crate) fn open(spec: &ContainerSpec) -> Result<Vec<Forward>, String> {
    let Some(own) = spec.network.addresses.first().filter(|_| !spec.network.host) else {
        return Ok(Vec::new());
    };
    let mut opened = Vec::new();
    for port in &spec.ports {
        let to = SocketAddr::new(*own, port.number);
        if let Some(at) = place(port).filter(|at| !is_own(spec, *at, to)) {
            let socket = listen(at, port.protocol);
            let socket =
                socket.map_err(|error| format!("cannot open the node's port {at} (hostPort): {error}"))?;
            let from = spec.network.shared.then_some(*own);
            opened.extend(socket.map(|socket| Forward { socket, to, from }));
        }
    }
    Ok(opened)
}

/// Where the node is to listen for a port.
fn place(port: &Port) -> Option<SocketAddr> {
    Some(SocketAddr::new(port.host_ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), port.host_port?))
}

/// Whether a container that shares the node's address is there by itself.
fn is_own(spec: &ContainerSpec, at: SocketAddr, to: SocketAddr) -> bool {
    spec.network.shared && at.port() == to.port() && (at.ip().is_unspecified() || at.ip() == to.ip())
}

/// `None` for a protocol that nobody here speaks.
fn listen(at: SocketAddr, protocol: Protocol) -> io::Result<Option<Socket>> {
    match protocol {
        Protocol::Tcp => {
            let socket = if at.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            socket.set_reuseaddr(true)?;
            socket.bind(at)?;
            socket.listen(BACKLOG).map(Socket::Tcp).map(Some)
        }
        Protocol::Udp => {
            let socket = std::net::UdpSocket::bind(at)?;
            socket.set_nonblocking(true)?;
            UdpSocket::from_std(socket).map(Arc::new).map(Socket::Udp).map(Some)
        }
        Protocol::Sctp => Ok(None),
    }
}

impl Forward {
    /// Leads whoever comes to the container, until it has ended and has been heard.
    pub(crate) async fn serve(self, until: Until, room: Arc<Room>) {
        match self.socket {
            Socket::Tcp(listener) => serve_tcp(listener, self.to, until, room).await,
            Socket::Udp(socket) => serve_udp(socket, (self.to, self.from), until).await,
        }
    }
}

async fn serve_tcp(listener: TcpListener, to: SocketAddr, until: Until, room: Arc<Room>) {
    let mut clients = JoinSet::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = clients.join_next() => continue,
            () = until.closing.cancelled() => break,
            () = until.run.ended() => break,
        };
        match stream {
            Ok((stream, _)) => drop(clients.spawn(lead(stream, to, Arc::clone(&room)))),
            Err(error) => pause(&error).await,
        }
    }
    for stream in bolt::close(listener) {
        clients.spawn(lead(stream, to, Arc::clone(&room)));
    }
    let unheard = async {
        until.run.ended().await;
        sleep(LINGER).await;
    };
    tokio::select! {
        () = async { while clients.join_next().await.is_some() {} } => {}
        () = unheard => {}
    }
}

/// The machine may be out of descriptors for a moment.
async fn pause(error: &io::Error) {
    debug!(%error, "a connection to a port of the node cannot be accepted");
    sleep(Duration::from_millis(50)).await;
}

async fn lead(mut client: TcpStream, to: SocketAddr, room: Arc<Room>) {
    let Ok(_place) = room.take_descriptors(2) else { return };
    let _ = client.set_nodelay(true);
    let led = async {
        let mut container = TcpStream::connect(to).await?;
        container.set_nodelay(true)?;
        copy_bidirectional(&mut client, &mut container).await
    };
    if let Err(error) = led.await {
        debug!(%to, %error, "a connection to a port of the node has failed");
    }
}

/// Each client's datagrams come to the container from a socket of their own, so that its answers find their way.
async fn serve_udp(socket: Arc<UdpSocket>, way: (SocketAddr, Option<IpAddr>), until: Until) {
    let mut sessions: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut answers = JoinSet::new();
    let mut buffer = vec![0; DATAGRAM];
    loop {
        let received = tokio::select! {
            received = socket.recv_from(&mut buffer) => received,
            Some(Ok(client)) = answers.join_next() => {
                sessions.remove(&client);
                continue;
            }
            () = until.run.ended() => return,
        };
        let Ok((length, client)) = received else { continue };
        if !sessions.contains_key(&client) {
            if sessions.len() >= MAX_CLIENTS {
                continue;
            }
            let Ok(session) = session(way).await else { continue };
            answers.spawn(answer(Arc::clone(&session), Arc::clone(&socket), client));
            sessions.insert(client, session);
        }
        if let Some(session) = sessions.get(&client) {
            let _ = session.send(&buffer[..length]).await;
        }
    }
}

async fn session((to, from): (SocketAddr, Option<IpAddr>)) -> io::Result<Arc<UdpSocket>> {
    let any = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let session = UdpSocket::bind((from.unwrap_or(any), 0)).await?;
    session.connect(to).await?;
    Ok(Arc::new(session))
}

/// Sends the container's answers back until there are none for a while.
async fn answer(session: Arc<UdpSocket>, socket: Arc<UdpSocket>, client: SocketAddr) -> SocketAddr {
    let mut buffer = vec![0; DATAGRAM];
    while let Ok(received) = timeout(IDLE, session.recv(&mut buffer)).await {
        // Nobody may listen there yet: that is told as an error of the socket, once.
        if let Ok(length) = received {
            let _ = socket.send_to(&buffer[..length], client).await;
        }
    }
    client
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(number: u16, host_port: Option<u16>, host_ip: Option<&str>) -> Port {
        let host_ip = host_ip.map(|address| address.parse().unwrap());
        Port { name: None, number, protocol: Protocol::Tcp, host_port, host_ip }
    }

    #[test]
    fn a_port_is_open_on_every_address_unless_one_is_named() {
        assert_eq!(place(&port(80, None, None)), None);
        assert_eq!(place(&port(80, Some(8080), None)), Some("0.0.0.0:8080".parse().unwrap()));
        assert_eq!(place(&port(80, Some(81), Some("192.0.2.1"))), Some("192.0.2.1:81".parse().unwrap()));
    }
}
