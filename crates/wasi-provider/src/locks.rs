//! Locks that a panicking thread does not take from the others.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The guarded value. What these locks guard is whole after every statement, so a panic elsewhere spoils nothing.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
