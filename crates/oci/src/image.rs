use std::io;

use coracle_lifecycle::{Digest, ImageModule, LocalImage};
use thiserror::Error;

use crate::catalog::Entry;
use crate::disk::{Disk, Record};
use crate::manifest::{Artifact, Descriptor, Document, ManifestError, read};
use crate::name::ImageName;
use crate::registry::MANIFEST_LIMIT;

/// The documents of an image, from what its reference led to, to the program.
#[derive(Debug, Clone)]
pub(crate) struct Documents {
    /// The manifest, after the index that led to it if there was one, each with its bytes.
    pub(crate) chain: Vec<(Digest, Vec<u8>)>,
    /// The digest of the manifest, the last of the chain.
    pub(crate) manifest: Digest,
    pub(crate) artifact: Artifact,
}

/// Why a recorded image is not usable.
#[derive(Debug, Error)]
pub(crate) enum LoadError {
    #[error(transparent)]
    Disk(#[from] io::Error),
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error("{0} is missing")]
    Missing(Digest),
    #[error("an index within an index")]
    Nested,
    #[error("its reference cannot be parsed")]
    Name,
    #[error("its reference names another digest")]
    OtherDigest,
}

/// Where a manifest leads: on to another document, or to the end of the chain.
pub(crate) enum Step {
    Next(Descriptor),
    End(Documents),
}

/// Reads the last document of `chain`.
pub(crate) fn step(chain: Vec<(Digest, Vec<u8>)>) -> Result<Step, ManifestError> {
    let Some((digest, bytes)) = chain.last() else {
        return Err(ManifestError::Malformed("there is none".to_owned()));
    };
    match read(bytes)? {
        Document::Index(entry) => Ok(Step::Next(entry)),
        Document::Artifact(artifact) => {
            Ok(Step::End(Documents { manifest: digest.clone(), chain, artifact }))
        }
    }
}

impl Documents {
    /// All content the image needs.
    pub(crate) fn blobs(&self) -> Vec<Digest> {
        let parts = [&self.artifact.config.digest, &self.artifact.module.digest];
        self.chain.iter().map(|(digest, _)| digest).chain(parts).cloned().collect()
    }

    /// The image, as it is kept for `name`.
    pub(crate) fn entry(&self, name: &ImageName, disk: &Disk) -> Entry {
        let documents: u64 = self.chain.iter().map(|(_, bytes)| bytes.len() as u64).sum();
        let module = &self.artifact.module;
        let image = LocalImage {
            digest: self.manifest.clone(),
            reference: name.to_string(),
            repo_digest: name.at(&self.manifest),
            module: ImageModule {
                digest: module.digest.clone(),
                path: disk.path(&module.digest),
                name: module_name(self.artifact.title.as_deref(), name.path()),
            },
            size: documents.saturating_add(self.artifact.config.size).saturating_add(module.size),
        };
        let target = self.chain.first().map_or_else(|| self.manifest.clone(), |(digest, _)| digest.clone());
        Entry { image, target, module_size: module.size, blobs: self.blobs() }
    }
}

/// The image of a record, if all of it is on disk. Its documents are verified, its blobs found by name and size.
pub(crate) fn load(disk: &Disk, record: &Record) -> Result<(String, Entry), LoadError> {
    let name = ImageName::parse(&record.reference).map_err(|_| LoadError::Name)?;
    if name.digest().is_some_and(|digest| *digest != record.target) {
        return Err(LoadError::OtherDigest);
    }
    let chain = vec![(record.target.clone(), disk.read(&record.target, MANIFEST_LIMIT)?)];
    let documents = match step(chain.clone())? {
        Step::End(documents) => documents,
        Step::Next(entry) => {
            let bytes = disk.read(&entry.digest, MANIFEST_LIMIT)?;
            match step(chain.into_iter().chain([(entry.digest, bytes)]).collect())? {
                Step::End(documents) => documents,
                Step::Next(_) => return Err(LoadError::Nested),
            }
        }
    };
    for part in [&documents.artifact.config, &documents.artifact.module] {
        if !disk.holds(&part.digest, part.size) {
            return Err(LoadError::Missing(part.digest.clone()));
        }
    }
    Ok((name.key(), documents.entry(&name, disk)))
}

/// The program's name: the base name of its title, else the last part of the repository's.
fn module_name(title: Option<&str>, repository: &str) -> String {
    let last = |path: &str| path.rsplit(['/', '\\']).next().unwrap_or_default().to_owned();
    title
        .map(last)
        .filter(|name| !matches!(&**name, "" | "." | "..") && !name.contains(char::is_control))
        .filter(|name| name.len() <= 255)
        .unwrap_or_else(|| last(repository))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_named_by_its_title_or_its_repository() {
        let long = "x".repeat(256);
        for (title, expected) in [
            (None, "app"),
            (Some("hello.wasm"), "hello.wasm"),
            (Some("./target/release/hello.wasm"), "hello.wasm"),
            (Some("..\\..\\hello.wasm"), "hello.wasm"),
            (Some("a b"), "a b"),
            (Some(""), "app"),
            (Some("a/.."), "app"),
            (Some("a/"), "app"),
            (Some("a\0b"), "app"),
            (Some(&long), "app"),
        ] {
            assert_eq!(module_name(title, "team/app"), expected, "{title:?}");
        }
    }
}
