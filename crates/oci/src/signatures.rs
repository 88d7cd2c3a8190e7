//! The signatures that lie beside an image: cosign's under a tag, and bundles of sigstore as referrers of the image.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use coracle_lifecycle::Digest;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::image::Documents;
use crate::key::PublicKey;
use crate::manifest::checked;
use crate::name::ImageName;
use crate::policy::{Identity, Requirement, Requirements};
use crate::registry::{RegistryError, Repository};

/// The longest signature with what it signs.
const SIGNATURE_LIMIT: u64 = 1024 * 1024;
/// How many signatures of an image are looked at.
const MOST_SIGNATURES: usize = 32;
/// A signature under the tag `sha256-<hex>.sig`
/// (<https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md>).
const SIMPLE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const SIMPLE_SIGNATURE: &str = "dev.cosignproject.cosign/signature";
/// How the media types of bundles begin, whatever their version
/// (<https://github.com/sigstore/cosign/blob/main/specs/BUNDLE_SPEC.md>).
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle";

/// Why an image is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum SignatureError {
    #[error("the image policy rejects it")]
    Rejected,
    #[error("no signature was found for {0}: {1}")]
    None(Digest, String),
    #[error(
        "none of the {count} signatures for {digest} is by a key that the image policy names, and for this image"
    )]
    Untrusted { digest: Digest, count: usize },
}

/// A signature, and what it says it signs.
pub(crate) struct Signature {
    bytes: Vec<u8>,
    message: Vec<u8>,
    claim: Claim,
}

/// How the message of a signature names the image.
#[derive(Clone, Copy)]
enum Claim {
    /// As cosign's payload, with a reference.
    Simple,
    /// As an in-toto statement, in the payload that begins at this byte of the message.
    Statement(usize),
    /// By being its manifest.
    Manifest,
}

/// Checks that an image shows all that is required of it.
pub(crate) async fn check(
    repository: &Repository,
    name: &ImageName,
    documents: &Documents,
    requirements: &Requirements,
) -> Result<(), SignatureError> {
    let mut found = None;
    for requirement in &requirements.all {
        let Requirement::Signed { keys, identity } = requirement else {
            return Err(SignatureError::Rejected);
        };
        if found.is_none() {
            found = Some(Search::of(repository, documents).await);
        }
        let Some(search) = &found else { continue };
        let digest = documents.manifest.clone();
        if search.signatures.is_empty() {
            let why = if search.problems.is_empty() {
                "there is none".to_owned()
            } else {
                search.problems.join("; ")
            };
            return Err(SignatureError::None(digest, why));
        }
        let count = search.signatures.len();
        let is_trusted = |signature: &Signature| {
            keys.iter().any(|key| signature.is_by(key)) && signature.is_for(name, identity, documents)
        };
        if !search.signatures.iter().any(is_trusted) {
            return Err(SignatureError::Untrusted { digest, count });
        }
    }
    Ok(())
}

/// What was found beside an image.
#[derive(Default)]
struct Search {
    signatures: Vec<Signature>,
    /// What could not be read: no reason to refuse an image that has another signature.
    problems: Vec<String>,
}

impl Search {
    /// Looks beside the manifest, and beside the index that led to it.
    async fn of(repository: &Repository, documents: &Documents) -> Self {
        let mut search = Self::default();
        for (digest, bytes) in documents.chain.iter().rev() {
            let simple = search.layers(repository, &format!("sha256-{}.sig", digest.hex()), SIMPLE).await;
            for (layer, payload) in simple {
                search.signatures.extend(layer.simple(payload));
            }
            for manifest in search.referrers(repository, digest).await {
                let bundles = search.layers(repository, &manifest, BUNDLE).await;
                for (_, bundle) in bundles {
                    search.signatures.extend(signature(&bundle, bytes));
                }
            }
        }
        search
    }

    /// The layers of such a type under a tag or digest, with their content.
    async fn layers(
        &mut self,
        repository: &Repository,
        target: &str,
        media_type: &str,
    ) -> Vec<(Layer, Vec<u8>)> {
        let manifest = repository.manifest(target).await.map(|(_, bytes)| bytes);
        let Some(Manifest { layers }) = self.parsed(target, manifest) else { return Vec::new() };
        let mut found = Vec::new();
        for layer in layers.into_iter().filter(|layer| layer.media_type.starts_with(media_type)) {
            if self.signatures.len() + found.len() == MOST_SIGNATURES {
                break;
            }
            let Ok(descriptor) = checked(&layer.digest, layer.size) else { continue };
            match repository.small(&descriptor.digest, SIGNATURE_LIMIT).await {
                Ok(content) => found.push((layer, content)),
                Err(error) => self.problems.push(format!("{}: {error}", descriptor.digest)),
            }
        }
        found
    }

