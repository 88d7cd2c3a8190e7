//! Guests as images in the registry that all tests share.

use std::path::PathBuf;

use anyhow::Context;
use coracle_testing::{Artifact, Registry, target_dir};
use tokio::sync::OnceCell;

/// The registry of this test binary: the first test that asks starts it.
pub(crate) async fn registry() -> anyhow::Result<&'static Registry> {
    static SHARED: OnceCell<Registry> = OnceCell::const_new();
    SHARED.get_or_try_init(Registry::start).await
}

/// Pushes a guest and returns its reference, which ends in `:v1`, so that it is pulled only when it is not there.
pub(crate) async fn image(guest: &str) -> anyhow::Result<String> {
    push(guest, "v1", &Artifact::cncf(wasm(guest)?)).await
}

/// Pushes an artifact to the shared registry and returns its reference.
pub(crate) async fn push(repository: &str, tag: &str, artifact: &Artifact) -> anyhow::Result<String> {
    let registry = registry().await?;
    registry.push(repository, tag, artifact).await?;
    Ok(registry.image(&format!("{repository}:{tag}")))
}

/// The bytes of a guest, as `cargo xtask guests` built it.
pub(crate) fn wasm(guest: &str) -> anyhow::Result<Vec<u8>> {
    let path: PathBuf = target_dir().join("guests").join(format!("{guest}.wasm"));
    std::fs::read(&path)
        .with_context(|| format!("{}; build the guests with `cargo xtask guests`", path.display()))
}

/// A module that sleeps for some seconds and then ends with exit code 0.
pub(crate) fn nap(seconds: u64) -> anyhow::Result<Vec<u8>> {
    let text = format!(
        r#"(module
          (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
          (memory (export "memory") 1)
          (func (export "_start")
            (i32.store (i32.const 16) (i32.const 1))
            (i64.store (i32.const 24) (i64.const {}))
            (drop (call $poll (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128)))))"#,
        seconds * 1_000_000_000
    );
    Ok(wat::parse_str(text)?)
}
