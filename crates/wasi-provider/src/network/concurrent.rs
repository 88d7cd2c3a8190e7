//! `wasi:sockets/types` of WASI 0.3.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use futures::FutureExt as _;
use wasmtime::StoreContextMut;
use wasmtime::component::{Access, Accessor, Linker, Resource, ResourceType, StreamReader};
use wasmtime_wasi::p3::bindings::sockets::types::{
    ErrorCode, HostTcpSocket, HostTcpSocketWithStore, HostUdpSocket, HostUdpSocketWithStore, IpAddressFamily,
    IpSocketAddress, TcpSocket, UdpSocket,
};
use wasmtime_wasi::p3::sockets::{SocketError, SocketResult};
use wasmtime_wasi::sockets::{WasiSockets, WasiSocketsView};

use super::tcp::is_no_destination;
use super::{Transport, Way};
use crate::guest::ComponentGuest;

/// The interface under the version that wasmtime gives it; guests made for another 0.3 get the same.
pub(super) const INTERFACE: &str = "wasi:sockets/types@0.3.0";

type Store<'a> = StoreContextMut<'a, ComponentGuest>;

pub(super) fn add_to_linker(linker: &mut Linker<ComponentGuest>) -> wasmtime::Result<()> {
    add_tcp(linker)?;
    add_udp(linker)?;
    add_addresses(linker)
}

fn add_tcp(linker: &mut Linker<ComponentGuest>) -> wasmtime::Result<()> {
    let mut types = linker.instance(INTERFACE)?;
    types.func_wrap_async(
        "[method]tcp-socket.bind",
        |store: Store<'_>, (socket, address): (_, IpSocketAddress)| {
            Box::new(async move { answer(bind_tcp(store, socket, address.into()).await) })
        },
    )?;
    types.func_wrap_async("[method]tcp-socket.listen", |store: Store<'_>, (socket,)| {
        Box::new(async move { answer(listen(store, socket).await) })
    })?;
    types.func_wrap_concurrent("[method]tcp-socket.connect", |store, (socket, address)| {
        Box::pin(async move { answer(connect_tcp(store, socket, address).await) })
    })?;
    types.func_wrap("[static]tcp-socket.create", |mut store: Store<'_>, (family,)| {
        answer(create_tcp(&mut store, family))
    })?;
    types.resource("tcp-socket", ResourceType::host::<TcpSocket>(), drop_socket)
}

fn create_tcp(store: &mut Store<'_>, family: IpAddressFamily) -> SocketResult<Resource<TcpSocket>> {
    let guest = store.data_mut();
    make_room(guest)?;
    let created = HostTcpSocket::create(&mut guest.sockets(), family);
    created.inspect_err(|_| guest.world.sockets.give_back())
}

async fn create_udp(mut store: Store<'_>, family: IpAddressFamily) -> SocketResult<Resource<UdpSocket>> {
    let guest = store.data_mut();
    make_room(guest)?;
    let created = HostUdpSocket::create(&mut guest.sockets(), family).await;
    created.inspect_err(|_| guest.world.sockets.give_back())
}

fn make_room(guest: &ComponentGuest) -> SocketResult<()> {
    let refused = || ErrorCode::Other(Some("too many sockets".to_owned())).into();
    if guest.world.sockets.take() { Ok(()) } else { Err(refused()) }
}

fn drop_socket(mut store: Store<'_>, number: u32) -> wasmtime::Result<()> {
    let guest = store.data_mut();
    let mut sockets = guest.sockets();
    let is_listening = HostTcpSocket::get_is_listening(&mut sockets, Resource::new_borrow(number))?;
    let address = HostTcpSocket::get_local_address(&mut sockets, Resource::new_borrow(number)).ok();
    HostTcpSocket::drop(&mut sockets, Resource::new_own(number))?;
    guest.world.sockets.give_back();
    if let Some(address) = address.filter(|_| !is_listening) {
        guest.world.network.closed(address.into());
    }
    Ok(())
}

