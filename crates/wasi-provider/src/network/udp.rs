//! `wasi:sockets/udp` of WASI 0.2.

use std::net::SocketAddr;

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource, ResourceType};
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddressFamily, IpSocketAddress};
use wasmtime_wasi::p2::bindings::sockets::udp::{
    HostIncomingDatagramStream, HostOutgoingDatagramStream, HostUdpSocket, IncomingDatagramStream,
    OutgoingDatagram, OutgoingDatagramStream,
};
use wasmtime_wasi::p2::bindings::sockets::udp_create_socket;
use wasmtime_wasi::p2::{Network, SocketResult, UdpSocket};
use wasmtime_wasi::sockets::WasiSocketsView as _;

use super::tcp::{answer, is_no_destination, shown};
use super::{GuestNetwork, Transport};
use crate::guest::ComponentGuest;

/// The interface under the version that wasmtime gives it.
pub(super) const INTERFACE: &str = "wasi:sockets/udp@0.2.12";
const CREATE_INTERFACE: &str = "wasi:sockets/udp-create-socket@0.2.12";

type Store<'a> = StoreContextMut<'a, ComponentGuest>;
type Streams = (Resource<IncomingDatagramStream>, Resource<OutgoingDatagramStream>);

pub(super) fn add_to_linker(linker: &mut Linker<ComponentGuest>) -> wasmtime::Result<()> {
    let mut udp = linker.instance(INTERFACE)?;
    udp.func_wrap_async(
        "[method]udp-socket.start-bind",
        |store: Store<'_>, (socket, network, address): (_, _, IpSocketAddress)| {
            Box::new(async move { answer(start_bind(store, socket, network, address.into()).await) })
        },
    )?;
    udp.func_wrap_async(
        "[method]udp-socket.stream",
        |store: Store<'_>, (socket, remote): (_, Option<IpSocketAddress>)| {
            Box::new(async move { answer(stream(store, socket, remote).await) })
        },
    )?;
    udp.func_wrap(
        "[method]udp-socket.local-address",
        |mut store: Store<'_>, (socket,): (Resource<UdpSocket>,)| {
            let address = HostUdpSocket::local_address(&mut store.data_mut().sockets(), socket);
            answer(address.map(|address| shown(&store, address)))
        },
    )?;
    udp.func_wrap(
        "[method]udp-socket.remote-address",
        |mut store: Store<'_>, (socket,): (Resource<UdpSocket>,)| {
            let address = HostUdpSocket::remote_address(&mut store.data_mut().sockets(), socket);
            answer(address.map(|address| shown(&store, address)))
        },
    )?;
    udp.resource("udp-socket", ResourceType::host::<UdpSocket>(), |mut store: Store<'_>, number| {
        HostUdpSocket::drop(&mut store.data_mut().sockets(), Resource::new_own(number))?;
        store.data().world.sockets.give_back();
        Ok(())
    })?;
    linker.instance(CREATE_INTERFACE)?.func_wrap_async(
        "create-udp-socket",
        |store: Store<'_>, (family,): (IpAddressFamily,)| {
            Box::new(async move { answer(create(store, family).await) })
        },
    )?;
    add_datagrams(linker)
}

async fn create(mut store: Store<'_>, family: IpAddressFamily) -> SocketResult<Resource<UdpSocket>> {
    let guest = store.data_mut();
    if !guest.world.sockets.take() {
        return Err(ErrorCode::NewSocketLimit.into());
    }
    let created = udp_create_socket::Host::create_udp_socket(&mut guest.sockets(), family).await;
    created.inspect_err(|_| guest.world.sockets.give_back())
}

fn add_datagrams(linker: &mut Linker<ComponentGuest>) -> wasmtime::Result<()> {
    let mut udp = linker.instance(INTERFACE)?;
    udp.func_wrap(
        "[method]incoming-datagram-stream.receive",
        |mut store: Store<'_>, (stream, most): (Resource<IncomingDatagramStream>, u64)| {
            let received = HostIncomingDatagramStream::receive(&mut store.data_mut().sockets(), stream, most);
            answer(received.map(|mut datagrams| {
                for datagram in &mut datagrams {
                    datagram.remote_address = shown(&store, datagram.remote_address);
                }
                datagrams
            }))
        },
    )?;
    udp.func_wrap(
        "[method]outgoing-datagram-stream.send",
        |mut store: Store<'_>, (stream, datagrams): (_, Vec<OutgoingDatagram>)| {
            answer(send(&mut store, stream, datagrams))
        },
    )
}

async fn start_bind(
    mut store: Store<'_>,
    socket: Resource<UdpSocket>,
    network: Resource<Network>,
    wanted: SocketAddr,
) -> SocketResult<()> {
    let guest = store.data_mut();
    let address = guest.world.network.bind(wanted).ok_or(ErrorCode::AddressNotBindable)?;
    HostUdpSocket::start_bind(&mut guest.sockets(), socket, network, address.into()).await
}

async fn stream(
    mut store: Store<'_>,
    socket: Resource<UdpSocket>,
    remote: Option<IpSocketAddress>,
) -> SocketResult<Streams> {
    let guest = store.data_mut();
    let remote = remote.map(|remote| destination(&guest.world.network, remote).ok_or(UNREACHABLE));
    HostUdpSocket::stream(&mut guest.sockets(), socket, remote.transpose()?).await
}

const UNREACHABLE: ErrorCode = ErrorCode::RemoteUnreachable;

/// Sends what comes before the first datagram that leads nowhere; an error when that is the first of all.
fn send(
    store: &mut Store<'_>,
    stream: Resource<OutgoingDatagramStream>,
    datagrams: Vec<OutgoingDatagram>,
) -> SocketResult<u64> {
    let guest = store.data_mut();
    let (network, wanted) = (&guest.world.network, datagrams.len());
    let leading: Vec<_> = datagrams.into_iter().map_while(|datagram| directed(network, datagram)).collect();
    if leading.is_empty() && wanted > 0 {
        return Err(UNREACHABLE.into());
    }
    HostOutgoingDatagramStream::send(&mut guest.sockets(), stream, leading)
}

fn directed(network: &GuestNetwork, datagram: OutgoingDatagram) -> Option<OutgoingDatagram> {
    let remote_address = match datagram.remote_address {
        Some(remote) => Some(destination(network, remote)?),
        None => None,
    };
    Some(OutgoingDatagram { remote_address, ..datagram })
}

fn destination(network: &GuestNetwork, wanted: IpSocketAddress) -> Option<IpSocketAddress> {
    let address = SocketAddr::from(wanted);
    if is_no_destination(address) {
        return Some(wanted);
    }
    network.way(address, Transport::Udp).map(|way| way.to.into())
}
