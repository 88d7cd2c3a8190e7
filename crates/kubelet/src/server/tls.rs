use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use thiserror::Error;

/// The certificate that the server shows, and its key.
pub struct ServingCertificate {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// Why TLS cannot be set up. Each message names the file or the part.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read, or holds no such thing.
    #[error("cannot read {what} from {}", path.display())]
    File {
        /// What was looked for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: pem::Error,
    },
    /// No certificate could be made.
    #[error("cannot make a serving certificate")]
    SelfSigned(#[from] rcgen::Error),
    /// The client authorities cannot be used.
    #[error("the client certificate authorities cannot be used: {0}")]
    ClientAuthorities(String),
    /// The certificate and the key do not fit, or one is of a kind that is not supported.
    #[error("the serving certificate and its key cannot be used")]
    Certificate(#[from] rustls::Error),
}

impl ServingCertificate {
    /// The certificate chain and the private key in two PEM files.
    ///
    /// # Errors
    /// When one cannot be read or does not hold what it should.
    pub fn from_files(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let unreadable = |what, path: &Path, source| TlsError::File { what, path: path.to_owned(), source };
        let chain: Vec<_> = CertificateDer::pem_file_iter(certificate)
            .and_then(Iterator::collect)
            .map_err(|error| unreadable("a certificate", certificate, error))?;
        if chain.is_empty() {
            return Err(unreadable("a certificate", certificate, pem::Error::NoItemsFound));
        }
        let key =
            PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable("a private key", key, error))?;
        Ok(Self { chain, key })
    }

    /// A certificate made now and signed by itself, for a node of this name and these addresses.
    ///
    /// # Errors
    /// When the name cannot stand in a certificate.
    pub fn self_signed(node: &str, addresses: &[IpAddr]) -> Result<Self, TlsError> {
        let names: Vec<_> =
            std::iter::once(node.to_owned()).chain(addresses.iter().map(IpAddr::to_string)).collect();
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        params.distinguished_name.push(DnType::CommonName, format!("system:node:{node}"));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        let key = PrivateKeyDer::try_from(key.serialize_der())
            .map_err(|error| rustls::Error::General(error.to_owned()))?;
        Ok(Self { chain: vec![certificate.der().clone()], key })
    }
}

#[cfg(test)]
impl ServingCertificate {
    pub(super) fn first(&self) -> &CertificateDer<'static> {
        &self.chain[0]
    }
}

/// The authorities whose client certificates are believed.
pub struct ClientAuthorities(RootCertStore);

impl ClientAuthorities {
    /// The authorities in a PEM file.
    ///
    /// # Errors
    /// When it cannot be read, holds none, or holds one that is damaged.
    pub fn from_file(path: &Path) -> Result<Self, TlsError> {
        let unreadable =
            |source| TlsError::File { what: "a certificate authority", path: path.to_owned(), source };
        let certificates: Vec<_> =
            CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(unreadable)?;
        if certificates.is_empty() {
            return Err(unreadable(pem::Error::NoItemsFound));
        }
        Self::from_certificates(certificates)
    }

    /// These certificates, DER.
    ///
    /// # Errors
    /// When one is damaged.
    pub fn from_der(certificates: impl IntoIterator<Item = Vec<u8>>) -> Result<Self, TlsError> {
        Self::from_certificates(certificates.into_iter().map(CertificateDer::from))
    }

    fn from_certificates(
        certificates: impl IntoIterator<Item = CertificateDer<'static>>,
    ) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates {
            roots.add(certificate).map_err(|error| TlsError::ClientAuthorities(error.to_string()))?;
        }
        Ok(Self(roots))
    }
}

/// The TLS side of the server: it asks for a client certificate and checks what comes against `authorities`, but lets
/// a connection without one pass, to be refused by the [`Gate`](super::Gate) in words.
///
/// # Errors
/// When the certificate or its key cannot be used, or there are no authorities.
pub fn server_config(
    serving: ServingCertificate,
    authorities: ClientAuthorities,
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(authorities.0), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()
            .map_err(|error| TlsError::ClientAuthorities(error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(serving.chain, serving.key)?;
    // Upgrades to SPDY and WebSocket work on HTTP/1.1 only.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_hold_no_certificate_or_key_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let empty = directory.path().join("empty.pem");
        std::fs::write(&empty, "").unwrap();
        let missing = directory.path().join("missing.pem");
        for path in [&empty, &missing] {
            let error = ServingCertificate::from_files(path, path).err().unwrap();
            assert_eq!(error.to_string(), format!("cannot read a certificate from {}", path.display()));
        }
    }

    #[test]
    fn authorities_that_are_none_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.pem");
        for pem in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            std::fs::write(&path, pem).unwrap();
            assert!(ClientAuthorities::from_file(&path).is_err(), "{pem:?}");
        }
        let serving = ServingCertificate::self_signed("n1", &[]).unwrap();
        let none = ClientAuthorities::from_der([]).unwrap();
        assert!(server_config(serving, none).is_err());
    }
}
