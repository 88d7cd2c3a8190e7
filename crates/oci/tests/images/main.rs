//! The store against a registry that does everything a registry can do wrong.

#![expect(clippy::unwrap_used, reason = "in a test a panic is a failure, with its place")]

mod authorization;
mod escapes;
mod faults;
mod files;
mod fixture;
mod killed;
mod layers;
mod mirrors;
mod pulls;
mod server;
mod sharing;
mod signatures;
mod storage;
mod tools;
