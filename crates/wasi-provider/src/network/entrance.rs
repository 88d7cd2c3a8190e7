//! Where connections come into a container, until it is asked to end.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::mem::take;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Doorway, bolt};
use crate::room::{Place, Room};

/// The listening sockets of a container, and how many connections are inside.
#[derive(Default)]
pub(crate) struct Entrance {
    closing: CancellationToken,
    listeners: Vec<Arc<Listener>>,
    /// Where the guest listens with sockets that it has made itself.
    own: Mutex<HashSet<SocketAddr>>,
    inside: watch::Sender<usize>,
}

/// A socket that takes connections in.
pub(crate) struct Listener {
    state: Mutex<State>,
    /// Whoever waits for a connection when the socket is closed.
    waiting: AtomicWaker,
    entrance: watch::Sender<usize>,
    room: Arc<Room>,
}

struct State {
    /// `None` once it is closed.
    socket: Option<Doorway>,
    /// Those that came and were not taken yet.
    arrived: VecDeque<Connection>,
    /// Whether the guest has ever asked for a connection.
    is_used: bool,
}

/// A connection that came in: inside until it is dropped.
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    inside: watch::Sender<usize>,
    _place: Place,
}

impl Entrance {
    /// One through these sockets.
    pub(crate) fn new(sockets: Vec<Doorway>, room: &Arc<Room>) -> Self {
        let inside = watch::Sender::new(0);
        let listeners = sockets.into_iter().map(|socket| Arc::new(Listener::new(socket, &inside, room)));
        Self { listeners: listeners.collect(), inside, ..Self::default() }
    }

    /// Its sockets in their order.
    pub(crate) fn listeners(&self) -> &[Arc<Listener>] {
        &self.listeners
    }

    /// The guest will listen here with a socket of its own.
    pub(super) fn add(&self, address: SocketAddr) {
        self.own.lock().insert(address);
    }

    /// Whether the guest was ever to listen with a socket of its own.
    pub(crate) fn holds_sockets(&self) -> bool {
        !self.own.lock().is_empty()
    }

    /// A connection has come to a socket of the guest's own.
    pub(super) fn let_in(&self) {
        self.inside.send_modify(|inside| *inside += 1);
    }

    /// The guest has closed a socket with this address, which may be that of a connection that came in.
    pub(super) fn let_out(&self, address: SocketAddr) {
        if self.own.lock().contains(&address) {
            self.inside.send_modify(|inside| *inside = inside.saturating_sub(1));
        }
    }

    /// Asks it to let nobody in any more; tells whether anybody may be inside.
    pub(crate) fn close(&self) -> bool {
        self.closing.cancel();
        !self.listeners.is_empty() || !self.own.lock().is_empty() || *self.inside.borrow() > 0
    }

    /// Cancelled when it is closed.
    pub(crate) fn closing(&self) -> CancellationToken {
        self.closing.clone()
    }

    /// Closes the sockets that were made for the guest, which has ended: the next may have them at once.
    pub(crate) fn abandon(&self) {
        for listener in &self.listeners {
            listener.abandon();
        }
    }

    /// Waits until it was closed and all who had come are gone. To be called in the runtime that runs guests.
    pub(crate) async fn deserted(&self) {
        self.closing.cancelled().await;
        for listener in &self.listeners {
            listener.close();
        }
        let own = self.own.lock().clone();
        let shut = tokio::task::spawn_blocking(move || bolt::shut_all(&own)).await.unwrap_or_default();
        let is_deserted = |inside: &usize| *inside == 0 && !shut.iter().any(bolt::is_awaited);
        // `self` holds the sender, so this ends with a change only.
        let _ = self.inside.subscribe().wait_for(is_deserted).await;
    }
}

impl Listener {
    fn new(socket: Doorway, inside: &watch::Sender<usize>, room: &Arc<Room>) -> Self {
        let state = State { socket: Some(socket), arrived: VecDeque::new(), is_used: false };
        let (state, entrance) = (Mutex::new(state), inside.clone());
        Self { state, waiting: AtomicWaker::new(), entrance, room: Arc::clone(room) }
    }

    /// Ready when there is a connection to take; never again after it was closed and all are taken.
    ///
    /// # Errors
    /// The system cannot give one.
    pub(crate) fn poll_arrived(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.waiting.register(context.waker());
        let mut state = self.state.lock();
        state.is_used = true;
        while state.arrived.is_empty() {
            let Some(socket) = &state.socket else { return Poll::Pending };
            let stream = ready!(socket.poll_accept(context))?;
            let connection = self.let_in(stream);
            state.arrived.extend(connection);
        }
        Poll::Ready(Ok(()))
    }

    /// A connection that has arrived.
    pub(crate) fn take(&self) -> Option<Connection> {
        self.state.lock().arrived.pop_front()
    }

    /// `None` when the container or the node has no room for one more: the connection is closed.
    fn let_in(&self, stream: TcpStream) -> Option<Connection> {
        let is_full = *self.entrance.borrow() >= self.room.connections();
        let place = self.room.take_descriptors(1).ok().filter(|_| !is_full)?;
        // Guests cannot ask for it, and without it small answers wait for acknowledgements.
        let _ = stream.set_nodelay(true);
        self.entrance.send_modify(|inside| *inside += 1);
        Some(Connection { stream, inside: self.entrance.clone(), _place: place })
    }

    fn abandon(&self) {
        let mut state = self.state.lock();
        let left = (state.socket.take(), take(&mut state.arrived));
        drop(state);
        drop(left);
    }

    /// Lets in whoever has come by now, and nobody else. A guest that never asked for a connection gets none.
    fn close(&self) {
        let mut state = self.state.lock();
        let Some(socket) = state.socket.take() else { return };
        let come = socket.close();
        if state.is_used {
            state.arrived.extend(come.into_iter().filter_map(|stream| self.let_in(stream)));
        }
        self.waiting.wake();
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.inside.send_modify(|inside| *inside -= 1);
    }
}
