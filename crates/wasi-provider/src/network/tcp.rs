//! `wasi:sockets/tcp` of WASI 0.2.

use std::net::SocketAddr;

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource, ResourceType};
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddressFamily, IpSocketAddress};
use wasmtime_wasi::p2::bindings::sockets::tcp::HostTcpSocket;
use wasmtime_wasi::p2::bindings::sockets::tcp_create_socket;
use wasmtime_wasi::p2::{Network, SocketError, SocketResult, TcpSocket};
use wasmtime_wasi::sockets::WasiSocketsView as _;

use super::Transport;
use crate::guest::ComponentGuest;

/// The interface under the version that wasmtime gives it; guests made for another 0.2 get the same.
pub(super) const INTERFACE: &str = "wasi:sockets/tcp@0.2.12";
const CREATE_INTERFACE: &str = "wasi:sockets/tcp-create-socket@0.2.12";

type Store<'a> = StoreContextMut<'a, ComponentGuest>;

pub(super) fn add_to_linker(linker: &mut Linker<ComponentGuest>) -> wasmtime::Result<()> {
    let mut tcp = linker.instance(INTERFACE)?;
    tcp.func_wrap_async(
        "[method]tcp-socket.start-bind",
        |store: Store<'_>, (socket, network, address): (_, _, IpSocketAddress)| {
            Box::new(async move { answer(start_bind(store, socket, network, address.into()).await) })
        },
    )?;
    tcp.func_wrap_async(
        "[method]tcp-socket.start-connect",
        |store: Store<'_>, (socket, network, address): (_, _, IpSocketAddress)| {
            Box::new(async move { answer(start_connect(store, socket, network, address.into()).await) })
        },
    )?;
    tcp.func_wrap(
        "[method]tcp-socket.local-address",
        |mut store: Store<'_>, (socket,): (Resource<TcpSocket>,)| {
            let address = HostTcpSocket::local_address(&mut store.data_mut().sockets(), socket);
            answer(address.map(|address| shown(&store, address)))
        },
    )?;
    tcp.func_wrap(
        "[method]tcp-socket.remote-address",
        |mut store: Store<'_>, (socket,): (Resource<TcpSocket>,)| {
            let address = HostTcpSocket::remote_address(&mut store.data_mut().sockets(), socket);
            answer(address.map(|address| shown(&store, address)))
        },
    )?;
    tcp.resource("tcp-socket", ResourceType::host::<TcpSocket>(), drop_socket)?;
    linker
        .instance(CREATE_INTERFACE)?
        .func_wrap("create-tcp-socket", |mut store: Store<'_>, (family,): (IpAddressFamily,)| {
            answer(create(&mut store, family))
        })
}

fn create(store: &mut Store<'_>, family: IpAddressFamily) -> SocketResult<Resource<TcpSocket>> {
    let guest = store.data_mut();
    if !guest.world.sockets.take() {
        return Err(ErrorCode::NewSocketLimit.into());
    }
    let created = tcp_create_socket::Host::create_tcp_socket(&mut guest.sockets(), family);
    created.inspect_err(|_| guest.world.sockets.give_back())
}

fn drop_socket(mut store: Store<'_>, number: u32) -> wasmtime::Result<()> {
    let guest = store.data_mut();
    let mut sockets = guest.sockets();
    let is_listening = HostTcpSocket::is_listening(&mut sockets, Resource::new_borrow(number))?;
    let address = HostTcpSocket::local_address(&mut sockets, Resource::new_borrow(number)).ok();
    HostTcpSocket::drop(&mut sockets, Resource::new_own(number))?;
    guest.world.sockets.give_back();
    if let Some(address) = address.filter(|_| !is_listening) {
        guest.world.network.closed(address.into());
    }
    Ok(())
}

/// A result as the component model has it; what is no error code of the interface ends the guest.
pub(super) fn answer<T>(result: SocketResult<T>) -> wasmtime::Result<(Result<T, ErrorCode>,)> {
    match result {
        Ok(value) => Ok((Ok(value),)),
        Err(error) => Ok((Err(error.downcast()?),)),
    }
}

/// What the guest is told an address is.
pub(super) fn shown(store: &Store<'_>, address: IpSocketAddress) -> IpSocketAddress {
    store.data().world.network.shown(address.into()).into()
}

async fn start_bind(
    mut store: Store<'_>,
    socket: Resource<TcpSocket>,
    network: Resource<Network>,
    wanted: SocketAddr,
) -> SocketResult<()> {
    let guest = store.data_mut();
    let address = guest.world.network.bind(wanted).ok_or(ErrorCode::AddressNotBindable)?;
    HostTcpSocket::start_bind(&mut guest.sockets(), socket, network, address.into()).await
}

async fn start_connect(
    mut store: Store<'_>,
    socket: Resource<TcpSocket>,
    network: Resource<Network>,
    wanted: SocketAddr,
) -> SocketResult<()> {
    let guest = store.data_mut();
    if is_no_destination(wanted) {
        return HostTcpSocket::start_connect(&mut guest.sockets(), socket, network, wanted.into());
    }
    let way = guest.world.network.way(wanted, Transport::Tcp).ok_or(ErrorCode::RemoteUnreachable)?;
    let mut sockets = guest.sockets();
    let this = || Resource::new_borrow(socket.rep());
    let is_bound = HostTcpSocket::local_address(&mut sockets, this()).is_ok();
    let family = HostTcpSocket::address_family(&mut sockets, this()).map_err(SocketError::trap)?;
    if let Some(from) = way.from.filter(|from| !is_bound && fits(family, *from)) {
        let through = Resource::new_borrow(network.rep());
        HostTcpSocket::start_bind(&mut sockets, this(), through, from.into()).await?;
        HostTcpSocket::finish_bind(&mut sockets, this())?;
    }
    HostTcpSocket::start_connect(&mut sockets, socket, network, way.to.into())
}

/// Whether wasmtime will say that this is no address to connect to.
pub(super) fn is_no_destination(address: SocketAddr) -> bool {
    address.port() == 0 || address.ip().is_unspecified()
}

fn fits(family: IpAddressFamily, address: SocketAddr) -> bool {
    matches!(
        (family, address),
        (IpAddressFamily::Ipv4, SocketAddr::V4(_)) | (IpAddressFamily::Ipv6, SocketAddr::V6(_))
    )
}
