use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{Network, PodIdentity};

/// Where the loopback addresses of pods lie when IPv6 has no range for them: a /64 of this machine's alone.
pub const LOOPBACK_PREFIX: Ipv6Addr = Ipv6Addr::new(0xfd63, 0x6f72, 0x6163, 0x6c65, 0, 0, 0, 0);

/// Where the addresses that a guest names lead: a pure table, without a socket.
///
/// Pods share a network namespace. So what stands for "all my addresses" and "myself" in a guest, the wildcard and the
/// loopback, becomes an address that is this pod's alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The pod lives in the node's own network: every address is what it is.
    Node,
    /// The pod has addresses of its own, or shares the node's.
    Pod(PodReach),
}

/// The addresses of one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodReach {
    /// The addresses by which others know the pod, the primary one first.
    pub addresses: Vec<IpAddr>,
    /// What its 127.0.0.1 is.
    pub loopback: Ipv4Addr,
    /// What its `::1` is; `None` where it has none.
    pub loopback_v6: Option<Ipv6Addr>,
}

/// Where a connection leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// To this address, from that source; from where the system likes when `None`.
    Address(IpAddr, Option<IpAddr>),
    /// To the pod itself: to the loopback where something listens there, else to the pod's address, as something that
    /// listens everywhere would be found by both.
    Itself {
        /// The pod's loopback.
        loopback: IpAddr,
        /// The pod's address of the same family.
        address: Option<IpAddr>,
    },
    /// Nowhere: it is not for this pod.
    Unreachable,
}

impl Reach {
    /// What the addresses of this pod are.
    #[must_use]
    pub fn of(pod: &PodIdentity, network: &Network) -> Self {
        if network.host {
            return Self::Node;
        }
        let own = network.addresses.iter();
        let primary = own.clone().find_map(|address| match address {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        });
        let shares = network.shared.then(|| fold(pod.uid.as_str()));
        let loopback = shares.map_or_else(|| loopback_of(&network.addresses), shared_loopback);
        let interface = own.clone().find_map(|address| match address {
            IpAddr::V6(address) => Some(u128::from(*address) & u128::from(u64::MAX)),
            IpAddr::V4(_) => None,
        });
        let interface = interface.or_else(|| primary.map(|address| u128::from(u32::from(address))));
        let loopback_v6 = interface.filter(|_| !network.shared);
        Self::Pod(PodReach {
            addresses: network.addresses.clone(),
            loopback,
            loopback_v6: loopback_v6.map(|interface| (u128::from(LOOPBACK_PREFIX) | interface).into()),
        })
    }

    /// The address to bind for the one that the guest names; `None` when that is none of its own.
    #[must_use]
    pub fn bind(&self, wanted: IpAddr) -> Option<IpAddr> {
        let Self::Pod(pod) = self else { return Some(wanted) };
        if wanted.is_unspecified() {
            return pod.address(wanted).or_else(|| pod.loopback(wanted));
        }
        if wanted.is_loopback() {
            return pod.loopback(wanted);
        }
        pod.addresses.contains(&wanted).then_some(wanted)
    }

    /// Where a connection to the address that the guest names leads.
    #[must_use]
    pub fn destination(&self, wanted: IpAddr) -> Destination {
        let Self::Pod(pod) = self else { return Destination::Address(wanted, None) };
        if wanted.is_loopback() {
            return match pod.loopback(wanted) {
                Some(loopback) => Destination::Itself { loopback, address: pod.address(wanted) },
                None => Destination::Unreachable,
            };
        }
        if is_a_pods_loopback(wanted) {
            return Destination::Unreachable;
        }
        match pod.address(wanted) {
            Some(source) => Destination::Address(wanted, Some(source)),
            None => Destination::Unreachable,
        }
    }

    /// What the guest is told an address is: its own loopback is 127.0.0.1 or `::1` to it.
    #[must_use]
    pub fn shown(&self, actual: IpAddr) -> IpAddr {
        match (self, actual) {
            (Self::Pod(pod), IpAddr::V4(actual)) if actual == pod.loopback => Ipv4Addr::LOCALHOST.into(),
            (Self::Pod(pod), IpAddr::V6(actual)) if Some(actual) == pod.loopback_v6 => {
                Ipv6Addr::LOCALHOST.into()
            }
            _ => actual,
        }
    }

    /// Whether a socket of the guest may stand on this address of the machine: the last word, whatever led there.
    #[must_use]
    pub fn owns(&self, address: IpAddr) -> bool {
        match self {
            Self::Node => true,
            Self::Pod(pod) => pod.addresses.contains(&address) || pod.loopback(address) == Some(address),
        }
    }

    /// Whether the guest may speak with this address of the machine: the last word, whatever led there.
    #[must_use]
    pub fn reaches(&self, address: IpAddr) -> bool {
        match self {
            Self::Node => true,
            Self::Pod(_) if self.owns(address) => true,
            Self::Pod(_) => !address.is_loopback() && !is_a_pods_loopback(address),
        }
    }
}

impl PodReach {
    /// The pod's address of the family of `like`.
    #[must_use]
    pub fn address(&self, like: IpAddr) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|address| address.is_ipv4() == like.is_ipv4())
    }

    /// The pod's loopback of the family of `like`.
    #[must_use]
    pub fn loopback(&self, like: IpAddr) -> Option<IpAddr> {
        if like.is_ipv4() { Some(self.loopback.into()) } else { self.loopback_v6.map(IpAddr::V6) }
    }
}

fn is_a_pods_loopback(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => address.segments()[..4] == LOOPBACK_PREFIX.segments()[..4],
    }
}

/// Within one range no two pods have the last three numbers of their addresses in common.
fn loopback_of(addresses: &[IpAddr]) -> Ipv4Addr {
    let number = addresses.first().map_or(0, |address| match address {
        IpAddr::V4(address) => u32::from(*address),
        IpAddr::V6(address) => fold_bytes(&address.octets()),
    });
    (0x7f00_0000 | number & 0x00ff_ffff).into()
}

/// Pods of one address are told apart by their names: in 127.64.0.0/10, where nobody else is.
fn shared_loopback(number: u32) -> Ipv4Addr {
    (0x7f40_0000 | number & 0x003f_ffff).into()
}

fn fold(text: &str) -> u32 {
    fold_bytes(text.as_bytes())
}

/// FNV-1a: the same in every build, and spread well enough.
fn fold_bytes(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
#[path = "reach_tests.rs"]
mod tests;
