//! The network as guests see it.
//!
//! Pods share a network namespace, and sockets are wasmtime's own. So a guest's addresses are translated on the way
//! between it and wasmtime, by the table [`Reach`]; wasmtime asks once more before it acts, which holds even where a
//! translation would be missing.

pub(crate) mod bolt;
mod concurrent;
mod dial;
mod doorway;
mod entrance;
pub(crate) mod forward;
mod held;
mod lookup;
mod names;
mod namespace;
mod netlink;
mod servers;
mod tcp;
mod udp;

use std::future::ready;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use coracle_lifecycle::{ContainerSpec, Destination, Reach};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};
use tokio::sync::Semaphore;
use wasmtime::component::Linker;
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::sockets::SocketAddrUse;

use crate::guest::ComponentGuest;
use crate::room::Room;
pub(crate) use doorway::Doorway;
pub(crate) use entrance::{Connection, Entrance, Listener};
pub(crate) use held::Held;
use names::Names;
pub(crate) use namespace::{Namespace, PodNetwork};

/// Puts what guests see of the network in the place of what wasmtime offers.
///
/// # Errors
/// When wasmtime does not offer it under the name it had.
pub(crate) fn add_to_linker(linker: &mut Linker<ComponentGuest>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    tcp::add_to_linker(linker)?;
    udp::add_to_linker(linker)?;
    concurrent::add_to_linker(linker)?;
    lookup::add_to_linker(linker)?;
    linker.allow_shadowing(false);
    Ok(())
}

/// The network of one container.
pub(crate) struct GuestNetwork {
    reach: Reach,
    names: Names,
    entrance: Arc<Entrance>,
    room: Arc<Room>,
    /// How many sockets its instances may still have.
    share: Arc<Semaphore>,
}

/// What a socket speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    Tcp,
    Udp,
}

/// Where a socket is to connect, and from which of its addresses when that is not the system's choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Way {
    to: SocketAddr,
    from: Option<SocketAddr>,
}

impl GuestNetwork {
    pub(crate) fn new(spec: &ContainerSpec, entrance: Arc<Entrance>, room: &Arc<Room>) -> Arc<Self> {
        let reach = Reach::of(&spec.pod, &spec.network);
        let names = Names::new(&spec.network.dns, &reach, &spec.root);
        let (room, share) = (Arc::clone(room), Arc::new(Semaphore::new(room.connections())));
        Arc::new(Self { reach, names, entrance, room, share })
    }

    /// Lets an instance use sockets, as far as they are its own; what it has of them.
    pub(crate) fn open(self: &Arc<Self>, world: &mut WasiCtxBuilder) -> Arc<Held> {
        let held = Arc::new(Held::new(Arc::clone(&self.room), Arc::clone(&self.share)));
        let (network, sockets) = (Arc::clone(self), Arc::clone(&held));
        world.allow_tcp(true).allow_udp(true).allow_ip_name_lookup(true);
        world.socket_addr_check(move |address, purpose| {
            // A connection that is not permitted is reset, and the guest waits for the next.
            let has_room = !matches!(purpose, SocketAddrUse::TcpAccept) || sockets.take();
            let permitted = has_room && network.permits(address.ip(), purpose);
            if permitted {
                network.note(address, purpose);
            }
            Box::pin(ready(permitted))
        });
        held
    }

    fn note(&self, address: SocketAddr, purpose: SocketAddrUse) {
        match purpose {
            SocketAddrUse::TcpListen => self.entrance.add(address),
            SocketAddrUse::TcpAccept => self.entrance.let_in(),
            _ => {}
        }
    }

    /// The guest closes a socket that was bound to this address.
    fn closed(&self, address: SocketAddr) {
        self.entrance.let_out(address);
    }

    fn permits(&self, address: IpAddr, purpose: SocketAddrUse) -> bool {
        match purpose {
            SocketAddrUse::TcpBind | SocketAddrUse::TcpListen | SocketAddrUse::UdpBind => {
                self.reach.owns(address)
            }
            SocketAddrUse::TcpConnect | SocketAddrUse::UdpSend => self.reach.reaches(address),
            // Whoever came here could.
            SocketAddrUse::TcpAccept | SocketAddrUse::UdpReceive => true,
        }
    }

    /// The address to bind for what the guest names; `None` when it is none of its own.
    fn bind(&self, wanted: SocketAddr) -> Option<SocketAddr> {
        self.reach.bind(wanted.ip()).map(|address| moved(wanted, address))
    }

    /// The address to bind for a guest that names none.
    fn any(&self, like: IpAddr) -> Option<SocketAddr> {
        let any = match like {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
        };
        self.bind(SocketAddr::new(any, 0))
    }

    /// The way to what the guest names; `None` when there is none for it.
    fn way(&self, wanted: SocketAddr, transport: Transport) -> Option<Way> {
        let from = |source: IpAddr| SocketAddr::new(source, 0);
        match self.reach.destination(wanted.ip()) {
            Destination::Address(address, source) => {
                Some(Way { to: moved(wanted, address), from: source.map(from) })
            }
            Destination::Itself { loopback, address } => {
                let at_loopback = moved(wanted, loopback);
                let address = address.filter(|_| !is_taken(at_loopback, transport)).unwrap_or(loopback);
                Some(Way { to: moved(wanted, address), from: Some(from(address)) })
            }
            Destination::Unreachable => None,
        }
    }

    /// What the guest is told an address is.
    fn shown(&self, actual: SocketAddr) -> SocketAddr {
        moved(actual, self.reach.shown(actual.ip()))
    }
}

fn moved(mut address: SocketAddr, to: IpAddr) -> SocketAddr {
    address.set_ip(to);
    address
}

/// Whether something listens there: then nobody else can bind it.
fn is_taken(address: SocketAddr, transport: Transport) -> bool {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let kind = if transport == Transport::Tcp { SocketType::STREAM } else { SocketType::DGRAM };
    let Ok(socket) = socket_with(family, kind, SocketFlags::CLOEXEC, None) else { return false };
    if transport == Transport::Tcp {
        // Without it, connections that were closed a moment ago would count too.
        let _ = sockopt::set_socket_reuseaddr(&socket, true);
    }
    bind(&socket, &address) == Err(Errno::ADDRINUSE)
}

#[cfg(test)]
#[path = "network/tests.rs"]
mod tests;
