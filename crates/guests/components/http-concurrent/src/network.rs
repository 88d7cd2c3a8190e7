//! What a server does with sockets of WASI 0.3 when it is asked to.

use std::net::SocketAddr;

use wasip3::sockets::ip_name_lookup::resolve_addresses;
use wasip3::sockets::types::{
    ErrorCode, IpAddress, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, TcpSocket, UdpSocket,
};
use wasip3::{wit_bindgen, wit_stream};

/// Sends a word to an address by TCP; what comes back.
pub(crate) async fn ask_tcp(address: &str) -> Result<String, ErrorCode> {
    let socket = TcpSocket::create(IpAddressFamily::Ipv4)?;
    socket.connect(parse(address)).await?;
    let (mut to, data) = wit_stream::new();
    let sent = socket.send(data);
    let (mut answer, _) = socket.receive();
    to.write_all(b"hi".to_vec()).await;
    let text = [answer.next().await, answer.next().await].into_iter().flatten().collect();
    drop(to);
    sent.await?;
    let own = show(socket.get_local_address()?);
    Ok(format!("{} by {own}\n", String::from_utf8(text).unwrap_or_default()))
}

/// Sends a word to an address in a datagram; what comes back.
pub(crate) async fn ask_udp(address: &str) -> Result<String, ErrorCode> {
    let socket = UdpSocket::create(IpAddressFamily::Ipv4)?;
    socket.send(b"hi".to_vec(), Some(parse(address))).await?;
    let (data, from) = socket.receive().await?;
    let own = show(socket.get_local_address()?);
    Ok(format!("{} from {} by {own}\n", String::from_utf8(data).unwrap_or_default(), show(from)))
}

/// Listens, and sends back what one client says, while the request is over.
pub(crate) fn listen(address: &str) -> Result<String, ErrorCode> {
    let socket = TcpSocket::create(IpAddressFamily::Ipv4)?;
    socket.bind(parse(address))?;
    let mut clients = socket.listen()?;
    let own = show(socket.get_local_address()?);
    wit_bindgen::spawn_local(async move {
        if let Some(client) = clients.next().await {
            let (said, _) = client.receive();
            let _ = client.send(said).await;
        }
        drop(socket);
    });
    Ok(format!("{own}\n"))
}

/// The addresses of a name.
pub(crate) async fn resolve(name: &str) -> String {
    match resolve_addresses(name.to_owned()).await {
        Ok(found) => found.into_iter().map(|address| format!("{}\n", show_ip(address))).collect(),
        Err(error) => format!("{error:?}\n"),
    }
}

/// As many sockets as it can have.
pub(crate) fn sockets() -> Vec<TcpSocket> {
    let mut all = Vec::new();
    while let Ok(socket) = TcpSocket::create(IpAddressFamily::Ipv4) {
        all.push(socket);
    }
    all
}

pub(crate) fn parse(address: &str) -> IpSocketAddress {
    let Ok(SocketAddr::V4(address)) = address.parse() else { panic!("{address} is no IPv4 address") };
    let [a, b, c, d] = address.ip().octets();
    IpSocketAddress::Ipv4(Ipv4SocketAddress { port: address.port(), address: (a, b, c, d) })
}

pub(crate) fn show(address: IpSocketAddress) -> String {
    match address {
        IpSocketAddress::Ipv4(address) => {
            format!("{}:{}", show_ip(IpAddress::Ipv4(address.address)), address.port)
        }
        IpSocketAddress::Ipv6(address) => format!("port {}", address.port),
    }
}

fn show_ip(address: IpAddress) -> String {
    match address {
        IpAddress::Ipv4((a, b, c, d)) => format!("{a}.{b}.{c}.{d}"),
        IpAddress::Ipv6(parts) => format!("{parts:?}"),
    }
}