fn add_udp(linker: &mut Linker<ComponentGuest>) -> wasmtime::Result<()> {
    let mut types = linker.instance(INTERFACE)?;
    types.func_wrap_async(
        "[method]udp-socket.bind",
        |store: Store<'_>, (socket, address): (_, IpSocketAddress)| {
            Box::new(async move { answer(bind_udp(store, socket, address.into()).await) })
        },
    )?;
    types.func_wrap_async(
        "[method]udp-socket.connect",
        |store: Store<'_>, (socket, address): (_, IpSocketAddress)| {
            Box::new(async move { answer(connect_udp(store, socket, address).await) })
        },
    )?;
    types.func_wrap_concurrent("[method]udp-socket.send", |store, (socket, data, remote)| {
        Box::pin(async move { answer(send(store, socket, data, remote).await) })
    })?;
    types.func_wrap_concurrent("[method]udp-socket.receive", |store, (socket,)| {
        Box::pin(async move { answer(receive(store, socket).await) })
    })?;
    types.func_wrap_async("[static]udp-socket.create", |store: Store<'_>, (family,)| {
        Box::new(async move { answer(create_udp(store, family).await) })
    })?;
    types.resource("udp-socket", ResourceType::host::<UdpSocket>(), |mut store: Store<'_>, number| {
        HostUdpSocket::drop(&mut store.data_mut().sockets(), Resource::new_own(number))?;
        store.data().world.sockets.give_back();
        Ok(())
    })
}

fn add_addresses(linker: &mut Linker<ComponentGuest>) -> wasmtime::Result<()> {
    let mut types = linker.instance(INTERFACE)?;
    types.func_wrap("[method]tcp-socket.get-local-address", |mut store: Store<'_>, (socket,)| {
        let address = HostTcpSocket::get_local_address(&mut store.data_mut().sockets(), socket);
        answer(address.map(|address| shown(store.data(), address)))
    })?;
    types.func_wrap("[method]tcp-socket.get-remote-address", |mut store: Store<'_>, (socket,)| {
        let address = HostTcpSocket::get_remote_address(&mut store.data_mut().sockets(), socket);
        answer(address.map(|address| shown(store.data(), address)))
    })?;
    types.func_wrap("[method]udp-socket.get-local-address", |mut store: Store<'_>, (socket,)| {
        let address = HostUdpSocket::get_local_address(&mut store.data_mut().sockets(), socket);
        answer(address.map(|address| shown(store.data(), address)))
    })?;
    types.func_wrap("[method]udp-socket.get-remote-address", |mut store: Store<'_>, (socket,)| {
        let address = HostUdpSocket::get_remote_address(&mut store.data_mut().sockets(), socket);
        answer(address.map(|address| shown(store.data(), address)))
    })
}

fn answer<T>(result: SocketResult<T>) -> wasmtime::Result<(Result<T, ErrorCode>,)> {
    match result {
        Ok(value) => Ok((Ok(value),)),
        Err(error) => Ok((Err(error.downcast()?),)),
    }
}

fn shown(guest: &ComponentGuest, address: IpSocketAddress) -> IpSocketAddress {
    guest.world.network.shown(address.into()).into()
}

fn way(guest: &ComponentGuest, wanted: IpSocketAddress, transport: Transport) -> SocketResult<Way> {
    let wanted = SocketAddr::from(wanted);
    if is_no_destination(wanted) {
        return Ok(Way { to: wanted, from: None });
    }
    Ok(guest.world.network.way(wanted, transport).ok_or(ErrorCode::RemoteUnreachable)?)
}

async fn bind_tcp(mut store: Store<'_>, socket: Resource<TcpSocket>, wanted: SocketAddr) -> SocketResult<()> {
    let guest = store.data_mut();
    let address = guest.world.network.bind(wanted).ok_or(ErrorCode::AddressNotBindable)?;
    HostTcpSocket::bind(&mut guest.sockets(), socket, address.into()).await
}

async fn bind_udp(mut store: Store<'_>, socket: Resource<UdpSocket>, wanted: SocketAddr) -> SocketResult<()> {
    let guest = store.data_mut();
    let address = guest.world.network.bind(wanted).ok_or(ErrorCode::AddressNotBindable)?;
    HostUdpSocket::bind(&mut guest.sockets(), socket, address.into()).await
}

/// A socket that is bound to nothing yet would be bound to every address of the namespace.
async fn listen(
    mut store: Store<'_>,
    socket: Resource<TcpSocket>,
) -> SocketResult<StreamReader<Resource<TcpSocket>>> {
    let guest = store.data_mut();
    let this = Resource::new_borrow(socket.rep());
    let family = HostTcpSocket::get_address_family(&mut guest.sockets(), this).map_err(SocketError::trap)?;
    let any = guest.world.network.any(like(family));
    bind_tcp_from(guest, socket.rep(), any).await?;
    let access = Access::<'_, _, WasiSockets>::new(store, WasiSocketsView::sockets);
    <WasiSockets as HostTcpSocketWithStore<ComponentGuest>>::listen(access, socket).await
}

