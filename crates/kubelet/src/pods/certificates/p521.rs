use ::p521::SecretKey;
use ::p521::ecdsa::signature::Signer;
use ::p521::ecdsa::{Signature, SigningKey};
use ::p521::elliptic_curve::rand_core::OsRng;
use ::p521::pkcs8::{EncodePrivateKey, EncodePublicKey};
use yasna::models::ObjectIdentifier;
use yasna::{Tag, construct_der};

use super::CertificateError;

/// `ecdsa-with-SHA512`: RFC 5758, section 3.2.
const ECDSA_WITH_SHA512: [u64; 7] = [1, 2, 840, 10045, 4, 3, 4];

/// A key on the curve P-521, which neither ring nor rcgen knows.
pub(super) struct P521(SigningKey);

impl P521 {
    /// A new key.
    pub(super) fn new() -> Self {
        Self(SigningKey::random(&mut OsRng))
    }

    /// PKCS #8.
    pub(super) fn der(&self) -> Result<Vec<u8>, CertificateError> {
        Ok(self.secret().to_pkcs8_der().map_err(CertificateError::encoding)?.as_bytes().to_vec())
    }

    /// A PKCS #10 request (RFC 2986) without a subject and attributes.
    pub(super) fn request(&self) -> Result<Vec<u8>, CertificateError> {
        let public = self.secret().public_key().to_public_key_der().map_err(CertificateError::encoding)?;
        let asked = construct_der(|writer| {
            writer.write_sequence(|writer| {
                writer.next().write_u8(0);
                writer.next().write_sequence(|_| {});
                writer.next().write_der(public.as_bytes());
                writer.next().write_tagged_implicit(Tag::context(0), |writer| writer.write_set(|_| {}));
            });
        });
        let signature: Signature = self.0.sign(&asked);
        let signature = signature.to_der();
        Ok(construct_der(|writer| {
            writer.write_sequence(|writer| {
                writer.next().write_der(&asked);
                writer.next().write_sequence(|writer| {
                    writer.next().write_oid(&ObjectIdentifier::from_slice(&ECDSA_WITH_SHA512));
                });
                let bytes = signature.as_bytes();
                writer.next().write_bitvec_bytes(bytes, bytes.len() * 8);
            });
        }))
    }

    fn secret(&self) -> SecretKey {
        self.0.as_nonzero_scalar().into()
    }
}
