//! Who may run a container's guest code, and when nobody may any more.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Set when nobody may begin a turn any more; the other bits count the turns being had.
const CLOSED: usize = 1 << (usize::BITS - 1);

/// The turns of one container's instances. Closing waits for nobody: it tells whether somebody is still at work.
#[derive(Debug, Default)]
pub(crate) struct Turns(AtomicUsize);

impl Turns {
    /// Begins a turn, unless they are closed. Each turn begun is to be given back.
    pub(crate) fn begin(&self) -> bool {
        let one_more = |now: usize| (now & CLOSED == 0).then_some(now + 1);
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).is_ok()
    }

    /// Gives a turn back, and tells whether it was the last one after the close.
    pub(crate) fn give_back(&self) -> bool {
        self.0.fetch_sub(1, Ordering::AcqRel) == CLOSED + 1
    }

    /// Lets nobody begin a turn any more, and tells whether nobody has one. Later calls tell the same.
    pub(crate) fn close(&self) -> bool {
        self.0.fetch_or(CLOSED, Ordering::AcqRel) & !CLOSED == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_turn_after_the_close_is_told() {
        let turns = Turns::default();
        assert!(turns.begin() && turns.begin());
        assert!(!turns.give_back());
        assert!(!turns.close());
        assert!(!turns.begin());
        assert!(turns.give_back());
    }

    #[test]
    fn a_close_without_turns_is_final_at_once() {
        let turns = Turns::default();
        assert!(turns.begin());
        assert!(!turns.give_back());
        assert!(turns.close() && turns.close());
        assert!(!turns.begin());
    }
}
