//! Ports for servers on loopback.

use std::net::TcpListener;
use std::ops::Range;

use anyhow::Context;

/// Below the range from which Linux takes the ports of outgoing connections (32768 and more): a server can be
/// stopped and started again on its port without a client's connection having taken it meanwhile.
const SERVERS: Range<u16> = 12_000..30_000;

const TRIES: usize = 100;

/// A port that was free a moment ago. Another process may take it first: whoever starts a server on it must be ready
/// to try another.
///
/// # Errors
/// None was found.
pub fn free() -> anyhow::Result<u16> {
    (0..TRIES)
        .map(|_| fastrand::u16(SERVERS))
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .context("no free port found on 127.0.0.1")
}
