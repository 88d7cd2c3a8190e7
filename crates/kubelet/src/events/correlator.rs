//! What becomes of an Event before it is written, by the rules of client-go's `EventCorrelator`: of many that differ only
//! in their message one is made, one that happened before is counted up, and an object that has too much to tell is
//! not heard.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hash, RandomState};
use std::time::Duration;

use k8s_openapi::api::core::v1::Event;
use tokio::time::Instant;

use super::shortened;

/// How many keys of each kind are remembered.
const REMEMBERED: usize = 4_096;
/// From this many messages on, Events that differ in nothing else become one.
const ALIKE: usize = 10;
/// What was not heard of for so long is no longer alike.
const ALIKE_WITHIN: Duration = Duration::from_mins(10);
/// How many Events an object may have at once, each of its two types for itself.
const BURST: f64 = 25.0;
/// How long it takes until it may have one more.
const REFILL: Duration = Duration::from_mins(5);

/// An Event to write.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) event: Event,
    /// It was written before, under the same name: only its count, time and message are new.
    pub(super) is_known: bool,
}

/// What was written before, as far as the next Event depends on it.
#[derive(Default)]
pub(super) struct Correlator {
    hasher: RandomState,
    alike: Memory<Alike>,
    written: Memory<Written>,
    budgets: Memory<Budget>,
}

struct Alike {
    messages: HashSet<u64>,
    seen_at: Instant,
}

#[derive(Clone)]
struct Written {
    name: Option<String>,
    count: i32,
    first: Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>,
}

struct Budget {
    left: f64,
    filled_at: Instant,
}

impl Correlator {
    /// What is to be written for an Event that happened at `now`; `None` when its object has told too much already.
    pub(super) fn correlate(&mut self, event: Event, now: Instant) -> Option<Entry> {
        let (event, key) = self.aggregate(event, now);
        let entry = self.count(event, key);
        self.may_tell(&entry.event, now).then_some(entry)
    }

    fn aggregate(&mut self, mut event: Event, now: Instant) -> (Event, u64) {
        let kind = (subject(&event), &event.reason);
        let (group, message) = (self.hasher.hash_one(kind), self.hasher.hash_one(&event.message));
        let alike = self.alike.entry(group, || Alike { messages: HashSet::new(), seen_at: now });
        if now.duration_since(alike.seen_at) > ALIKE_WITHIN {
            alike.messages.clear();
        }
        alike.seen_at = now;
        alike.messages.insert(message);
        if alike.messages.len() < ALIKE {
            let key = (subject(&event), &event.involved_object.field_path, &event.reason, &event.message);
            let key = self.hasher.hash_one(key);
            return (event, key);
        }
        alike.messages.remove(&message);
        let told = event.message.take().unwrap_or_default();
        event.message = Some(shortened(format!("(combined from similar events): {told}")));
        (event, group)
    }

    fn count(&mut self, mut event: Event, key: u64) -> Entry {
        let new =
            || Written { name: event.metadata.name.clone(), count: 0, first: event.first_timestamp.clone() };
        let written = self.written.entry(key, new);
        written.count = written.count.saturating_add(1);
        let Written { name, count, first } = written.clone();
        event.metadata.name = name;
        event.first_timestamp = first;
        event.count = Some(count);
        Entry { event, is_known: count > 1 }
    }

    fn may_tell(&mut self, event: &Event, now: Instant) -> bool {
        let key = self.hasher.hash_one(subject(event));
        let budget = self.budgets.entry(key, || Budget { left: BURST, filled_at: now });
        let filled = now.duration_since(budget.filled_at).as_secs_f64() / REFILL.as_secs_f64();
        budget.left = (budget.left + filled).min(BURST);
        budget.filled_at = now;
        let may_tell = budget.left >= 1.0;
        if may_tell {
            budget.left -= 1.0;
        }
        may_tell
    }
}

/// Whom an Event is about, and whether it is a warning.
fn subject(event: &Event) -> impl Hash {
    let object = &event.involved_object;
    (
        object.kind.clone(),
        object.namespace.clone(),
        object.name.clone(),
        object.uid.clone(),
        event.type_.clone(),
    )
}

