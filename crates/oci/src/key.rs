//! Public keys and what they have signed.

use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
    VerificationAlgorithm,
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
    #[error("the key is none of ECDSA (P-256, P-384), Ed25519 and RSA")]
    Unsupported,
}

/// A public key that signs as cosign does.
pub(crate) struct PublicKey {
    algorithm: &'static dyn VerificationAlgorithm,
    bytes: Vec<u8>,
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "PublicKey({:?}, {:02x?})", self.algorithm, self.bytes)
    }
}

impl PublicKey {
    pub(crate) fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        let der = SubjectPublicKeyInfoDer::from_pem_slice(pem).map_err(|_| KeyError::Malformed)?;
        let (_, info) = SubjectPublicKeyInfo::from_der(&der).map_err(|_| KeyError::Malformed)?;
        let algorithm: &'static dyn VerificationAlgorithm =
            match (info.parsed(), info.algorithm.algorithm.to_id_string().as_str()) {
                (Ok(Parsed::RSA(_)), _) => &RSA_PKCS1_2048_8192_SHA256,
                (Ok(Parsed::EC(point)), _) if point.key_size() == 256 => &ECDSA_P256_SHA256_ASN1,
                (Ok(Parsed::EC(point)), _) if point.key_size() == 384 => &ECDSA_P384_SHA384_ASN1,
                (_, "1.3.101.112") => &ED25519,
                _ => return Err(KeyError::Unsupported),
            };
        Ok(Self { algorithm, bytes: info.subject_public_key.data.to_vec() })
    }

    /// Whether `signature` is this key's under `message`.
    pub(crate) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(self.algorithm, &self.bytes).verify(message, signature).is_ok()
    }
}
