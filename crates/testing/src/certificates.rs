//! The keys and certificates of a cluster, made for it alone.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, KeyUsagePurpose,
};

/// The files of a certificate and its private key, PEM.
#[derive(Clone, Debug)]
pub(crate) struct KeyFiles {
    /// The certificate.
    pub(crate) certificate: PathBuf,
    /// Its private key (PKCS #8), readable by its owner only.
    pub(crate) key: PathBuf,
}

/// The certificate authority of a cluster: signs servers and clients alike.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
    /// The authority's own files.
    pub(crate) files: KeyFiles,
}

impl Authority {
    pub(crate) fn new(folder: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = name("coracle-test-ca", &[])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        let key_pem = key.serialize_pem();
        let issuer = CertifiedIssuer::self_signed(params, key)?;
        let files = write(folder, "ca", &issuer.pem(), &key_pem)?;
        Ok(Self { issuer, folder: folder.to_owned(), files })
    }

    /// A certificate by which `user`, a member of `groups`, is known to the API server. At most two groups.
    pub(crate) fn client(&self, file: &str, user: &str, groups: &[&str]) -> anyhow::Result<KeyFiles> {
        let mut params = CertificateParams::default();
        params.distinguished_name = name(user, groups)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(file, params)
    }

    /// A certificate for a server that is reached by `hosts` (addresses or DNS names).
    pub(crate) fn server(
        &self,
        file: &str,
        common_name: &str,
        organisations: &[&str],
        hosts: &[&str],
    ) -> anyhow::Result<KeyFiles> {
        let hosts: Vec<_> = hosts.iter().map(|&host| host.to_owned()).collect();
        let mut params = CertificateParams::new(hosts)?;
        params.distinguished_name = name(common_name, organisations)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(file, params)
    }

    fn sign(&self, file: &str, mut params: CertificateParams) -> anyhow::Result<KeyFiles> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer).with_context(|| format!("signing {file}"))?;
        write(&self.folder, file, &certificate.pem(), &key.serialize_pem())
    }
}

/// A key pair without a certificate: what signs the tokens of service accounts. Its `certificate` is the public key.
pub(crate) fn bare_key(folder: &Path, file: &str) -> anyhow::Result<KeyFiles> {
    let key = KeyPair::generate()?;
    write(folder, file, &key.public_key_pem(), &key.serialize_pem())
}

/// rcgen keeps one value for each type of name: a second organisation goes in under its number.
fn name(common_name: &str, organisations: &[&str]) -> anyhow::Result<DistinguishedName> {
    ensure!(organisations.len() <= 2, "a certificate here carries at most two groups");
    let types = [DnType::OrganizationName, DnType::CustomDnType(vec![2, 5, 4, 10])];
    let mut name = DistinguishedName::new();
    for (kind, &organisation) in types.into_iter().zip(organisations) {
        name.push(kind, organisation);
    }
    name.push(DnType::CommonName, common_name);
    Ok(name)
}

fn write(folder: &Path, file: &str, certificate: &str, key: &str) -> anyhow::Result<KeyFiles> {
    let files =
        KeyFiles { certificate: folder.join(format!("{file}.crt")), key: folder.join(format!("{file}.key")) };
    std::fs::write(&files.certificate, certificate)?;
    let mut private =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&files.key)?;
    private.write_all(key.as_bytes())?;
    Ok(files)
}
