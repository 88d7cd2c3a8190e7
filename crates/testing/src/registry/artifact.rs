//! Images as they are pushed.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The media type of an OCI image manifest.
pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Some bytes and what they are.
#[derive(Clone, Debug)]
pub struct Blob {
    /// The media type that the manifest states.
    pub media_type: String,
    /// The content.
    pub data: Bytes,
}

impl Blob {
    /// A blob of this type and content.
    pub fn new(media_type: &str, data: impl Into<Bytes>) -> Self {
        Self { media_type: media_type.to_owned(), data: data.into() }
    }

    /// The digest of the content: `sha256:` and 64 digits.
    #[must_use]
    pub fn digest(&self) -> String {
        Self::digest_of(&Sha256::digest(&self.data))
    }

    pub(super) fn digest_of(hash: &[u8]) -> String {
        use std::fmt::Write;
        hash.iter().fold("sha256:".to_owned(), |mut text, byte| {
            let _never_fails = write!(text, "{byte:02x}");
            text
        })
    }

    fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest(), "size": self.data.len()})
    }
}

/// A config and layers, to be pushed with a manifest of their own.
#[derive(Clone, Debug)]
pub struct Artifact {
    /// What the manifest names as its config.
    pub config: Blob,
    /// The layers, in the manifest's order.
    pub layers: Vec<Blob>,
}

impl Artifact {
    /// A module or component in the layout of the CNCF's working group for WebAssembly: `application/wasm` beside a
    /// config of type `application/vnd.wasm.config.v0+json`.
    pub fn cncf(wasm: impl Into<Bytes>) -> Self {
        let layer = Blob::new("application/wasm", wasm);
        let config = json!({
            "created": "1970-01-01T00:00:00Z",
            "architecture": "wasm",
            "os": if is_component(&layer.data) { "wasip2" } else { "wasip1" },
            "layerDigests": [layer.digest()],
        });
        Self {
            config: Blob::new("application/vnd.wasm.config.v0+json", config.to_string()),
            layers: vec![layer],
        }
    }

    /// The older layout, as `wasm-to-oci` and Krustlet's tools pushed it.
    pub fn wasm_to_oci(wasm: impl Into<Bytes>) -> Self {
        Self {
            config: Blob::new("application/vnd.wasm.config.v1+json", "{}"),
            layers: vec![Blob::new("application/vnd.wasm.content.layer.v1+wasm", wasm)],
        }
    }

    /// An image with files as `docker buildx` makes it: these layers, and a config that says `config`, such as
    /// `{"Entrypoint": ["/app.wasm"]}`.
    ///
    /// # Errors
    /// A layer cannot be put together.
    pub fn image(layers: Vec<Files>, config: &Value) -> io::Result<Self> {
        let layers = layers.into_iter().map(Files::finish).collect::<io::Result<Vec<_>>>()?;
        let diffs: Vec<&String> = layers.iter().map(|(diff, _)| diff).collect();
        let config = json!({
            "architecture": "wasm",
            "os": "wasi",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": diffs},
        });
        Ok(Self {
            config: Blob::new("application/vnd.oci.image.config.v1+json", config.to_string()),
            layers: layers.into_iter().map(|(_, layer)| layer).collect(),
        })
    }

    /// The manifest that names config and layers.
    #[must_use]
    pub fn manifest(&self) -> Value {
        json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.config.descriptor(),
            "layers": self.layers.iter().map(Blob::descriptor).collect::<Vec<_>>(),
        })
    }
}

/// The files of a layer.
pub struct Files {
    archive: tar::Builder<Vec<u8>>,
    failed: Option<io::Error>,
}

impl Default for Files {
    fn default() -> Self {
        Self { archive: tar::Builder::new(Vec::new()), failed: None }
    }
}

impl Files {
    /// Adds a file.
    #[must_use]
    pub fn file(self, path: &str, content: &[u8]) -> Self {
        self.add(|archive, mut header| {
            header.set_size(content.len() as u64);
            archive.append_data(&mut header, path, content)
        })
    }

    /// Adds a symbolic link.
    #[must_use]
    pub fn link(self, path: &str, target: &str) -> Self {
        self.add(|archive, mut header| {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            archive.append_link(&mut header, path, target)
        })
    }

    /// Adds an empty member of any type under any name of up to 100 bytes, as no tool would write it.
    #[must_use]
    pub fn raw(self, name: &[u8], kind: u8, link: &str) -> Self {
        self.add(|archive, mut header| {
            header.as_old_mut().name[..name.len()].copy_from_slice(name);
            header.set_entry_type(tar::EntryType::new(kind));
            header.set_link_name_literal(link)?;
            header.set_size(0);
            header.set_cksum();
            archive.append(&header, io::empty())
        })
    }

    fn add(mut self, add: impl FnOnce(&mut tar::Builder<Vec<u8>>, tar::Header) -> io::Result<()>) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        let failed = add(&mut self.archive, header).err();
        self.failed = self.failed.or(failed);
        self
    }

    /// The digest of the archive, and the layer.
    fn finish(self) -> io::Result<(String, Blob)> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let archive = self.archive.into_inner()?;
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&archive)?;
        let layer = Blob::new("application/vnd.oci.image.layer.v1.tar+gzip", encoder.finish()?);
        Ok((Blob::digest_of(&Sha256::digest(&archive)), layer))
    }
}

/// The second half of the preamble tells modules and components apart.
fn is_component(wasm: &[u8]) -> bool {
    wasm.get(4..8) == Some(&[0x0d, 0x00, 0x01, 0x00])
}
