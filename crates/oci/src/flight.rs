use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use parking_lot::Mutex;

type Task<T> = BoxFuture<'static, T>;
type Entries<T> = Mutex<Table<T>>;

/// Work that is done once however many ask for it at a time. It runs while somebody awaits it: when the last of
/// those is dropped it is dropped too. What is asked for after it ended is done anew.
pub(crate) struct Flights<T: Clone> {
    table: Arc<Entries<T>>,
}

struct Table<T: Clone> {
    entries: HashMap<String, (u64, WeakShared<Task<T>>)>,
    started: u64,
}

impl<T: Clone + Send + Sync + 'static> Flights<T> {
    pub(crate) fn new() -> Self {
        Self { table: Arc::new(Mutex::new(Table { entries: HashMap::new(), started: 0 })) }
    }

    /// Joins the work that is under way for `key`, or begins it with `work`.
    pub(crate) fn join<F>(&self, key: String, work: F) -> Shared<Task<T>>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut table = self.table.lock();
        if let Some(shared) = table.entries.get(&key).and_then(|(_, weak)| weak.upgrade()) {
            return shared;
        }
        table.started += 1;
        let landing = Landing { table: self.table.clone(), key: key.clone(), number: table.started };
        let shared = async move {
            let _landing = landing;
            work.await
        }
        .boxed()
        .shared();
        if let Some(weak) = shared.downgrade() {
            let number = table.started;
            table.entries.insert(key, (number, weak));
        }
        shared
    }
}

/// Takes its flight from the table, when it ends or is dropped.
struct Landing<T: Clone> {
    table: Arc<Entries<T>>,
    key: String,
    number: u64,
}

impl<T: Clone> Drop for Landing<T> {
    fn drop(&mut self) {
        let mut table = self.table.lock();
        // Another flight may have begun under this key since the last who awaited this one left.
        if table.entries.get(&self.key).is_some_and(|(number, _)| *number == self.number) {
            table.entries.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::oneshot;

    use super::*;

    fn is_empty<T: Clone>(flights: &Flights<T>) -> bool {
        flights.table.lock().entries.is_empty()
    }

    #[tokio::test]
    async fn one_does_the_work_for_all_and_the_next_does_it_anew() {
        let (flights, count) = (Flights::new(), Arc::new(AtomicUsize::new(0)));
        let join = || {
            let count = count.clone();
            flights.join("key".to_owned(), async move {
                tokio::task::yield_now().await;
                count.fetch_add(1, Ordering::SeqCst)
            })
        };
        assert_eq!(futures::join!(join(), join(), join()), (0, 0, 0));
        assert!(is_empty(&flights));
        assert_eq!(join().await, 1);
    }

    #[tokio::test]
    async fn the_work_ends_with_the_last_who_awaits_it() {
        let flights = Flights::new();
        let (guard, ended) = oneshot::channel::<()>();
        let work = async move {
            let _guard = guard;
            futures::future::pending::<()>().await;
        };
        let mut first = flights.join("key".to_owned(), work);
        let second = flights.join("key".to_owned(), async {});
        assert!(futures::poll!(&mut first).is_pending());
        drop(first);
        assert!(!is_empty(&flights), "the second still waits");
        drop(second);
        assert!(ended.await.is_err());
        assert!(is_empty(&flights));
    }
}
