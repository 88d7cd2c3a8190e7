//! Coracle nodes in a real cluster: API server, controllers, scheduler, registry and `kubectl`.
//!
//! All tests share one control plane and one registry; each has a namespace and nodes of its own. One test stops its API
//! server, and has a control plane of its own for that.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod addresses;
mod admission;
mod bad_images;
mod care;
mod certificates;
mod conformance;
mod controllers;
mod deletion;
mod deployments;
mod descriptions;
mod endings;
mod environment;
mod escapes;
mod events;
mod fields;
mod files;
mod filesystems;
mod full;
mod gate;
mod gates;
mod guests;
mod hearing;
mod hooks;
mod http;
mod identity;
mod image_volumes;
mod images;
mod jobs;
mod join;
mod killed;
mod lives;
mod logs;
mod manifests;
mod mounts;
mod networks;
mod not_text;
mod order;
mod outage;
mod outside;
mod probes;
mod programs;
mod refusals;
mod registries;
mod rotation;
mod scene;
mod servers;
mod single_files;
mod sizes;
mod states;
mod stopped;
mod storage;
mod tokens;
mod trust;
mod unprivileged;
mod unstarted;
mod until;
mod upkeep;
mod users;
mod volumes;
mod writes;
