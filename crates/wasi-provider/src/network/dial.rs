//! Connections that the node opens for a guest.

use std::io;
use std::net::{IpAddr, SocketAddr};

use thiserror::Error;
use tokio::net::{TcpSocket, TcpStream};

use super::names::LookupError;
use super::{GuestNetwork, Transport};

/// Why there is no connection.
#[derive(Debug, Error)]
pub(crate) enum ConnectError {
    /// The name has no address.
    #[error("the name cannot be looked up: {0:?}")]
    Name(LookupError),
    /// None of its addresses is for this pod.
    #[error("the address is out of the pod's reach")]
    Unreachable,
    /// Nobody answers there.
    #[error(transparent)]
    Failed(#[from] io::Error),
}

impl GuestNetwork {
    /// Connects to a name or an address from the pod's own, to the first of several addresses that answers. To be called
    /// on a thread that runs guests of this pod.
    ///
    /// # Errors
    /// The name is unknown, or no address of it can be reached: the cause of the last one.
    pub(crate) async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, ConnectError> {
        let addresses = self.names.look_up(host).await.map_err(ConnectError::Name)?;
        let mut failure = ConnectError::Unreachable;
        for address in addresses {
            match self.connect_to(address, port).await {
                Ok(stream) => return Ok(stream),
                // What was tried says more than what was not.
                Err(ConnectError::Unreachable) => {}
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    async fn connect_to(&self, address: IpAddr, port: u16) -> Result<TcpStream, ConnectError> {
        let wanted = SocketAddr::new(address, port);
        let way = self.way(wanted, Transport::Tcp).ok_or(ConnectError::Unreachable)?;
        let socket = if way.to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        if let Some(from) = way.from {
            socket.bind(from)?;
        }
        Ok(socket.connect(way.to).await?)
    }
}

impl From<ConnectError> for wasmtime_wasi_http::Error {
    fn from(error: ConnectError) -> Self {
        let no_name =
            |rcode: Option<&str>| Self::DnsError { rcode: rcode.map(str::to_owned), info_code: None };
        match error {
            ConnectError::Name(LookupError::Invalid) => Self::HttpRequestUriInvalid,
            ConnectError::Name(LookupError::Unknown) => no_name(Some("NXDOMAIN")),
            ConnectError::Name(LookupError::Temporary) => Self::DnsTimeout,
            ConnectError::Name(LookupError::Permanent) => no_name(None),
            ConnectError::Unreachable => Self::DestinationIpProhibited,
            ConnectError::Failed(error) => match error.kind() {
                io::ErrorKind::ConnectionRefused => Self::ConnectionRefused,
                io::ErrorKind::TimedOut => Self::ConnectionTimeout,
                io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
                    Self::DestinationIpUnroutable
                }
                _ => Self::Connect(error),
            },
        }
    }
}
