//! Serving HTTP: requests that come to a container's port are answered by instances of its program.
//!
//! While no request is being answered there is no instance. Each request gets a fresh one, unless the pod's annotations
//! allow instances to be used again; see [`Settings`].

mod alarm;
mod body;
mod connection;
mod desk;
mod exchange;
mod instances;
mod job;
mod journal;
mod pace;
mod patient;
mod pool;
mod refusal;
mod service;
mod settings;
mod work;
mod worker;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use exchange::Places;
use instances::MakeError;
use journal::Journal;
use pool::Pool;
use refusal::Refusal;
use service::Service;

use crate::container::Run;
use crate::end::Verdict;
use crate::log::Log;
use crate::network::Doorway;
use crate::room::Room;
use crate::tasks::Tasks;

pub(crate) use instances::Instances;
pub(crate) use settings::{Malformed, Settings};

/// Connections of one container at a time.
const MAX_CONNECTIONS: usize = 1_000;
/// Connections beyond that, or beyond the node's room, that are told so; others are closed.
const MAX_SURPLUS: usize = 100;
/// How long an instance that could take more requests waits for one.
const IDLE: Duration = Duration::from_secs(1);
/// How long to wait when the machine cannot give one more connection.
const OUT_OF_CONNECTIONS: Duration = Duration::from_millis(50);

/// What a container's server is made of.
pub(crate) struct Server {
    pub(crate) settings: Settings,
    pub(crate) instances: Instances,
    pub(crate) log: Log,
    pub(crate) run: Arc<Run>,
    pub(crate) room: Arc<Room>,
    /// Cancelled when it is to end.
    pub(crate) drain: CancellationToken,
    pub(crate) runtime: Handle,
}

impl Server {
    /// Serves until it is asked to end and has answered what it accepted. Dropping this ends whatever it began.
    ///
    /// # Errors
    /// No instance can be made: how that failed.
    pub(crate) async fn serve(self, doorway: Doorway) -> Verdict {
        let service = Arc::new(Service {
            settings: self.settings,
            instances: self.instances,
            journal: Arc::new(Journal::new(self.log)),
            run: self.run,
            drain: self.drain,
            pool: Pool::default(),
            tasks: Tasks::on(self.runtime),
            requests: Places::new(self.settings.concurrency),
        });
        // Proves that it can be; while nobody asks there is none.
        drop(service.instances.make().await.map_err(MakeError::into_error)?);
        Door::new(service, self.room).keep(doorway).await;
        Ok(Ok(()))
    }
}

/// Lets clients in.
struct Door {
    service: Arc<Service>,
    room: Arc<Room>,
    connections: Arc<Semaphore>,
    /// Those that are being turned away.
    surplus: Arc<Semaphore>,
}

impl Door {
    fn new(service: Arc<Service>, room: Arc<Room>) -> Self {
        let [connections, surplus] =
            [MAX_CONNECTIONS, MAX_SURPLUS].map(|most| Arc::new(Semaphore::new(most)));
        Self { service, room, connections, surplus }
    }

    /// Until the service is to end, and has answered all that came in.
    async fn keep(&self, doorway: Doorway) {
        let service = &self.service;
        tokio::select! {
            () = self.accept(&doorway) => {}
            () = self.retire() => {}
            () = service.drain.cancelled() => {}
        }
        self.accept_rest(doorway);
        service.pool.close();
        service.tasks.finished().await;
        debug!(container = %service.run.spec().id, counts = ?service.journal.counts(), "served");
    }

    async fn accept(&self, doorway: &Doorway) {
        loop {
            match doorway.accept().await {
                Ok(stream) => self.welcome(stream),
                // That connection went away before it was accepted.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    warn!(container = %self.service.run.spec().id, %error, "a connection cannot be accepted");
                    sleep(OUT_OF_CONNECTIONS).await;
                }
            }
        }
    }

    /// Accepts those whose connection was made before the doorway is shut.
    fn accept_rest(&self, doorway: Doorway) {
        for stream in doorway.close() {
            self.welcome(stream);
        }
    }

    fn welcome(&self, stream: TcpStream) {
        // Or the end of each answer would wait for the client's acknowledgement of its beginning.
        let _ = stream.set_nodelay(true);
        let Ok(permit) = Arc::clone(&self.connections).try_acquire_owned() else {
            return self.turn_away(stream, refusal::BUSY);
        };
        let Ok(place) = self.room.take_descriptors(1) else {
            return self.turn_away(stream, refusal::EXHAUSTED);
        };
        let serving = connection::serve(Arc::clone(&self.service), stream);
        self.service.tasks.spawn(async move {
            serving.await;
            drop((permit, place));
        });
    }

    fn turn_away(&self, stream: TcpStream, refusal: Refusal) {
        self.service.journal.refused();
        if let Ok(permit) = Arc::clone(&self.surplus).try_acquire_owned() {
            self.service.tasks.spawn(async move {
                connection::turn_away(stream, refusal).await;
                drop(permit);
            });
        }
    }

    /// Ends instances that nobody has needed for a while.
    async fn retire(&self) {
        let mut ticks = interval(IDLE / 2);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if self.service.settings.instance_requests == 1 {
                return std::future::pending().await;
            }
            ticks.tick().await;
            self.service.pool.retire(IDLE);
        }
    }
}

/// Whatever ends the keeping of the door ends what came in by it.
impl Drop for Door {
    fn drop(&mut self) {
        self.service.tasks.abort();
        self.service.pool.close();
    }
}
