//! What comes from outside, read from any bytes, and what must hold whatever they are. `fuzz/` feeds these functions with
//! bytes that it makes up, the test below with those that are kept there.

use std::fs;
use std::io::{Seek, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use reqwest::Url;

use crate::archive::{self, ArchiveError, Kind, Member};
use crate::config;
use crate::digest::digest_of;
use crate::hosts;
use crate::image::Documents;
use crate::key::PublicKey;
use crate::manifest::{self, Body, Descriptor, Document, MOST_LAYERS, Manifest};
use crate::name::ImageName;
use crate::policy::{Identity, Policy};
use crate::signatures;
use crate::sum::Sums;
use crate::tree::{MOST_LEVELS, Tree};
use crate::unpack::{Budget, UnpackError, Wanted, unpack};

/// A function that panics when what must hold of its input does not.
pub type Target = fn(&[u8]);

/// All of them by the names of their fuzz targets.
pub const TARGETS: [(&str, Target); 8] = [
    ("archive", archive),
    ("bundle", bundle),
    ("config", config),
    ("hosts", hosts),
    ("layer", layer),
    ("manifest", manifest),
    ("policy", policy),
    ("reference", reference),
];

/// No message about what a registry sent is longer: it goes into Events and statuses.
const LONGEST_MESSAGE: usize = 4096;
const SIZE: u64 = 4 << 20;
const ENTRIES: u64 = 64;
const BLOCK: usize = 512;
/// Where a tar header has its checksum.
const CHECKSUM: std::ops::Range<usize> = 148..156;

/// A manifest or an index.
pub fn manifest(bytes: &[u8]) {
    match manifest::read(bytes) {
        Ok(Document::Image(Manifest { body: Body::Files(layers), .. })) => {
            assert!((1..=MOST_LAYERS).contains(&layers.len()));
        }
        Ok(_) => {}
        Err(error) => ensure_printable(&error.to_string()),
    }
}

/// The configuration of an image; the first byte says how many layers its manifest has.
pub fn config(bytes: &[u8]) {
    let Some((layers, document)) = bytes.split_first() else { return };
    match config::read(document, usize::from(*layers)) {
        Ok(configuration) => assert_eq!(configuration.layers.len(), usize::from(*layers)),
        Err(error) => ensure_printable(&error.to_string()),
    }
}

/// An image reference of a pod: what is taken for one leads to the host that it names, and nowhere else there.
pub fn reference(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(name) = ImageName::parse(text) else { return };
    let written = ImageName::parse(&name.to_string());
    assert!(written.is_ok_and(|written| written == name), "{text:?}");
    assert!(name.path().split('/').all(|part| !matches!(part, "" | "." | "..")), "{text:?}");
    let address = format!("https://{}/v2/{}/manifests/{}", name.host(), name.path(), name.target());
    let Ok(address) = Url::parse(&address) else { return };
    let path = format!("/v2/{}/manifests/{}", name.path(), name.target());
    assert_eq!((address.path(), address.query(), address.fragment()), (&*path, None, None), "{text:?}");
    assert_eq!((address.username(), address.password()), ("", None), "{text:?}");
}

/// A `hosts.toml`.
pub fn hosts(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let usual = Url::parse("https://registry.example/v2").expect("an address");
    let Ok(hosts) = hosts::read(text, Path::new("/certificates"), &usual) else { return };
    assert!(hosts.last().is_some_and(|host| host.is_registry));
    assert!(hosts.iter().all(|host| host.base.has_host() && matches!(host.base.scheme(), "http" | "https")));
}

/// An image policy: one that is taken has an answer for every image.
pub fn policy(bytes: &[u8]) {
    let Ok(policy) = Policy::parse(bytes) else { return };
    let name = ImageName::parse("registry.example:5000/team/app:1").expect("a reference");
    assert!(policy.requirements(&name).is_some());
}

/// A sigstore bundle, or with another first byte the payload that cosign signs: nothing made up is a key's signature.
pub fn bundle(bytes: &[u8]) {
    let Some((form, content)) = bytes.split_first() else { return };
    let image = b"a manifest";
    let key = PublicKey::from_pem(include_bytes!("../tests/keys/p256.pub")).expect("a key");
    let signature = match form % 2 {
        0 => signatures::signature(content, image),
        _ => Some(signatures::simple(image.to_vec(), content.to_vec())),
    };
    let Some(signature) = signature else { return };
    assert!(!signature.is_by(&key));
    let name = ImageName::parse("registry.example/app:1").expect("a reference");
    let digest = digest_of(image);
    let empty = || Descriptor { digest: digest.clone(), size: 0 };
    let body = Manifest { config: empty(), body: Body::Program { module: empty(), title: None } };
    let documents =
        Documents { chain: vec![(digest.clone(), image.to_vec())], manifest: digest.clone(), body };
    signature.is_for(&name, &Identity::default(), &documents);
}

/// An archive, with the right checksums in it unless the first byte is even.
pub fn archive(bytes: &[u8]) {
    let Some((form, content)) = bytes.split_first() else { return };
    let content = if form % 2 == 0 { content.to_vec() } else { summed(content) };
    let mut left = content.len() as u64;
    let read = archive::for_each(&*content, |member, content| {
        ensure_inside(&member);
        let count = std::io::copy(content, &mut std::io::sink()).map_err(ArchiveError::Read)?;
        left = left.checked_sub(count).expect("no more comes out of an archive than is in it");
        Ok::<_, ArchiveError>(())
    });
    if let Err(error) = read {
        ensure_printable(&error.to_string());
    }
}

/// Two layers, one over the other: the first byte says in what form they are, the next two how long the lower one is.
pub fn layer(bytes: &[u8]) {
    let [form, low, high, content @ ..] = bytes else { return };
    let length = usize::from(u16::from_le_bytes([*low, *high])).min(content.len());
    let (lower, upper) = content.split_at(length);
    let scene = tempfile::tempdir().expect("a directory");
    let root = scene.path().join("root");
    fs::create_dir(&root).expect("a directory");
    fs::write(scene.path().join("outside"), "outside").expect("a file");
    let mut budget = Budget { bytes: SIZE, entries: ENTRIES };
    for layer in [lower, upper] {
        if let Err(error) = lay(&formed(*form, layer), &root, &mut budget) {
            assert!(!matches!(error, UnpackError::Disk(_)), "the archive is at fault: {error}");
            ensure_printable(&error.to_string());
        }
    }
    ensure_harmless(&root, 0);
    assert_eq!(fs::read_dir(scene.path()).map(Iterator::count).ok(), Some(2));
    assert_eq!(fs::read(scene.path().join("outside")).ok().as_deref(), Some(&b"outside"[..]));
}

fn formed(form: u8, layer: &[u8]) -> Vec<u8> {
    match form % 4 {
        0 => layer.to_vec(),
        1 => summed(layer),
        2 => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(&summed(layer)).expect("it goes to memory");
            encoder.finish().expect("it goes to memory")
        }
        _ => zstd::encode_all(&*summed(layer), 1).expect("it goes to memory"),
    }
}

