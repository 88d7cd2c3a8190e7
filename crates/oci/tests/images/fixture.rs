//! A store in a directory of its own, beside a scripted registry, and images to put there.

use std::time::Duration;

use bytes::Bytes;
use coracle_lifecycle::{Credential, Digest, ImageError, Images, LocalImage};
use coracle_oci::{Settings, Store};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::server::Server;

pub(crate) const CNCF: (&str, &str) = ("application/vnd.wasm.config.v0+json", "application/wasm");
pub(crate) const OLDER: (&str, &str) =
    ("application/vnd.wasm.config.v1+json", "application/vnd.wasm.content.layer.v1+wasm");

/// A store and the one registry that it may reach without TLS.
pub(crate) struct Fixture {
    pub(crate) server: Server,
    pub(crate) directory: TempDir,
    pub(crate) store: Store,
}

impl Fixture {
    pub(crate) async fn start() -> Self {
        Self::with(|_| ()).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let server = Server::start().await;
        let directory = tempfile::tempdir().unwrap();
        let mut settings = settings(&server, &directory);
        change(&mut settings);
        let store = open(settings);
        Self { server, directory, store }
    }

    /// The store as the next process finds it.
    pub(crate) fn reopen(self) -> Self {
        self.reopen_with(|_| ())
    }

    pub(crate) fn reopen_with(self, change: impl FnOnce(&mut Settings)) -> Self {
        let Self { server, directory, store } = self;
        drop(store);
        let mut settings = settings(&server, &directory);
        change(&mut settings);
        let store = open(settings);
        Self { server, directory, store }
    }

    /// `image` with the registry before it.
    pub(crate) fn reference(&self, image: &str) -> String {
        format!("{}/{image}", self.server.host())
    }

    pub(crate) async fn pull(&self, image: &str) -> Result<LocalImage, ImageError> {
        self.store.pull(&self.reference(image), &[]).await.map(|pulled| pulled.image)
    }

    pub(crate) async fn pull_as(
        &self,
        image: &str,
        users: &[(&str, &str)],
    ) -> Result<LocalImage, ImageError> {
        let credentials: Vec<Credential> = users.iter().map(|user| self.credential(*user)).collect();
        self.store.pull(&self.reference(image), &credentials).await.map(|pulled| pulled.image)
    }

    pub(crate) async fn find(&self, image: &str) -> Option<LocalImage> {
        self.store.find(&self.reference(image)).await.unwrap()
    }

    pub(crate) fn credential(&self, (username, password): (&str, &str)) -> Credential {
        let (username, password) = (username.to_owned(), password.to_owned());
        Credential { registry: self.server.host(), username, password }
    }

    /// The names of the files in one of the store's folders.
    pub(crate) fn files(&self, folder: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.directory.path().join(folder)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

fn settings(server: &Server, directory: &TempDir) -> Settings {
    let (insecure_registries, retry_delay) = (vec![server.host()], Duration::from_millis(1));
    Settings { insecure_registries, retry_delay, ..Settings::new(directory.path()) }
}

pub(crate) fn open(settings: Settings) -> Store {
    // The first test of the process does it for all.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Store::open(settings).unwrap()
}

/// An image of one program.
pub(crate) struct Image {
    pub(crate) config: Bytes,
    pub(crate) module: Bytes,
    pub(crate) manifest: Value,
}

impl Image {
    /// A program unlike any with another `mark`.
    pub(crate) fn new(layout: (&str, &str), mark: &str) -> Self {
        let module = Bytes::from([b"\0asm\x01\0\0\0", mark.as_bytes()].concat());
        Self::of(layout, module, mark)
    }

    /// An image of any bytes at all.
    pub(crate) fn of((config_type, layer_type): (&str, &str), module: Bytes, mark: &str) -> Self {
        let config = Bytes::from(json!({ "mark": mark }).to_string());
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor(config_type, &config),
            "layers": [descriptor(layer_type, &module)],
        });
        Self { config, module, manifest }
    }

    pub(crate) fn bytes(&self) -> Bytes {
        Bytes::from(self.manifest.to_string())
    }

    pub(crate) fn digest(&self) -> Digest {
        digest(&self.bytes())
    }

    /// The path of the program's blob in `repository`.
    pub(crate) fn module_path(&self, repository: &str) -> String {
        blob_path(repository, &self.module)
    }

    pub(crate) fn config_path(&self, repository: &str) -> String {
        blob_path(repository, &self.config)
    }

    /// Puts the image into the registry.
    pub(crate) fn push(&self, server: &Server, repository: &str, tag: &str) {
        server.content(&self.config_path(repository), self.config.clone());
        server.content(&self.module_path(repository), self.module.clone());
        self.push_manifest(server, repository, tag);
    }

    pub(crate) fn push_manifest(&self, server: &Server, repository: &str, tag: &str) {
        server.content(&manifest_path(repository, tag), self.bytes());
        server.content(&manifest_path(repository, self.digest().as_str()), self.bytes());
    }
}

pub(crate) fn manifest_path(repository: &str, target: &str) -> String {
    format!("/v2/{repository}/manifests/{target}")
}

pub(crate) fn blob_path(repository: &str, bytes: &[u8]) -> String {
    format!("/v2/{repository}/blobs/{}", digest(bytes))
}

pub(crate) fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": digest(bytes).as_str(), "size": bytes.len() })
}

pub(crate) fn digest(bytes: &[u8]) -> Digest {
    let hex = Sha256::digest(bytes).iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
    Digest::parse(&format!("sha256:{hex}")).unwrap()
}
