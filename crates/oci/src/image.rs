use std::io;

use coracle_lifecycle::{Digest, ImageContent, ImageFiles, ImageModule, LocalImage};
use thiserror::Error;

use crate::catalog::Entry;
use crate::config::{self, ConfigError, Configuration};
use crate::disk::{Disk, Part, Record};
use crate::manifest::{Body, Descriptor, Document, Manifest, ManifestError, read};
use crate::name::ImageName;
use crate::registry::MANIFEST_LIMIT;

/// The documents of an image, from what its reference led to, to the program.
#[derive(Debug, Clone)]
pub(crate) struct Documents {
    /// The manifest, after the indexes that led to it, each with its bytes.
    pub(crate) chain: Vec<(Digest, Vec<u8>)>,
    /// The digest of the manifest, the last of the chain.
    pub(crate) manifest: Digest,
    pub(crate) body: Manifest,
}

/// Why a recorded image is not usable.
#[derive(Debug, Error)]
pub(crate) enum LoadError {
    #[error(transparent)]
    Disk(#[from] io::Error),
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{0} is missing")]
    Missing(Digest),
    #[error("its reference cannot be parsed")]
    Name,
    #[error("its reference names another digest")]
    OtherDigest,
}

/// Indexes may lead to indexes, but not on and on: an image has no more documents than this.
const MOST_DOCUMENTS: usize = 4;

/// Where a manifest leads: with the chain so far on to another document, or to its end.
pub(crate) enum Step {
    Next(Vec<(Digest, Vec<u8>)>, Descriptor),
    End(Documents),
}

/// Reads the last document of `chain`.
pub(crate) fn step(chain: Vec<(Digest, Vec<u8>)>) -> Result<Step, ManifestError> {
    let Some((digest, bytes)) = chain.last() else {
        return Err(ManifestError::Malformed("there is none".to_owned()));
    };
    match read(bytes)? {
        Document::Index(_) if chain.len() >= MOST_DOCUMENTS => {
            Err(ManifestError::Unsupported("its indexes are nested too deep".to_owned()))
        }
        Document::Index(entry) => Ok(Step::Next(chain, entry)),
        Document::Image(body) => Ok(Step::End(Documents { manifest: digest.clone(), chain, body })),
    }
}

impl Documents {
    /// The documents and, of a bare artifact, its program. Files are parts of their own.
    pub(crate) fn parts(&self) -> Vec<Part> {
        let module = match &self.body.body {
            Body::Program { module, .. } => Some(&module.digest),
            Body::Files(_) => None,
        };
        let documents = self.chain.iter().map(|(digest, _)| digest).chain([&self.body.config.digest]);
        documents.chain(module).cloned().map(Part::Blob).collect()
    }

    /// The configuration of an image with files, which is on disk.
    pub(crate) fn configuration(&self, disk: &Disk, layers: usize) -> Result<Configuration, LoadError> {
        Ok(config::read(&disk.read(&self.body.config.digest, MANIFEST_LIMIT)?, layers)?)
    }

    /// The image, as it is kept for `name`.
    ///
    /// # Errors
    /// A part of it is not on disk.
    pub(crate) fn entry(&self, name: &ImageName, disk: &Disk) -> Result<Entry, LoadError> {
        let documents: u64 = self.chain.iter().map(|(_, bytes)| bytes.len() as u64).sum();
        let mut parts = self.parts();
        let (content, size) = match &self.body.body {
            Body::Program { module, title } => {
                (self.program(module, title.as_deref(), name, disk)?, module.size)
            }
            Body::Files(layers) => {
                let configuration = self.configuration(disk, layers.len())?;
                parts.extend(configuration.layers.iter().map(|layer| Part::Tree(layer.chain.clone())));
                files(configuration, disk)?
            }
        };
        let image = LocalImage {
            digest: self.manifest.clone(),
            reference: name.to_string(),
            repo_digest: name.at(&self.manifest),
            content,
            size: documents.saturating_add(self.body.config.size).saturating_add(size),
        };
        let target = self.chain.first().map_or_else(|| self.manifest.clone(), |(digest, _)| digest.clone());
        Ok(Entry { image, target, verified: None, module_size: size, parts })
    }

    fn program(
        &self,
        module: &Descriptor,
        title: Option<&str>,
        name: &ImageName,
        disk: &Disk,
    ) -> Result<ImageContent, LoadError> {
        for part in [&self.body.config, module] {
            if !disk.holds(&part.digest, part.size) {
                return Err(LoadError::Missing(part.digest.clone()));
            }
        }
        Ok(ImageContent::Program(ImageModule {
            digest: module.digest.clone(),
            path: disk.path(&module.digest),
            name: module_name(title, name.path()),
        }))
    }
}

/// The files that the layers make, and their size.
fn files(configuration: Configuration, disk: &Disk) -> Result<(ImageContent, u64), LoadError> {
    let Some(chain) = configuration.layers.last().map(|layer| layer.chain.clone()) else {
        return Err(ConfigError::Malformed("it has no layers".to_owned()).into());
    };
    let Some(facts) = disk.facts(&chain) else { return Err(LoadError::Missing(chain)) };
    let files = ImageFiles { directory: disk.files(&chain), chain, config: configuration.begin };
    Ok((ImageContent::Files(files), facts.bytes))
}

/// The image of a record, if all of it is on disk. Its documents are verified, its blobs found by name and size.
pub(crate) fn load(disk: &Disk, record: &Record) -> Result<(String, Entry), LoadError> {
    let name = ImageName::parse(&record.reference).map_err(|_| LoadError::Name)?;
    if name.digest().is_some_and(|digest| *digest != record.target) {
        return Err(LoadError::OtherDigest);
    }
    let mut chain = vec![(record.target.clone(), disk.read(&record.target, MANIFEST_LIMIT)?)];
    let documents = loop {
        match step(chain)? {
            Step::End(documents) => break documents,
            Step::Next(known, entry) => {
                let bytes = disk.read(&entry.digest, MANIFEST_LIMIT)?;
                chain = [known, vec![(entry.digest, bytes)]].concat();
            }
        }
    };
    let entry = Entry { verified: record.verified.clone(), ..documents.entry(&name, disk)? };
    Ok((name.key(), entry))
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
