//! Sleeps for ten hours, prints nothing, and ends with exit code 0.

use std::thread;
use std::time::Duration;

fn main() {
    thread::sleep(Duration::from_secs(10 * 60 * 60));
}
