//! The provider as its users meet it: through the port.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod answers;
mod client;
mod conformance;
mod containers;
mod crowds;
mod entrances;
mod hostile;
mod machine;
mod network;
mod outgoing;
mod programs;
mod requests;
mod servers;
