use pem::{EncodeConfig, LineEnding, Pem};
use rcgen::{
    CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384,
    PKCS_ED25519,
};

use super::CertificateError;

/// PKCS #8 of version 1 (RFC 5208) up to the 32 bytes of an Ed25519 key. The longer version 2 (RFC 5958), which ring
/// writes, is not understood by all that understand this one.
const ED25519: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
const ED25519_LENGTH: usize = 32;

/// A new private key. It is never shown: it has no `Debug`.
pub(super) struct Key(KeyPair);

impl Key {
    /// A key of a type as the API calls it.
    ///
    /// # Errors
    /// Of types that the node's cryptography cannot make: RSA, and ECDSA on P-521.
    pub(super) fn new(kind: &str) -> Result<Self, CertificateError> {
        let algorithm = match kind {
            "ECDSAP256" => &PKCS_ECDSA_P256_SHA256,
            "ECDSAP384" => &PKCS_ECDSA_P384_SHA384,
            "ED25519" => &PKCS_ED25519,
            other => return Err(CertificateError::KeyType(other.to_owned())),
        };
        Ok(Self(KeyPair::generate_for(algorithm)?))
    }

    /// A PKCS #10 request that says nothing but the public key, and proves that the private one is here.
    pub(super) fn request(&self) -> Result<Vec<u8>, CertificateError> {
        let mut empty = CertificateParams::default();
        empty.distinguished_name = DistinguishedName::new();
        Ok(empty.serialize_request(&self.0)?.der().to_vec())
    }

    /// The key as PEM of PKCS #8.
    pub(super) fn pem(&self) -> String {
        let der = self.0.serialized_der();
        let end = ED25519.len() + ED25519_LENGTH;
        let der = match der.get(ED25519.len()..end).filter(|_| self.0.algorithm() == &PKCS_ED25519) {
            Some(seed) => [&ED25519, seed].concat(),
            None => der.to_vec(),
        };
        let unix = EncodeConfig::new().set_line_ending(LineEnding::LF);
        pem::encode_config(&Pem::new("PRIVATE KEY", der), unix)
    }
}

#[cfg(test)]
mod tests {
    use x509_parser::certification_request::X509CertificationRequest;
    use x509_parser::prelude::FromDer;

    use super::*;

    #[test]
    fn requests_are_empty_and_made_with_the_key() {
        for kind in ["ECDSAP256", "ECDSAP384", "ED25519"] {
            let key = Key::new(kind).unwrap();
            let pem = key.pem();
            assert!(pem.starts_with("-----BEGIN PRIVATE KEY-----\n") && pem.is_ascii(), "{kind}");
            let request = key.request().unwrap();
            let (rest, request) = X509CertificationRequest::from_der(&request).unwrap();
            assert!(rest.is_empty());
            let asked = &request.certification_request_info;
            assert_eq!((asked.subject.iter().count(), asked.attributes().len()), (0, 0), "{kind}");
            let read = KeyPair::from_pem(&pem).unwrap();
            assert_eq!(read.public_key_raw(), asked.subject_pki.subject_public_key.data.as_ref(), "{kind}");
        }
    }

    #[test]
    fn what_cannot_be_made_is_named() {
        for kind in ["RSA3072", "RSA4096", "ECDSAP521", "ed25519", ""] {
            let error = Key::new(kind).err().unwrap().to_string();
            assert_eq!(error, format!("this node cannot make keys of type {kind:?} for podCertificate"));
        }
    }

    #[test]
    fn a_key_of_ed25519_is_written_in_the_older_form() {
        let pem = pem::parse(Key::new("ED25519").unwrap().pem()).unwrap();
        assert_eq!((pem.contents().len(), &pem.contents()[..16]), (48, ED25519.as_slice()));
    }
}
