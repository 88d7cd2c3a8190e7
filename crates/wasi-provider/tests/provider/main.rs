//! The provider as its users meet it: through the port.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod conformance;
mod containers;
mod machine;
mod programs;
