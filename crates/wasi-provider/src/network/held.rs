//! The sockets that one instance has: as many as its container may have and the node has descriptors for.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::room::{Place, Room};

/// The sockets of one instance, which are its own until it ends.
pub(crate) struct Held {
    room: Arc<Room>,
    /// What is left of its container's share.
    share: Arc<Semaphore>,
    places: Mutex<Vec<(OwnedSemaphorePermit, Place)>>,
}

impl Held {
    pub(super) fn new(room: Arc<Room>, share: Arc<Semaphore>) -> Self {
        Self { room, share, places: Mutex::default() }
    }

    /// Whether there is room for one more socket, which is then taken.
    pub(super) fn take(&self) -> bool {
        let Ok(permit) = Arc::clone(&self.share).try_acquire_owned() else { return false };
        let Ok(place) = self.room.take_descriptors(1) else { return false };
        self.places.lock().push((permit, place));
        true
    }

    /// One of its sockets is closed.
    pub(super) fn give_back(&self) {
        drop(self.places.lock().pop());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_has_its_share_of_the_nodes_room_and_no_more() {
        let room = Arc::new(Room::of(40, 1));
        let share = Arc::new(Semaphore::new(2));
        let held = [Held::new(Arc::clone(&room), Arc::clone(&share)), Held::new(Arc::clone(&room), share)];
        assert!(held[0].take() && held[1].take() && !held[0].take());
        held[1].give_back();
        assert!(held[0].take());
        drop(held);
        let all = Held::new(Arc::clone(&room), Arc::new(Semaphore::new(100)));
        assert_eq!((0..100).filter(|_| all.take()).count(), 34);
        drop(all);
        assert!(room.take_descriptors(34).is_ok());
    }
}
