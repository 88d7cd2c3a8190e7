//! The address ranges of a cluster. Two clusters on one machine must not use the same.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use anyhow::Context;

/// How many clusters can be on one machine at a time.
const RANGES: u8 = 60;

/// The ranges of one cluster, held until this value is dropped or the process is gone.
pub(super) struct Addresses {
    number: u8,
    /// A name in the abstract socket namespace can be bound once; the kernel frees it with the process.
    _claim: UnixListener,
}

impl Addresses {
    pub(super) fn claim() -> anyhow::Result<Self> {
        let first = fastrand::u8(0..RANGES);
        (0..RANGES)
            .map(|step| (first + step) % RANGES)
            .find_map(|number| Some(Self { number, _claim: claim(number)? }))
            .context("every address range is in use by another test cluster")
    }

    /// The range from which nodes get theirs.
    pub(super) fn pods(&self) -> String {
        format!("10.{}.0.0/16", 130 + 2 * self.number)
    }

    /// The range of Services.
    pub(super) fn services(&self) -> String {
        format!("10.{}.0.0/22", 131 + 2 * self.number)
    }

    /// The first address of the services' range: the Service `kubernetes`.
    pub(super) fn kubernetes_service(&self) -> String {
        format!("10.{}.0.1", 131 + 2 * self.number)
    }
}

fn claim(number: u8) -> Option<UnixListener> {
    let name = SocketAddr::from_abstract_name(format!("coracle-testing-addresses-{number}")).ok()?;
    UnixListener::bind_addr(&name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_clusters_differ() {
        let (one, other) = (Addresses::claim().unwrap(), Addresses::claim().unwrap());
        assert_ne!(one.pods(), other.pods());
        assert_ne!(one.services(), other.services());
    }
}
