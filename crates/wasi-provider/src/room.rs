//! Room for containers: descriptors and memory mappings, of which a process has few. Running out of mappings can end
//! the process, so containers are refused well before.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use coracle_lifecycle::StartError;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors of a container: its root and its log; each mount is one more.
const DESCRIPTORS_PER_CONTAINER: u64 = 2;
/// Mounts of an ordinary pod's container: its service account's token.
const USUAL_MOUNTS: u64 = 1;
/// Mappings of an ordinary container: measured, one memory and one fiber.
const USUAL_MAPPINGS: u64 = 7;
/// One container may have such a part of all descriptors for its connections, and no more than this.
const SHARES: u64 = 8;
const MOST_CONNECTIONS: usize = 10_000;
/// What remains for connections, images and files that guests open.
const KEPT_FOR_OTHERS: f64 = 0.15;

/// Raises the soft limit on open files to the hard limit, where that may be, and tells the limit then. To be called
/// before [`crate::WasiProvider::new`], which plans with what it finds.
#[expect(clippy::must_use_candidate, reason = "it is called for what it does")]
pub fn raise_descriptor_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    descriptor_limit()
}

fn descriptor_limit() -> u64 {
    // Without a limit the kernel's own default ceiling for a process holds.
    getrlimit(Resource::Nofile).current.unwrap_or(1 << 20)
}

fn mapping_limit() -> u64 {
    const LINUX_DEFAULT: u64 = 65_530;
    let text = fs::read_to_string("/proc/sys/vm/max_map_count").unwrap_or_default();
    text.trim().parse().unwrap_or(LINUX_DEFAULT)
}

/// What is left of the two budgets.
#[derive(Debug)]
pub(crate) struct Room {
    descriptors: Budget,
    mappings: Budget,
}

#[derive(Debug)]
struct Budget {
    limit: u64,
    used: AtomicU64,
}

impl Budget {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "a share of a number far below 2^52"
    )]
    fn of(limit: u64) -> Self {
        Self { limit: (limit as f64 * (1.0 - KEPT_FOR_OTHERS)) as u64, used: AtomicU64::new(0) }
    }

    fn take(&self, amount: u64) -> bool {
        let sum = |used: u64| used.checked_add(amount).filter(|sum| *sum <= self.limit);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum).is_ok()
    }

    fn give_back(&self, amount: u64) {
        self.used.fetch_sub(amount, Ordering::Relaxed);
    }
}

impl Room {
    /// The room this process has.
    pub(crate) fn of_process() -> Arc<Self> {
        Arc::new(Self::of(descriptor_limit(), mapping_limit()))
    }

    pub(crate) fn of(descriptors: u64, mappings: u64) -> Self {
        Self { descriptors: Budget::of(descriptors), mappings: Budget::of(mappings) }
    }

    /// How many ordinary containers have room.
    pub(crate) fn containers(&self) -> u32 {
        let by_descriptors = self.descriptors.limit / (DESCRIPTORS_PER_CONTAINER + USUAL_MOUNTS);
        let by_mappings = self.mappings.limit / USUAL_MAPPINGS;
        u32::try_from(by_descriptors.min(by_mappings)).unwrap_or(u32::MAX)
    }

    /// How many connections one container may have at a time: so few that several such leave room for the others.
    pub(crate) fn connections(&self) -> usize {
        usize::try_from(self.descriptors.limit / SHARES).unwrap_or(usize::MAX).clamp(1, MOST_CONNECTIONS)
    }

    /// Takes the room of one container, until what is returned is dropped.
    pub(crate) fn take(self: &Arc<Self>, mounts: usize, mappings: u64) -> Result<Place, StartError> {
        let mut place = self.take_descriptors(DESCRIPTORS_PER_CONTAINER + mounts as u64)?;
        place.add_mappings(mappings)?;
        Ok(place)
    }

    /// Takes room for open files and connections.
    pub(crate) fn take_descriptors(self: &Arc<Self>, descriptors: u64) -> Result<Place, StartError> {
        if !self.descriptors.take(descriptors) {
            return Err(exhausted("descriptors (RLIMIT_NOFILE)", self.descriptors.limit));
        }
        Ok(Place { room: Arc::clone(self), descriptors, mappings: 0 })
    }

    /// Takes room for one more instance of a container.
    pub(crate) fn take_mappings(self: &Arc<Self>, mappings: u64) -> Result<Place, StartError> {
        let mut place = Place { room: Arc::clone(self), descriptors: 0, mappings: 0 };
        place.add_mappings(mappings)?;
        Ok(place)
    }
}

fn exhausted(what: &str, limit: u64) -> StartError {
    StartError::Exhausted(format!(
        "no room for one more container: all {limit} {what} that containers may have are taken"
    ))
}

/// Room that was taken.
#[derive(Debug)]
pub(crate) struct Place {
    room: Arc<Room>,
    descriptors: u64,
    mappings: u64,
}

impl Place {
    fn add_mappings(&mut self, mappings: u64) -> Result<(), StartError> {
        if !self.room.mappings.take(mappings) {
            return Err(exhausted("memory mappings (vm.max_map_count)", self.room.mappings.limit));
        }
        self.mappings += mappings;
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.room.descriptors.give_back(self.descriptors);
        self.room.mappings.give_back(self.mappings);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_refused_before_it_is_gone_and_comes_back() {
        let room = Arc::new(Room::of(10, 100));
        let places = [room.take(1, 7).unwrap(), room.take(1, 7).unwrap()];
        assert!(room.take(1, 7).unwrap_err().to_string().contains("descriptors"));
        drop(places);
        let _place = room.take(1, 80).unwrap();
        assert!(room.take(1, 7).unwrap_err().to_string().contains("memory mappings"));
        assert_eq!(room.descriptors.used.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn capacity_follows_from_the_scarcer_of_both() {
        assert_eq!(Room::of(20_000, 65_530).containers(), 5_666);
        assert_eq!(Room::of(1 << 20, 65_530).containers(), 7_957);
        assert!(raise_descriptor_limit() >= 256);
    }

    #[test]
    fn one_container_cannot_have_all_connections() {
        let of = |descriptors| Room::of(descriptors, 1).connections();
        assert_eq!([of(1), of(20_000), of(1 << 20)], [1, 2_125, 10_000]);
    }
}
