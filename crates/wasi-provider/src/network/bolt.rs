//! Shuts listening sockets without a loss: first the system refuses whoever asks for a new connection, then those who have
//! come are let in, then nobody is left whom the socket's end could hurt.
//!
//! A socket that only wasmtime knows is shut and stays: a guest whose socket fails may give up, and those whom it serves
//! with it.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{getsockname, sockopt};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tracing::warn;

/// The largest number that an interface can have, which none has. A socket that listens there alone is not found by a request for a
/// connection, which the system then refuses; connections that had begun before keep what they had.
const NOWHERE: NonZeroU32 = NonZeroU32::new(i32::MAX.cast_unsigned()).expect("it is not zero");

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
    if let Err(error) = SockRef::from(socket).bind_device_by_index_v4(Some(NOWHERE)) {
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
