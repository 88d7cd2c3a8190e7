//! The node's HTTP API, over TLS: what the API server asks the node for on behalf of `kubectl logs` and others.
//!
//! Every request, to whatever path, passes the [`Gate`] first: a client certificate says who asks, the API server
//! says whether they may.

mod attributes;
mod connection;
mod gate;
mod identity;
mod logs;
mod routes;
mod stats;
mod tls;

#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use connection::Shared;
pub use gate::Gate;
pub use logs::Logs;
pub use stats::Stats;
pub use tls::{ClientAuthorities, ServingCertificate, TlsError, server_config};

/// How many connections there may be at a time; further ones wait to be accepted.
const CONNECTIONS: usize = 4096;

/// How long to wait when the process is out of descriptors.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// The address cannot be listened on.
#[derive(Debug, Error)]
#[error("cannot listen on {address}")]
pub struct BindError {
    /// The address asked for.
    pub address: SocketAddr,
    /// Why not.
    #[source]
    pub source: io::Error,
}

/// A server that has its port, and answers nobody yet.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    /// Takes the port of `address`; port 0 means any.
    ///
    /// # Errors
    /// [`BindError`] when the address is in use or not this machine's.
    pub async fn bind(address: SocketAddr) -> Result<Self, BindError> {
        let failed = |source| BindError { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    /// The address it listens on, with the port it was given.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `shutdown`; then requests in flight have two seconds to end. Returns when every connection is
    /// closed.
    pub async fn serve(
        self,
        tls: Arc<ServerConfig>,
        gate: Gate,
        (logs, stats): (Logs, Stats),
        shutdown: CancellationToken,
    ) {
        let shared = Shared { tls, gate, routes: routes::routes(logs, stats), shutdown: shutdown.clone() };
        let mut connections = JoinSet::new();
        shutdown.run_until_cancelled(self.accept(&shared, &mut connections)).await;
        drop(self.listener);
        while let Some(ended) = connections.join_next().await {
            report(ended);
        }
    }

    async fn accept(&self, shared: &Shared, connections: &mut JoinSet<()>) {
        let free = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            while let Some(ended) = connections.try_join_next() {
                report(ended);
            }
            let Ok(permit) = Arc::clone(&free).acquire_owned().await else { return };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let shared = shared.clone();
                    connections.spawn(async move {
                        shared.serve(stream).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    warn!(%error, "a connection cannot be accepted");
                    tokio::time::sleep(EXHAUSTED).await;
                }
            }
        }
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        warn!(%error, "a connection's task failed");
    }
}
