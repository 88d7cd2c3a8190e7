//! Shuts listening sockets without a loss: first the system drops whatever asks for a new connection, then those who have
//! come are let in, then nobody is left whom the socket's end could hurt.
//!
//! A socket that only wasmtime knows is shut and stays: a guest whose socket fails may give up, and those whom it serves
//! with it.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{getsockname, sockopt};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use socket2::{SockFilter, SockRef};
use tokio::net::{TcpListener, TcpStream};
use tracing::warn;

/// Drops a TCP segment that asks for a connection, as the kernel's packet filter says it: load the byte of the flags, look
/// at SYN, take nothing of the segment or all of it.
const NO_REQUESTS: [SockFilter; 4] = [
    SockFilter::new(0x30, 0, 0, 13),
    SockFilter::new(0x45, 0, 1, 2),
    SockFilter::new(0x06, 0, 0, 0),
    SockFilter::new(0x06, 0, 0, u32::MAX),
];

/// Shuts a socket for good, and gives those who had come.
pub(crate) fn close(listener: TcpListener) -> Vec<TcpStream> {
    shut(&listener);
    let Ok(listener) = listener.into_std() else { return Vec::new() };
    let accepted = std::iter::from_fn(|| listener.accept().ok());
    let streams = accepted.map(|(stream, _)| {
        stream.set_nonblocking(true)?;
        TcpStream::from_std(stream)
    });
    streams.filter_map(io::Result::ok).collect()
}

fn shut(socket: &impl AsFd) {
    if let Err(error) = SockRef::from(socket).attach_filter(&NO_REQUESTS) {
        warn!(%error, "a socket cannot be shut");
    }
}

/// Shuts the sockets of this process that listen on these addresses, and gives them.
pub(super) fn shut_all(addresses: &HashSet<SocketAddr>) -> Vec<OwnedFd> {
    if addresses.is_empty() {
        return Vec::new();
    }
    let found = find(addresses).unwrap_or_else(|error| {
        warn!(%error, "the sockets of a guest cannot be found to be shut");
        Vec::new()
    });
    found.iter().for_each(shut);
    found
}

/// Whether a connection waits for the guest to accept it.
pub(super) fn is_awaited(socket: &OwnedFd) -> bool {
    let mut ask = [PollFd::new(socket, PollFlags::IN)];
    poll(&mut ask, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
}

fn find(addresses: &HashSet<SocketAddr>) -> io::Result<Vec<OwnedFd>> {
    let own = pidfd_open(getpid(), PidfdFlags::empty())?;
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let number = entry?.file_name().to_str().and_then(|name| name.parse().ok());
        // It may be closed by now, and another in its place: only what it is counts.
        let socket = number.and_then(|number| pidfd_getfd(&own, number, PidfdGetfdFlags::empty()).ok());
        found.extend(socket.filter(|socket| listens(socket, addresses)));
    }
    Ok(found)
}

fn listens(socket: &OwnedFd, addresses: &HashSet<SocketAddr>) -> bool {
    sockopt::socket_acceptconn(socket) == Ok(true)
        && getsockname(socket)
            .ok()
            .and_then(|address| SocketAddr::try_from(address).ok())
            .is_some_and(|address| addresses.contains(&address))
}
