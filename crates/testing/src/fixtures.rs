//! Small programs for tests of providers.

use std::fs;

use anyhow::Context as _;
use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME as NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER as COMMAND_ADAPTER,
};
use wit_component::ComponentEncoder;

use crate::{target_dir, workspace};

/// The wasip1 module in `crates/guests/wat/<name>.wat`.
///
/// # Errors
/// There is no such file, or it is not WebAssembly's text.
pub fn guest(name: &str) -> anyhow::Result<Vec<u8>> {
    Ok(wat::parse_file(workspace().join(format!("crates/guests/wat/{name}.wat")))?)
}

/// The guest of this name, as `cargo xtask guests` built it.
///
/// # Errors
/// It was not built.
pub fn built(name: &str) -> anyhow::Result<Vec<u8>> {
    let path = target_dir().join("guests").join(format!("{name}.wasm"));
    fs::read(&path).with_context(|| format!("{}; build the guests with `cargo xtask guests`", path.display()))
}

/// A wasip1 module as a wasip2 command component.
///
/// # Errors
/// It is no sound module, or has imports that are not WASI's.
pub fn component(module: &[u8]) -> anyhow::Result<Vec<u8>> {
    ComponentEncoder::default().module(module)?.adapter(NAME, COMMAND_ADAPTER)?.encode()
}
