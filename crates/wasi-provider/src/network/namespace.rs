//! The network namespace of the node's own in which pods live, and the link between it and the machine.
//!
//! Every address of the pods' ranges is local in it, so that none must be added before it is used. It has no name: it
//! lives as long as this process holds it, and what of it is in the machine's own network, the link and the routes over
//! it, goes with it, also after a SIGKILL.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use coracle_lifecycle::NodeNetwork;
use ipnet::IpNet;
use nix::sched::{CloneFlags, setns, unshare};
use parking_lot::Mutex;
use rtnetlink::Handle;
use thiserror::Error;
use tracing::warn;

use super::netlink;

/// Why pods cannot have a network of their own.
#[derive(Debug, Error)]
pub(crate) enum NamespaceError {
    /// The kernel does not let us, or not here.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// Every small network that could join the two sides is in use on this machine.
    #[error("no link-local network is free")]
    NoSubnet,
}

pub(super) type Result<T> = std::result::Result<T, NamespaceError>;

/// A network namespace that threads can enter.
pub(crate) struct Namespace(OwnedFd);

impl Namespace {
    /// Moves the calling thread into it: its sockets are made here from now on.
    pub(crate) fn enter(&self) -> io::Result<()> {
        Ok(setns(&self.0, CloneFlags::CLONE_NEWNET)?)
    }

    /// A new namespace, without a thread in it.
    fn make() -> Result<Self> {
        let made = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            // Pods with IPv6 addresses bind them though no interface has them.
            let _ = fs::write("/proc/sys/net/ipv6/ip_nonlocal_bind", "1");
            File::open("/proc/thread-self/ns/net").map(OwnedFd::from)
        });
        let made = made.join().unwrap_or_else(|panic| resume_unwind(panic));
        let made =
            made.map_err(|source| NamespaceError::System { what: "making a network namespace", source });
        made.map(Self)
    }
}

/// The namespace of a node's pods and the link to it; dropping it takes the link away.
pub(crate) struct PodNetwork {
    namespace: Arc<Namespace>,
    /// The machine's end of the link.
    link: String,
    ends: Ends,
    /// The ranges that lead here.
    led: Mutex<Vec<IpNet>>,
}

/// The two ends of the link.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    pub(super) host: Ipv4Addr,
    pub(super) pod: Ipv4Addr,
}

impl PodNetwork {
    /// Makes the network of the node whose files are in `mark`, and takes away what one of the same mark left.
    pub(crate) fn make(mark: &Path) -> Result<Self> {
        let namespace = Arc::new(Namespace::make()?);
        let (link, inside) = (link_name(mark), namespace.0.as_raw_fd());
        let ends = converse(None, async |netlink| netlink::make_link(&netlink, &link, inside).await)?;
        let network = Self { namespace, link, ends, led: Mutex::default() };
        converse(Some(network.inside()), async |netlink| netlink::furnish(&netlink, ends).await)?;
        // What pods send to others passes through this machine, as far as it forwards what comes back.
        let forwarding = format!("/proc/sys/net/ipv4/conf/{}/forwarding", network.link);
        let _ = fs::write(forwarding, "1");
        Ok(network)
    }

    /// The way into it.
    pub(crate) fn namespace(&self) -> Arc<Namespace> {
        Arc::clone(&self.namespace)
    }

    fn inside(&self) -> BorrowedFd<'_> {
        self.namespace.0.as_fd()
    }

    /// Makes these ranges, and no others, lead here; each address in them is one of this namespace.
    pub(crate) fn lead(&self, network: &NodeNetwork) -> Result<()> {
        let mut led = self.led.lock();
        for range in led.extract_if(.., |range| !network.ranges.contains(range)) {
            if let Err(error) = self.abandon(range) {
                warn!(%range, %error, "a range that is no longer the node's still leads to its pods");
            }
        }
        for range in &network.ranges {
            if !led.contains(range) {
                self.add(*range, network)?;
                led.push(*range);
            }
        }
        Ok(())
    }

    fn add(&self, range: IpNet, network: &NodeNetwork) -> Result<()> {
        converse(Some(self.inside()), async |netlink| netlink::make_local(&netlink, range).await)?;
        let (link, ends) = (self.link.as_str(), self.ends);
        converse(None, async |netlink| {
            netlink::make_route(&netlink, link, range, ends, &network.addresses).await
        })
    }

    fn abandon(&self, range: IpNet) -> Result<()> {
        let (link, ends) = (self.link.as_str(), self.ends);
        converse(None, async |netlink| netlink::forget_route(&netlink, link, range, ends).await)
    }
}

impl Drop for PodNetwork {
    fn drop(&mut self) {
        let link = self.link.as_str();
        let gone = converse(None, async |netlink| netlink::remove_link(&netlink, link).await);
        if let Err(error) = gone {
            warn!(link, %error, "the link to the pods' network cannot be removed");
        }
    }
}

/// Unlike any other node's on this machine: `coracle` and eight digits of where its files are.
fn link_name(mark: &Path) -> String {
    let mut hasher = DefaultHasher::new();
    mark.hash(&mut hasher);
    format!("coracle{:08x}", hasher.finish() & 0xffff_ffff)
}

/// Speaks with the kernel about the network of the machine, or of the namespace `inside`.
fn converse<T: Send>(
    inside: Option<BorrowedFd<'_>>,
    talk: impl AsyncFnOnce(Handle) -> Result<T> + Send,
) -> Result<T> {
    let speak = || {
        if let Some(namespace) = inside {
            setns(namespace, CloneFlags::CLONE_NEWNET).map_err(io::Error::from).map_err(speaking)?;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
        runtime.map_err(speaking)?.block_on(async {
            let (connection, netlink, _) = rtnetlink::new_connection().map_err(speaking)?;
            tokio::select! {
                outcome = talk(netlink) => outcome,
                () = connection => Err(speaking(io::ErrorKind::ConnectionAborted.into())),
            }
        })
    };
    thread::scope(|scope| scope.spawn(speak).join().unwrap_or_else(|panic| resume_unwind(panic)))
}

fn speaking(source: io::Error) -> NamespaceError {
    NamespaceError::System { what: "speaking with the kernel about the network", source }
}
