//! The programs and the provider of the tests.

use std::fmt::Write as _;
use std::path::Path;

use coracle_lifecycle::{Digest, ImageContent, ImageModule, LocalImage};
use coracle_testing::fixtures;
use coracle_wasi_provider::{Settings, WasiProvider};
use sha2::Digest as _;

/// The compiler of the tests' providers.
const COMPILER: &str = env!("CARGO_BIN_EXE_coracle-compile");

/// Settings for a provider whose compiled code lies under `folder`.
pub(crate) fn settings(folder: &Path) -> Settings {
    Settings::new(folder.join("compiled"), COMPILER)
}

/// A provider whose compiled code lies under `folder`.
pub(crate) fn provider(folder: &Path) -> WasiProvider {
    WasiProvider::new(settings(folder)).unwrap()
}

/// The program in `crates/guests/wat/<name>.wat`.
pub(crate) fn guest(folder: &Path, name: &str) -> LocalImage {
    image(folder, name, &bytes(name))
}

/// The same program as a wasip2 component.
pub(crate) fn component(folder: &Path, name: &str) -> LocalImage {
    image(folder, name, &fixtures::component(&bytes(name)).unwrap())
}

/// The guest of this name, as `cargo xtask guests` built it.
pub(crate) fn built(folder: &Path, name: &str) -> LocalImage {
    image(folder, name, &fixtures::built(name).unwrap())
}

/// The bytes of the program in `crates/guests/wat/<name>.wat`.
pub(crate) fn bytes(name: &str) -> Vec<u8> {
    fixtures::guest(name).unwrap()
}

/// An image of these bytes, as the store of images would have it.
pub(crate) fn image(folder: &Path, name: &str, bytes: &[u8]) -> LocalImage {
    let hex = sha2::Sha256::digest(bytes).iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    });
    let path = folder.join(format!("{hex}.wasm"));
    std::fs::write(&path, bytes).unwrap();
    let digest = Digest::parse(&format!("sha256:{hex}")).unwrap();
    LocalImage {
        digest: digest.clone(),
        reference: format!("registry.example/{name}:1"),
        repo_digest: format!("registry.example/{name}@{digest}"),
        content: ImageContent::Program(ImageModule { digest, path, name: name.to_owned() }),
        size: bytes.len() as u64,
    }
}