fn lay(layer: &[u8], root: &Path, budget: &mut Budget) -> Result<u64, UnpackError> {
    let mut file = tempfile::tempfile()?;
    file.write_all(layer)?;
    file.rewind()?;
    let diff = digest_of(layer);
    let wanted = Wanted { file, diff: &diff, is_awaited: &|| true };
    unpack(wanted, &Tree::open(root)?, budget, &mut Sums::default())
}

/// The same archive with the checksum in each header that its header has: bytes that are made up never have it.
fn summed(archive: &[u8]) -> Vec<u8> {
    let mut archive = archive.to_vec();
    archive.resize(archive.len().next_multiple_of(BLOCK), 0);
    let mut at = 0;
    while let Some(block) =
        archive.get_mut(at..at + BLOCK).filter(|block| block.iter().any(|byte| *byte != 0))
    {
        block[CHECKSUM].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let header = tar::Header::from_byte_slice(block);
        let size = header.entry_size().ok().and_then(|size| usize::try_from(size).ok()).unwrap_or(0);
        let content = size.checked_next_multiple_of(BLOCK).unwrap_or(usize::MAX);
        at = at.saturating_add(BLOCK).saturating_add(content);
        if at >= archive.len() {
            break;
        }
    }
    archive
}

fn ensure_inside(member: &Member) {
    let is_name = |name: &String| {
        !matches!(&**name, "" | "." | "..") && !name.contains(['/', '\0']) && name.len() <= 255
    };
    assert!(member.path.iter().all(is_name), "{member:?}");
    if let Kind::HardLink(target) = &member.kind {
        assert!(target.iter().all(is_name), "{member:?}");
    }
    assert_eq!(member.mode & !0o777, 0);
}

fn ensure_harmless(directory: &Path, level: usize) {
    assert!(level <= MOST_LEVELS, "{}", directory.display());
    for entry in fs::read_dir(directory).expect("its owner may read it") {
        let path = entry.expect("its owner may read it").path();
        let metadata = path.symlink_metadata().expect("it is there");
        if metadata.is_symlink() {
            assert!(!fs::read_link(&path).is_ok_and(|target| target.is_absolute()), "{}", path.display());
            continue;
        }
        assert_eq!(metadata.permissions().mode() & 0o7000, 0, "{}", path.display());
        assert!(metadata.is_dir() || metadata.is_file(), "{}", path.display());
        assert!(metadata.is_dir() || metadata.size() <= SIZE, "{}", path.display());
        if metadata.is_dir() {
            ensure_harmless(&path, level + 1);
        }
    }
}

fn ensure_printable(message: &str) {
    assert!(message.len() <= LONGEST_MESSAGE, "{} bytes: {message}", message.len());
    assert!(!message.contains(char::is_control), "{message:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_corpus_is_read_as_it_must_be() {
        for (name, target) in TARGETS {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
            let inputs: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
            assert!(inputs.len() >= 3, "{name} has hardly a corpus");
            for input in inputs {
                target(&fs::read(input).unwrap());
            }
        }
    }
}
