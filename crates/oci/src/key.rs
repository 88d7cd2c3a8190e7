//! Public keys and what they have signed.

use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519,
    RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;
use thiserror::Error;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey as Parsed;
use x509_parser::x509::SubjectPublicKeyInfo;

/// Why a public key cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KeyError {
    /// It is not a PEM file of type `PUBLIC KEY`.
    #[error("the key is no public key in PEM")]
    Malformed,
    /// Its kind is not understood.
    #[error("the key is none of ECDSA (P-256, P-384), Ed25519 and RSA (2048 to 8192 bits)")]
    Unsupported,
}

/// Ways of signing with one kind of key.
type Algorithms = &'static [&'static dyn VerificationAlgorithm];

const P256: Algorithms = &[&ECDSA_P256_SHA256_ASN1];
/// Cosign takes SHA-256 for all keys but for what it is told; others take what is as long as the key.
const P384: Algorithms = &[&ECDSA_P384_SHA256_ASN1, &ECDSA_P384_SHA384_ASN1];
const EDWARDS: Algorithms = &[&ED25519];
const RSA: Algorithms = &[&RSA_PKCS1_2048_8192_SHA256];

/// A public key that signs as cosign does.
pub(crate) struct PublicKey {
    algorithms: Algorithms,
    bytes: Vec<u8>,
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "PublicKey({:?}, {:02x?})", self.algorithms, self.bytes)
    }
}

impl PublicKey {
    pub(crate) fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        let der = SubjectPublicKeyInfoDer::from_pem_slice(pem).map_err(|_| KeyError::Malformed)?;
        let (_, info) = SubjectPublicKeyInfo::from_der(&der).map_err(|_| KeyError::Malformed)?;
        let algorithms = algorithms(&info).ok_or(KeyError::Unsupported)?;
        Ok(Self { algorithms, bytes: info.subject_public_key.data.to_vec() })
    }

    /// Whether `signature` is this key's under `message`.
    pub(crate) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let is_by =
            |algorithm| UnparsedPublicKey::new(algorithm, &self.bytes).verify(message, signature).is_ok();
        self.algorithms.iter().any(|algorithm| is_by(*algorithm))
    }
}

fn algorithms(info: &SubjectPublicKeyInfo<'_>) -> Option<Algorithms> {
    let curve = info.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
    let curve = curve.map(|curve| curve.to_id_string());
    match (info.algorithm.algorithm.to_id_string().as_str(), curve.as_deref(), info.parsed()) {
        ("1.2.840.10045.2.1", Some("1.2.840.10045.3.1.7"), _) => Some(P256),
        ("1.2.840.10045.2.1", Some("1.3.132.0.34"), _) => Some(P384),
        ("1.3.101.112", None, _) => Some(EDWARDS),
        (_, _, Ok(Parsed::RSA(key))) if (2048..=8192).contains(&key.key_size()) => Some(RSA),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_key_knows_its_signatures_and_no_others() {
        macro_rules! file {
            ($name:literal) => {
                include_bytes!(concat!("../tests/keys/", $name)).as_slice()
            };
        }
        let signatures = [
            (file!("p256.pub"), file!("p256.sha256")),
            (file!("p384.pub"), file!("p384.sha256")),
            (file!("p384.pub"), file!("p384.sha384")),
            (file!("ed.pub"), file!("ed.raw")),
            (file!("rsa.pub"), file!("rsa.sha256")),
        ];
        for (pem, signature) in signatures {
            let key = PublicKey::from_pem(pem).unwrap();
            assert!(key.has_signed(b"signed", signature), "{key:?}");
            assert!(!key.has_signed(b"Signed", signature), "{key:?}");
            let others = signatures.iter().filter(|(other, _)| *other != pem);
            assert!(others.clone().all(|(_, other)| !key.has_signed(b"signed", other)), "{key:?}");
        }
        for pem in [file!("p521.pub"), file!("k1.pub"), file!("rsa1024.pub")] {
            assert_eq!(PublicKey::from_pem(pem).unwrap_err(), KeyError::Unsupported);
        }
        assert_eq!(PublicKey::from_pem(b"").unwrap_err(), KeyError::Malformed);
    }
}