/// Values by key. When there are too many, the half that was not asked for longest is forgotten.
struct Memory<V> {
    values: HashMap<u64, (u64, V)>,
    asked: u64,
}

impl<V> Default for Memory<V> {
    fn default() -> Self {
        Self { values: HashMap::new(), asked: 0 }
    }
}

impl<V> Memory<V> {
    fn entry(&mut self, key: u64, new: impl FnOnce() -> V) -> &mut V {
        self.asked += 1;
        let asked = self.asked;
        if self.values.len() >= REMEMBERED && !self.values.contains_key(&key) {
            self.forget();
        }
        let (at, value) = self.values.entry(key).or_insert_with(|| (asked, new()));
        *at = asked;
        value
    }

    fn forget(&mut self) {
        let mut times: Vec<u64> = self.values.values().map(|(asked, _)| *asked).collect();
        let middle = times.len() / 2;
        let (_, &mut bound, _) = times.select_nth_unstable(middle);
        self.values.retain(|_, (asked, _)| *asked >= bound);
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ObjectReference;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;

    fn event(name: &str, pod: &str, reason: &str, message: &str) -> Event {
        Event {
            metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
            involved_object: ObjectReference { uid: Some(pod.to_owned()), ..ObjectReference::default() },
            type_: Some("Warning".to_owned()),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            ..Event::default()
        }
    }

    /// The name, count and message of what is written.
    fn told(entry: Option<Entry>) -> (String, i32, String) {
        let event = entry.unwrap().event;
        (event.metadata.name.unwrap(), event.count.unwrap(), event.message.unwrap())
    }

    fn line(name: &str, count: i32, message: &str) -> (String, i32, String) {
        (name.to_owned(), count, message.to_owned())
    }

    #[test]
    fn what_happens_again_is_counted_up_under_its_first_name() {
        let (mut correlator, now) = (Correlator::default(), Instant::now());
        let mut tell = |name, message| told(correlator.correlate(event(name, "p", "BackOff", message), now));
        assert_eq!(tell("1", "a"), line("1", 1, "a"));
        assert_eq!(tell("2", "a"), line("1", 2, "a"));
        assert_eq!(tell("3", "b"), line("3", 1, "b"));
        assert_eq!(tell("4", "a"), line("1", 3, "a"));
    }

    #[test]
    fn ten_that_differ_in_words_only_become_one() {
        let (mut correlator, now) = (Correlator::default(), Instant::now());
        for number in 1..10 {
            let (name, message) = (number.to_string(), format!("m{number}"));
            let entry = correlator.correlate(event(&name, "p", "Unhealthy", &message), now);
            assert_eq!(told(entry), line(&name, 1, &message));
        }
        let mut tell =
            |name, message, at| told(correlator.correlate(event(name, "p", "Unhealthy", message), at));
        assert_eq!(tell("10", "m10", now), line("10", 1, "(combined from similar events): m10"));
        assert_eq!(tell("11", "m11", now), line("10", 2, "(combined from similar events): m11"));
        let later = now + ALIKE_WITHIN + Duration::from_secs(1);
        assert_eq!(tell("12", "m12", later), line("12", 1, "m12"));
    }

    #[test]
    fn an_object_that_tells_too_much_is_not_heard_for_a_while() {
        let (mut correlator, now) = (Correlator::default(), Instant::now());
        let mut tell = |pod: &str, at| correlator.correlate(event("1", pod, "BackOff", "m"), at).is_some();
        assert_eq!((0..100).filter(|_| tell("p", now)).count(), 25);
        assert!(tell("q", now));
        assert!(!tell("p", now + REFILL - Duration::from_secs(1)));
        assert!(tell("p", now + REFILL));
        assert!(!tell("p", now + REFILL));
    }

    #[test]
    fn ten_thousand_objects_take_no_more_room_than_half_of_them() {
        let (mut correlator, now) = (Correlator::default(), Instant::now());
        for number in 0..10_000 {
            let pod = number.to_string();
            assert!(correlator.correlate(event("1", &pod, "BackOff", "m"), now).is_some());
        }
        assert!(correlator.written.values.len() <= REMEMBERED);
        let again = correlator.correlate(event("2", "9999", "BackOff", "m"), now);
        assert_eq!(told(again), line("1", 2, "m"), "the latest are remembered");
    }
}
