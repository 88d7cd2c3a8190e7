//! Workers and the dispatcher in paused time, between an API server, a runtime and an image store in memory; and that the runtime in memory is one.

mod addresses;
mod admission;
mod agent;
mod care;
mod certificates;
mod conformance;
mod deletion;
mod environment;
mod events;
mod filesystem;
mod images;
mod order;
mod runs;
mod statuses;
mod volumes;
mod watch;
