//! Images with files, as builders make them.

use std::io::Write;

use bytes::Bytes;
use coracle_lifecycle::Digest;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

use crate::fixture::{descriptor, digest, manifest_path};
use crate::server::Server;

pub(crate) const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// A layer and the digest of its archive.
#[derive(Clone)]
pub(crate) struct Layer {
    pub(crate) bytes: Bytes,
    pub(crate) diff: Digest,
}

impl Layer {
    /// A layer of these files, compressed with gzip. A path that ends with a slash is a directory.
    pub(crate) fn new(files: &[(&str, &[u8])]) -> Self {
        let mut builder = Builder::new(Vec::new());
        for (path, content) in files {
            append(&mut builder, path, EntryType::Regular, "", content);
        }
        Self::gzip(&builder.into_inner().unwrap())
    }

    /// A layer of one member of any kind.
    pub(crate) fn member(path: &str, kind: EntryType, link: &str) -> Self {
        let mut builder = Builder::new(Vec::new());
        append(&mut builder, path, kind, link, b"");
        Self::gzip(&builder.into_inner().unwrap())
    }

    pub(crate) fn gzip(archive: &[u8]) -> Self {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(archive).unwrap();
        Self { bytes: encoder.finish().unwrap().into(), diff: digest(archive) }
    }
}

fn append(builder: &mut Builder<Vec<u8>>, path: &str, kind: EntryType, link: &str, content: &[u8]) {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o755);
    header.set_size(content.len() as u64);
    header.set_link_name_literal(link).unwrap();
    header.set_cksum();
    builder.append(&header, content).unwrap();
}

/// An image of layers.
pub(crate) struct Layered {
    pub(crate) layers: Vec<Layer>,
    pub(crate) config: Value,
    pub(crate) manifest_type: &'static str,
    pub(crate) config_type: &'static str,
    pub(crate) layer_type: &'static str,
}

impl Layered {
    pub(crate) fn new(layers: impl IntoIterator<Item = Layer>) -> Self {
        let layers: Vec<Layer> = layers.into_iter().collect();
        let diffs: Vec<&str> = layers.iter().map(|layer| layer.diff.as_str()).collect();
        let config = json!({
            "architecture": "wasm",
            "os": "wasi",
            "config": { "Entrypoint": ["/app.wasm"], "Cmd": ["serve"], "Env": ["A=image"], "WorkingDir": "/srv" },
            "rootfs": { "type": "layers", "diff_ids": diffs },
        });
        Self {
            layers,
            config,
            manifest_type: "application/vnd.oci.image.manifest.v1+json",
            config_type: CONFIG,
            layer_type: GZIP,
        }
    }

    pub(crate) fn manifest(&self) -> Value {
        let layers = self.layers.iter().map(|layer| descriptor(self.layer_type, &layer.bytes));
        json!({
            "schemaVersion": 2,
            "mediaType": self.manifest_type,
            "config": descriptor(self.config_type, self.config.to_string().as_bytes()),
            "layers": layers.collect::<Vec<_>>(),
        })
    }

    pub(crate) fn digest(&self) -> Digest {
        digest(self.manifest().to_string().as_bytes())
    }

    pub(crate) fn layer_path(&self, repository: &str, index: usize) -> String {
        format!("/v2/{repository}/blobs/{}", digest(&self.layers[index].bytes))
    }

    pub(crate) fn push(&self, server: &Server, repository: &str, tag: &str) {
        let config = self.config.to_string();
        server.content(&format!("/v2/{repository}/blobs/{}", digest(config.as_bytes())), config);
        for (index, layer) in self.layers.iter().enumerate() {
            server.content(&self.layer_path(repository, index), layer.bytes.clone());
        }
        let manifest = self.manifest().to_string();
        server.content(&manifest_path(repository, tag), manifest.clone());
        server.content(&manifest_path(repository, self.digest().as_str()), manifest);
    }
}
