//! Workers and the dispatcher in paused time, between an API server, a runtime and an image store in memory.

mod admission;
mod agent;
mod deletion;
mod images;
mod runs;
mod statuses;
mod volumes;
mod watch;
