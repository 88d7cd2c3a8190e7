use pem::{EncodeConfig, LineEnding, Pem};
use rcgen::{
    CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384,
    PKCS_ED25519, PKCS_RSA_SHA256,
};
use rsa::RsaPrivateKey;
use rsa::pkcs8::EncodePrivateKey;
use rsa::rand_core::OsRng;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

use super::CertificateError;
use super::p521::P521;

/// PKCS #8 of version 1 (RFC 5208) up to the 32 bytes of an Ed25519 key. The longer version 2 (RFC 5958), which ring
/// writes, is not understood by all that understand this one.
const ED25519: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
const ED25519_LENGTH: usize = 32;

/// A new private key. It is never shown: it has no `Debug`.
pub(super) enum Key {
    Ring(KeyPair),
    P521(P521),
}

impl Key {
    /// A key of a type as the API calls it. One of RSA takes seconds of computing.
    ///
    /// # Errors
    /// Of types that the API does not know.
    pub(super) fn new(kind: &str) -> Result<Self, CertificateError> {
        match kind {
            "ECDSAP256" => Ok(Self::Ring(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?)),
            "ECDSAP384" => Ok(Self::Ring(KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384)?)),
            "ECDSAP521" => Ok(Self::P521(P521::new())),
            "ED25519" => Ok(Self::Ring(KeyPair::generate_for(&PKCS_ED25519)?)),
            "RSA3072" => rsa(3072),
            "RSA4096" => rsa(4096),
            other => Err(CertificateError::KeyType(other.to_owned())),
        }
    }

    /// A PKCS #10 request that says nothing but the public key, and proves that the private one is here.
    pub(super) fn request(&self) -> Result<Vec<u8>, CertificateError> {
        let pair = match self {
            Self::Ring(pair) => pair,
            Self::P521(key) => return key.request(),
        };
        let mut empty = CertificateParams::default();
        empty.distinguished_name = DistinguishedName::new();
        Ok(empty.serialize_request(pair)?.der().to_vec())
    }

    /// The key as PEM of PKCS #8.
    pub(super) fn pem(&self) -> Result<String, CertificateError> {
        let der = match self {
            Self::Ring(pair) => plain(pair),
            Self::P521(key) => key.der()?,
        };
        let unix = EncodeConfig::new().set_line_ending(LineEnding::LF);
        Ok(pem::encode_config(&Pem::new("PRIVATE KEY", der), unix))
    }
}

/// A key of so many bits. ring signs with such keys, but makes none.
fn rsa(bits: usize) -> Result<Key, CertificateError> {
    let key = RsaPrivateKey::new(&mut OsRng, bits).map_err(CertificateError::encoding)?;
    let der = key.to_pkcs8_der().map_err(CertificateError::encoding)?;
    let der = PrivatePkcs8KeyDer::from(der.as_bytes());
    Ok(Key::Ring(KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_RSA_SHA256)?))
}

fn plain(pair: &KeyPair) -> Vec<u8> {
    let (der, end) = (pair.serialized_der(), ED25519.len() + ED25519_LENGTH);
    match der.get(ED25519.len()..end).filter(|_| pair.algorithm() == &PKCS_ED25519) {
        Some(seed) => [&ED25519, seed].concat(),
        None => der.to_vec(),
    }
}

/// Makes keys, one at a time: the threads on which that is done are those of all file work.
#[derive(Default)]
pub(in crate::pods) struct Keys(Mutex<()>);

impl Keys {
    /// A key of a type as the API calls it, once those asked for before are made.
    pub(super) async fn make(&self, kind: &str) -> Result<Key, CertificateError> {
        let _turn = self.0.lock().await;
        let kind = kind.to_owned();
        spawn_blocking(move || Key::new(&kind)).await.map_err(|_| CertificateError::Stopping)?
    }
}

#[cfg(test)]
mod tests {
    use p521::SecretKey;
    use p521::ecdsa::signature::Verifier;
    use p521::ecdsa::{Signature, VerifyingKey};
    use p521::pkcs8::DecodePrivateKey;
    use rsa::RsaPublicKey;
    use rsa::pkcs1::DecodeRsaPublicKey;
    use rsa::traits::PublicKeyParts;
    use x509_parser::certification_request::X509CertificationRequest;
    use x509_parser::prelude::FromDer;

    use super::*;

    /// The modulus of an RSA key has so many bytes; others have none.
    const KINDS: [(&str, Option<usize>); 6] = [
        ("ECDSAP256", None),
        ("ECDSAP384", None),
        ("ECDSAP521", None),
        ("ED25519", None),
        ("RSA3072", Some(384)),
        ("RSA4096", Some(512)),
    ];

    #[test]
    fn requests_are_empty_and_made_with_the_key() {
        for (kind, modulus) in KINDS {
            let key = Key::new(kind).unwrap();
            let pem = key.pem().unwrap();
            assert!(pem.starts_with("-----BEGIN PRIVATE KEY-----\n") && pem.is_ascii(), "{kind}");
            let request = key.request().unwrap();
            let (rest, request) = X509CertificationRequest::from_der(&request).unwrap();
            assert!(rest.is_empty());
            let asked = &request.certification_request_info;
            assert_eq!((asked.subject.iter().count(), asked.attributes().len()), (0, 0), "{kind}");
            let public = asked.subject_pki.subject_public_key.data.as_ref();
            assert_eq!(public_of(&pem), public, "{kind}");
            let found = RsaPublicKey::from_pkcs1_der(public).ok().map(|key| key.size());
            assert_eq!(found, modulus, "{kind}");
        }
    }

    /// What belongs to a private key, by other means than those that made it where there are such.
    fn public_of(pem: &str) -> Vec<u8> {
        match SecretKey::from_pkcs8_der(pem::parse(pem).unwrap().contents()) {
            Ok(key) => key.public_key().to_sec1_bytes().to_vec(),
            Err(_) => KeyPair::from_pem(pem).unwrap().public_key_raw().to_vec(),
        }
    }

    #[test]
    fn a_request_of_p521_is_signed_with_its_key() {
        let key = Key::new("ECDSAP521").unwrap();
        let request = key.request().unwrap();
        let (_, request) = X509CertificationRequest::from_der(&request).unwrap();
        let public = request.certification_request_info.subject_pki.subject_public_key.data.as_ref();
        let signature = Signature::from_der(request.signature_value.data.as_ref()).unwrap();
        let verifier = VerifyingKey::from_sec1_bytes(public).unwrap();
        verifier.verify(request.certification_request_info.raw, &signature).unwrap();
        assert_eq!(request.signature_algorithm.algorithm.to_id_string(), "1.2.840.10045.4.3.4");
    }

    #[test]
    fn what_the_api_does_not_know_is_named() {
        for kind in ["RSA2048", "ed25519", ""] {
            let error = Key::new(kind).err().unwrap().to_string();
            assert_eq!(error, format!("this node cannot make keys of type {kind:?} for podCertificate"));
        }
    }

    #[test]
    fn a_key_of_ed25519_is_written_in_the_older_form() {
        let pem = pem::parse(Key::new("ED25519").unwrap().pem().unwrap()).unwrap();
        assert_eq!((pem.contents().len(), &pem.contents()[..16]), (48, ED25519.as_slice()));
    }
}
