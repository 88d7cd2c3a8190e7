use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::PodUid;

/// The addresses that a node gives to its pods: one of each of its ranges, each pod's own until it is released.
///
/// An address that was just given back is given out again as late as possible, so that nobody who still knows the old
/// pod by it meets another one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressPool {
    ranges: Vec<Range>,
    taken: HashMap<PodUid, Vec<IpAddr>>,
    used: HashSet<IpAddr>,
}

impl AddressPool {
    /// Gives out addresses of these ranges from now on; what was given out stays.
    pub fn learn(&mut self, ranges: &[IpNet]) {
        if !ranges.iter().eq(self.ranges.iter().map(|range| &range.network)) {
            self.ranges = ranges.iter().copied().map(Range::new).collect();
        }
    }

    /// How many pods can have an address at a time; `None` when there is no range, so that none has one.
    #[must_use]
    pub fn capacity(&self) -> Option<u64> {
        self.ranges.iter().map(Range::size).min().map(|size| u64::try_from(size).unwrap_or(u64::MAX))
    }

    /// The pod's addresses, the same as long as it holds them. Those it had before, `earlier`, are given again where
    /// they are of these ranges and free. Empty when there is no range, or no address left in one of them.
    pub fn take(&mut self, uid: &PodUid, earlier: &[IpAddr]) -> Vec<IpAddr> {
        if let Some(taken) = self.taken.get(uid) {
            return taken.clone();
        }
        let Self { ranges, used, .. } = self;
        let chosen: Option<Vec<_>> = ranges.iter_mut().map(|range| range.choose(earlier, used)).collect();
        let chosen = chosen.unwrap_or_default();
        if !chosen.is_empty() {
            used.extend(&chosen);
            self.taken.insert(uid.clone(), chosen.clone());
        }
        chosen
    }

    /// Takes the pod's addresses back.
    pub fn release(&mut self, uid: &PodUid) {
        for address in self.taken.remove(uid).into_iter().flatten() {
            self.used.remove(&address);
        }
    }
}

/// One range, and where in it to look first for a free address.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Range {
    network: IpNet,
    next: u128,
}

impl Range {
    fn new(network: IpNet) -> Self {
        Self { network, next: 0 }
    }

    /// How many addresses it has: without the first and the last, which name the network itself and all in it.
    fn size(&self) -> u128 {
        let bits = (self.network.max_prefix_len() - self.network.prefix_len()).min(64);
        (1 << bits) - 2 * self.first()
    }

    /// The number of the first address that is given out; where there are only one or two, all are.
    fn first(&self) -> u128 {
        u128::from(self.network.prefix_len() + 1 < self.network.max_prefix_len())
    }

    fn nth(&self, number: u128) -> IpAddr {
        let offset = number + self.first();
        match self.network.network() {
            IpAddr::V4(first) => {
                IpAddr::V4((u32::from(first) | u32::try_from(offset).unwrap_or_default()).into())
            }
            IpAddr::V6(first) => IpAddr::V6((u128::from(first) | offset).into()),
        }
    }

    fn choose(&mut self, earlier: &[IpAddr], used: &HashSet<IpAddr>) -> Option<IpAddr> {
        let is_free = |address: &IpAddr| !used.contains(address);
        let again = earlier.iter().find(|address| self.network.contains(*address) && is_free(address));
        if let Some(address) = again {
            return Some(*address);
        }
        let size = self.size();
        let number =
            (0..size).map(|step| (self.next + step) % size).find(|number| is_free(&self.nth(*number)))?;
        self.next = (number + 1) % size;
        Some(self.nth(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(ranges: &[&str]) -> AddressPool {
        let mut pool = AddressPool::default();
        pool.learn(&ranges.iter().map(|range| range.parse().unwrap()).collect::<Vec<_>>());
        pool
    }

    fn take(pool: &mut AddressPool, uid: &str) -> Vec<String> {
        pool.take(&PodUid::new(uid), &[]).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_pod_has_its_own_and_keeps_it() {
        let mut pool = pool(&["10.244.16.0/20"]);
        assert_eq!(take(&mut pool, "a"), ["10.244.16.1"]);
        assert_eq!(take(&mut pool, "b"), ["10.244.16.2"]);
        assert_eq!(take(&mut pool, "a"), ["10.244.16.1"]);
    }

    #[test]
    fn what_was_given_back_is_given_out_last() {
        let mut pool = pool(&["10.0.0.0/29"]);
        let first = take(&mut pool, "a");
        pool.release(&PodUid::new("a"));
        let next: Vec<_> = (0..6).flat_map(|number| take(&mut pool, &number.to_string())).collect();
        assert_eq!(next[..5], ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"]);
        assert_eq!(next[5..], first);
    }

    #[test]
    fn a_range_without_a_free_address_gives_none_at_all() {
        let mut pool = pool(&["10.0.0.0/24", "fd00::/126"]);
        assert_eq!(pool.capacity(), Some(2));
        assert_eq!(take(&mut pool, "a"), ["10.0.0.1", "fd00::1"]);
        assert_eq!(take(&mut pool, "b"), ["10.0.0.2", "fd00::2"]);
        assert!(take(&mut pool, "c").is_empty());
        pool.release(&PodUid::new("a"));
        assert_eq!(take(&mut pool, "c"), ["10.0.0.4", "fd00::1"]);
    }

    #[test]
    fn an_earlier_address_is_given_again_where_it_can_be() {
        let mut pool = pool(&["10.0.0.0/24"]);
        let earlier = ["10.0.0.9".parse().unwrap()];
        assert_eq!(pool.take(&PodUid::new("a"), &earlier), earlier);
        assert_eq!(pool.take(&PodUid::new("b"), &earlier), ["10.0.0.1".parse::<IpAddr>().unwrap()]);
        let foreign = ["192.0.2.9".parse().unwrap()];
        assert_eq!(pool.take(&PodUid::new("c"), &foreign), ["10.0.0.2".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn sizes_leave_out_the_first_and_the_last() {
        for (range, size) in [
            ("10.0.0.0/24", 254),
            ("10.0.0.0/30", 2),
            ("10.0.0.0/31", 2),
            ("10.0.0.7/32", 1),
            ("fd00::/64", u64::MAX - 1),
            ("fd00::/8", u64::MAX - 1),
        ] {
            assert_eq!(pool(&[range]).capacity(), Some(size), "{range}");
        }
        assert_eq!(AddressPool::default().capacity(), None);
        assert!(take(&mut AddressPool::default(), "a").is_empty());
        assert_eq!(take(&mut pool(&["10.0.0.7/32"]), "a"), ["10.0.0.7"]);
    }
}
