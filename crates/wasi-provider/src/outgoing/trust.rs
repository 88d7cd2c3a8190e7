//! Whose certificates a guest's requests accept.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use coracle_lifecycle::ContainerSpec;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::OnceCell;
use tracing::warn;
use wasmtime_wasi_http::{Error, Result};

/// The variable of a container that names a file with certificates in its own file system, as OpenSSL and Go know it.
const VARIABLE: &str = "SSL_CERT_FILE";
/// A file of certificates is no larger.
const MAX_FILE: u64 = 4 << 20;

/// The authorities that one container trusts: those in the file that its `SSL_CERT_FILE` names, else the machine's.
pub(super) struct Trust {
    file: Option<GuestFile>,
    config: OnceCell<Arc<ClientConfig>>,
}

/// A file as a guest names it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct GuestFile {
    /// The directory of this machine in which it lies.
    directory: PathBuf,
    path: PathBuf,
}

impl Trust {
    pub(super) fn of(spec: &ContainerSpec) -> Self {
        let environment = spec.environment();
        let named = environment.iter().find(|(name, value)| name == VARIABLE && !value.is_empty());
        Self { file: named.map(|(_, path)| GuestFile::find(spec, path)), config: OnceCell::new() }
    }

    /// Read when the first request needs it, and again when that has failed.
    pub(super) async fn config(&self) -> Result<Arc<ClientConfig>> {
        let made = self.config.get_or_try_init(|| async {
            let file = self.file.clone();
            let made = tokio::task::spawn_blocking(move || config(file.as_ref())).await;
            made.unwrap_or(Err(Error::ConfigurationError))
        });
        made.await.cloned()
    }
}

fn config(file: Option<&GuestFile>) -> Result<Arc<ClientConfig>> {
    let roots = match file {
        Some(file) => Arc::new(file.roots()?),
        None => machine_roots(),
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let versions = versions.map_err(|_| Error::ConfigurationError)?;
    let mut config = versions.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Those of this machine, read once.
fn machine_roots() -> Arc<RootCertStore> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let read = || {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            warn!(%error, "some certificates of this machine cannot be read");
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(found.certs);
        Arc::new(roots)
    };
    Arc::clone(ROOTS.get_or_init(read))
}

impl GuestFile {
    /// The file is in the mount whose path is the longest beginning of its own, as everywhere in a guest.
    fn find(spec: &ContainerSpec, path: &str) -> Self {
        let path = Path::new(spec.directory()).join(path);
        let mounts = spec.mounts.iter().filter_map(|mount| {
            let rest = path.strip_prefix(&mount.target).ok()?;
            Some((mount.target.len(), &mount.source, rest))
        });
        let root = (0, &spec.root, path.strip_prefix("/").unwrap_or(&path));
        let (_, directory, rest) = mounts.chain([root]).max_by_key(|(length, ..)| *length).unwrap_or(root);
        Self { directory: directory.clone(), path: rest.to_owned() }
    }

    /// Never leaves the directory, whatever the guest has put there.
    fn open(&self) -> std::io::Result<File> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(CWD, &self.directory, flags, Mode::empty())?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let path = if self.path.as_os_str().is_empty() { Path::new(".") } else { &self.path };
        Ok(File::from(rustix::fs::openat2(directory, path, flags, Mode::empty(), resolve)?))
    }

    fn roots(&self) -> Result<RootCertStore> {
        let mut text = Vec::new();
        let read = self.open().and_then(|file| file.take(MAX_FILE).read_to_end(&mut text));
        if let Err(error) = read {
            warn!(file = %self.path.display(), %error, "a container's {VARIABLE} cannot be read");
            return Err(Error::ConfigurationError);
        }
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&text) {
            let added = certificate.ok().and_then(|certificate| roots.add(certificate).ok());
            if added.is_none() {
                warn!(file = %self.path.display(), "a container's {VARIABLE} has a certificate that is none");
                return Err(Error::ConfigurationError);
            }
        }
        Ok(roots)
    }
}