/// Binds a socket that is not bound yet, where there is an address of its family to bind it to.
async fn bind_tcp_from(
    guest: &mut ComponentGuest,
    socket: u32,
    from: Option<SocketAddr>,
) -> SocketResult<()> {
    let mut sockets = guest.sockets();
    let is_bound = HostTcpSocket::get_local_address(&mut sockets, Resource::new_borrow(socket)).is_ok();
    let family = HostTcpSocket::get_address_family(&mut sockets, Resource::new_borrow(socket))
        .map_err(SocketError::trap)?;
    match from.filter(|from| !is_bound && from.is_ipv4() == like(family).is_ipv4()) {
        Some(from) => HostTcpSocket::bind(&mut sockets, Resource::new_borrow(socket), from.into()).await,
        None => Ok(()),
    }
}

async fn bind_udp_from(
    guest: &mut ComponentGuest,
    socket: u32,
    from: Option<SocketAddr>,
) -> SocketResult<()> {
    let mut sockets = guest.sockets();
    let is_bound = HostUdpSocket::get_local_address(&mut sockets, Resource::new_borrow(socket)).is_ok();
    let family = HostUdpSocket::get_address_family(&mut sockets, Resource::new_borrow(socket))
        .map_err(SocketError::trap)?;
    match from.filter(|from| !is_bound && from.is_ipv4() == like(family).is_ipv4()) {
        Some(from) => HostUdpSocket::bind(&mut sockets, Resource::new_borrow(socket), from.into()).await,
        None => Ok(()),
    }
}

fn like(family: IpAddressFamily) -> IpAddr {
    match family {
        IpAddressFamily::Ipv4 => Ipv4Addr::UNSPECIFIED.into(),
        IpAddressFamily::Ipv6 => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// To bind waits for nothing, so that it can be done where nothing may be awaited.
fn at_once<T>(result: Option<SocketResult<T>>) -> SocketResult<T> {
    result.unwrap_or_else(|| Err(ErrorCode::Other(None).into()))
}

async fn connect_tcp(
    store: &Accessor<ComponentGuest>,
    socket: Resource<TcpSocket>,
    wanted: IpSocketAddress,
) -> SocketResult<()> {
    let to = store.with(|mut access| -> SocketResult<_> {
        let guest = access.get();
        let way = way(guest, wanted, Transport::Tcp)?;
        at_once(bind_tcp_from(guest, socket.rep(), way.from).now_or_never())?;
        Ok(way.to)
    })?;
    let sockets = store.with_getter::<WasiSockets>(WasiSocketsView::sockets);
    <WasiSockets as HostTcpSocketWithStore<ComponentGuest>>::connect(&sockets, socket, to.into()).await
}

async fn connect_udp(
    mut store: Store<'_>,
    socket: Resource<UdpSocket>,
    wanted: IpSocketAddress,
) -> SocketResult<()> {
    let guest = store.data_mut();
    let way = way(guest, wanted, Transport::Udp)?;
    bind_udp_from(guest, socket.rep(), way.from).await?;
    HostUdpSocket::connect(&mut guest.sockets(), socket, way.to.into()).await
}

async fn send(
    store: &Accessor<ComponentGuest>,
    socket: Resource<UdpSocket>,
    data: Vec<u8>,
    remote: Option<IpSocketAddress>,
) -> SocketResult<()> {
    let remote = store.with(|mut access| -> SocketResult<_> {
        let guest = access.get();
        let Some(remote) = remote else { return Ok(None) };
        let way = way(guest, remote, Transport::Udp)?;
        at_once(bind_udp_from(guest, socket.rep(), way.from).now_or_never())?;
        Ok(Some(way.to.into()))
    })?;
    let sockets = store.with_getter::<WasiSockets>(WasiSocketsView::sockets);
    <WasiSockets as HostUdpSocketWithStore<ComponentGuest>>::send(&sockets, socket, data, remote).await
}

async fn receive(
    store: &Accessor<ComponentGuest>,
    socket: Resource<UdpSocket>,
) -> SocketResult<(Vec<u8>, IpSocketAddress)> {
    let sockets = store.with_getter::<WasiSockets>(WasiSocketsView::sockets);
    let (data, remote) =
        <WasiSockets as HostUdpSocketWithStore<ComponentGuest>>::receive(&sockets, socket).await?;
    Ok((data, store.with(|mut access| shown(access.get(), remote))))
}
