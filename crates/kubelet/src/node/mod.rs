//! The Node object: what this machine is, said to the API server and kept true.
//!
//! [`desired_node`] and [`desired_status`] are pure: they make the object from [`NodeSettings`] and an
//! [`Observation`]. The node's agent observes, and writes what they say.

mod agent;
mod call;
mod capacity;
mod complaint;
mod conditions;
mod facts;
mod labels;
mod lease;
mod network;
mod reporter;
#[cfg(test)]
mod samples;
mod settings;
mod status;
mod taints;
mod thresholds;

pub(crate) use agent::NodeAgent;
pub use facts::{Facts, FactsError, Room};
pub use labels::{LabelError, is_subdomain, parse_labels};
pub use network::{NetworkReport, pod_ranges};
pub use settings::NodeSettings;
pub use status::{Observation, desired_node, desired_status, differs, metadata_patch, status_patch};
pub use taints::{TaintError, default_taints, parse_taints};
pub use thresholds::{ThresholdError, Thresholds, parse_thresholds};
