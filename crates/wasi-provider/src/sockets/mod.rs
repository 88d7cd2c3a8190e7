//! Sockets of wasip1 modules, which wasmtime does not offer: the ports that a container declares, as listening sockets
//! that it finds open, and the connections that it accepts from them.
//!
//! They come as systemd hands them to a service: `LISTEN_FDS` says how many, the first is descriptor 3. A module's
//! directories follow. <https://www.freedesktop.org/software/systemd/man/latest/sd_listen_fds.html>

mod calls;
mod memory;
mod poll;

use std::collections::BTreeMap;
use std::sync::Arc;

use wasmtime_wasi::p1::types::Errno;

use crate::network::{Connection, Listener};
use memory::Refused;

pub(crate) use calls::add_to_linker;

/// The first descriptor that a guest finds open beside its input and output: `SD_LISTEN_FDS_START`.
const FIRST_LISTENER: u32 = 3;
/// The first descriptor of a connection: no guest has as many files open as would lead there.
const FIRST_CONNECTION: u32 = 1 << 16;

/// The sockets of one guest, by descriptor.
pub(crate) struct Sockets {
    open: BTreeMap<u32, Socket>,
}

#[derive(Clone)]
struct Socket {
    kind: SocketKind,
    is_nonblocking: bool,
}

#[derive(Clone)]
enum SocketKind {
    Listener(Arc<Listener>),
    Connection(Arc<Connection>),
}

impl Sockets {
    /// These listening sockets, which a guest that cannot wait in more than one place at a time has non-blocking.
    pub(crate) fn new(listeners: &[Arc<Listener>], are_nonblocking: bool) -> Self {
        let listeners = listeners.iter().map(|listener| Socket {
            kind: SocketKind::Listener(Arc::clone(listener)),
            is_nonblocking: are_nonblocking,
        });
        Self { open: (FIRST_LISTENER..).zip(listeners).collect() }
    }

    fn find(&self, descriptor: i32) -> Option<&Socket> {
        self.open.get(&descriptor.cast_unsigned())
    }

    fn find_mut(&mut self, descriptor: i32) -> Option<&mut Socket> {
        self.open.get_mut(&descriptor.cast_unsigned())
    }

    fn close(&mut self, descriptor: i32) -> Option<Socket> {
        self.open.remove(&descriptor.cast_unsigned())
    }

    /// Gives a socket another descriptor, in the place of the socket that had it.
    fn rename(&mut self, descriptor: i32, to: i32) {
        if let Some(socket) = self.close(descriptor) {
            self.open.insert(to.cast_unsigned(), socket);
        }
    }

    /// The descriptor of a new connection: the lowest that is free.
    fn add(&mut self, connection: Connection, is_nonblocking: bool) -> u32 {
        let taken = self.open.range(FIRST_CONNECTION..).map(|(descriptor, _)| *descriptor);
        let free = (FIRST_CONNECTION..).zip(taken).find(|(wanted, taken)| wanted != taken);
        let count = self.open.range(FIRST_CONNECTION..).count();
        let next = || FIRST_CONNECTION.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
        let descriptor = free.map_or_else(next, |(wanted, _)| wanted);
        let kind = SocketKind::Connection(Arc::new(connection));
        self.open.insert(descriptor, Socket { kind, is_nonblocking });
        descriptor
    }
}

impl Socket {
    fn connection(&self) -> Result<&Arc<Connection>, Refused> {
        match &self.kind {
            SocketKind::Connection(connection) => Ok(connection),
            SocketKind::Listener(_) => Err(Refused(Errno::Notconn)),
        }
    }

    fn listener(&self) -> Result<&Arc<Listener>, Refused> {
        match &self.kind {
            SocketKind::Listener(listener) => Ok(listener),
            SocketKind::Connection(_) => Err(Refused(Errno::Inval)),
        }
    }
}