    /// The digests of the bundles that refer to an image, by the registry's list or the tag in its place.
    async fn referrers(&mut self, repository: &Repository, digest: &Digest) -> Vec<String> {
        let listed = match repository.referrers(digest).await {
            // Registries answer in many ways that they have no such list.
            Err(_) => {
                let tag = format!("sha256-{}", digest.hex());
                repository.manifest(&tag).await.map(|(_, bytes)| bytes)
            }
            listed => listed,
        };
        let Some(Index { manifests }) = self.parsed("its referrers", listed) else { return Vec::new() };
        let is_bundle = |entry: &Entry| {
            entry.artifact_type.as_deref().is_none_or(|artifact_type| artifact_type.starts_with(BUNDLE))
        };
        let digests = manifests.into_iter().filter(is_bundle).map(|entry| entry.digest);
        digests.filter(|digest| Digest::parse(digest).is_ok()).take(MOST_SIGNATURES).collect()
    }

    fn parsed<T: DeserializeOwned>(
        &mut self,
        what: &str,
        document: Result<Vec<u8>, RegistryError>,
    ) -> Option<T> {
        match document.map(|bytes| serde_json::from_slice(&bytes)) {
            Ok(Ok(parsed)) => return Some(parsed),
            Ok(Err(_)) => self.problems.push(format!("{what} is malformed")),
            Err(RegistryError::NotFound) => {}
            Err(error) => self.problems.push(format!("{what}: {error}")),
        }
        None
    }
}

#[derive(Deserialize)]
struct Manifest {
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    media_type: String,
    digest: String,
    size: i64,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    digest: String,
    artifact_type: Option<String>,
}

impl Layer {
    fn simple(&self, message: Vec<u8>) -> Option<Signature> {
        let bytes = STANDARD.decode(self.annotations.get(SIMPLE_SIGNATURE)?.trim()).ok()?;
        Some(simple(bytes, message))
    }
}

/// A signature as cosign lays it under a tag.
pub(crate) fn simple(bytes: Vec<u8>, message: Vec<u8>) -> Signature {
    Signature { bytes, message, claim: Claim::Simple }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle {
    message_signature: Option<MessageSignature>,
    dsse_envelope: Option<Envelope>,
}

#[derive(Deserialize)]
struct MessageSignature {
    signature: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<EnvelopeSignature>,
}

#[derive(Deserialize)]
struct EnvelopeSignature {
    sig: String,
}

/// The signature in a bundle that lies beside `manifest`.
pub(crate) fn signature(bundle: &[u8], manifest: &[u8]) -> Option<Signature> {
    let bundle: Bundle = serde_json::from_slice(bundle).ok()?;
    if let Some(MessageSignature { signature }) = bundle.message_signature {
        let bytes = STANDARD.decode(signature).ok()?;
        return Some(Signature { bytes, message: manifest.to_owned(), claim: Claim::Manifest });
    }
    let Envelope { payload, payload_type, signatures } = bundle.dsse_envelope?;
    let bytes = STANDARD.decode(&signatures.first()?.sig).ok()?;
    let payload = STANDARD.decode(payload).ok()?;
    // <https://github.com/secure-systems-lab/dsse/blob/master/protocol.md>
    let mut message = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    let begin = message.len();
    message.extend(payload);
    Some(Signature { bytes, message, claim: Claim::Statement(begin) })
}

#[derive(Deserialize)]
struct Simple {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    identity: SimpleIdentity,
    image: SimpleImage,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct SimpleIdentity {
    docker_reference: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct SimpleImage {
    docker_manifest_digest: String,
}

#[derive(Deserialize)]
struct Statement {
    subject: Vec<Subject>,
}

#[derive(Deserialize)]
struct Subject {
    digest: BTreeMap<String, String>,
}

impl Signature {
    /// Whether it is this key's.
    pub(crate) fn is_by(&self, key: &PublicKey) -> bool {
        key.has_signed(&self.message, &self.bytes)
    }

    /// Whether it says that it signs this image, under a name that is fit. Only of a signature that is trusted does it matter
    /// what it says.
    pub(crate) fn is_for(&self, name: &ImageName, identity: &Identity, documents: &Documents) -> bool {
        let is_of_image = |digest: &str| documents.chain.iter().any(|(known, _)| known.as_str() == digest);
        // A bundle names no reference.
        let needs_none = matches!(identity, Identity::MatchRepository);
        match self.claim {
            Claim::Simple => serde_json::from_slice(&self.message).is_ok_and(|Simple { critical }| {
                is_of_image(&critical.image.docker_manifest_digest)
                    && identity.fits(&critical.identity.docker_reference, name)
            }),
            Claim::Statement(begin) => {
                let statement = serde_json::from_slice(&self.message[begin..]);
                let is_subject = |subject: &Subject| {
                    subject.digest.get("sha256").is_some_and(|hex| is_of_image(&format!("sha256:{hex}")))
                };
                needs_none && statement.is_ok_and(|Statement { subject }| subject.iter().any(is_subject))
            }
            Claim::Manifest => needs_none,
        }
    }
}
