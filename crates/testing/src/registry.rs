//! A real OCI registry on loopback, over plain HTTP, with or without a login.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};
use sha2::{Digest, Sha256};

use crate::ports;
use crate::process::{Launch, Process};
use crate::scratch::Scratch;
use crate::tools::{Tool, Tools};

mod artifact;

pub use artifact::{Artifact, Blob, Files};

const READY_LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);
const TRIES: usize = 5;

/// Who may push and pull.
#[derive(Clone, Debug)]
pub struct Login {
    /// The user's name.
    pub user: String,
    /// The user's password.
    pub password: String,
}

/// A running registry. It is gone, with what was pushed, when this value is dropped, or the process is gone.
pub struct Registry {
    process: Process,
    port: u16,
    login: Option<Login>,
    scratch: Scratch,
}

impl Registry {
    /// Starts a registry in which everybody may push and pull.
    ///
    /// # Errors
    /// The program is missing (the error says how to build it), or did not start: the error shows the end of its log.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(None).await
    }

    /// Starts a registry that asks for this login (HTTP basic authentication) for everything.
    ///
    /// # Errors
    /// As [`Registry::start`].
    pub async fn with_login(user: &str, password: &str) -> anyhow::Result<Self> {
        Self::start_with(Some(Login { user: user.to_owned(), password: password.to_owned() })).await
    }

    async fn start_with(login: Option<Login>) -> anyhow::Result<Self> {
        let tools = Tools::locate()?;
        // The client's TLS library wants to know its cryptography even where it speaks plain HTTP.
        let _installed_before = rustls::crypto::ring::default_provider().install_default();
        for _ in 0..TRIES {
            let scratch = Scratch::new("registry")?;
            let port = ports::free()?;
            let process = Process::spawn(&launch(&tools, &scratch, port, login.as_ref())?)?;
            match listening(&process, port).await {
                Ok(()) => return Ok(Self { process, port, login, scratch }),
                Err(error) if error.to_string().contains("address already in use") => {}
                Err(error) => return Err(error),
            }
        }
        bail!("no free port for a registry in {TRIES} tries")
    }

    /// Host and port, as they stand at the start of an image reference.
    #[must_use]
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The reference of an image in this registry: `name` is `repository:tag` or `repository@digest`.
    #[must_use]
    pub fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.host())
    }

    /// The login it asks for.
    #[must_use]
    pub fn login(&self) -> Option<&Login> {
        self.login.as_ref()
    }

    /// All that the registry has logged, with one line for each request it answered.
    ///
    /// # Errors
    /// The log could not be read.
    pub fn log(&self) -> anyhow::Result<String> {
        Ok(String::from_utf8_lossy(&std::fs::read(self.scratch.join("registry.log"))?).into_owned())
    }

    /// Pushes an artifact under a tag and returns its manifest's digest.
    ///
    /// # Errors
    /// The registry refused it.
    pub async fn push(&self, repository: &str, tag: &str, artifact: &Artifact) -> anyhow::Result<String> {
        for blob in std::iter::once(&artifact.config).chain(&artifact.layers) {
            self.push_blob(repository, blob.data.clone()).await?;
        }
        let manifest = serde_json::to_vec(&artifact.manifest())?;
        self.push_manifest(repository, tag, artifact::MANIFEST, manifest).await
    }

    /// Pushes any bytes as a blob and returns their digest.
    ///
    /// # Errors
    /// The registry refused them.
    pub async fn push_blob(&self, repository: &str, data: impl Into<bytes::Bytes>) -> anyhow::Result<String> {
        let (data, client) = (data.into(), self.client().await);
        let digest = digest(&data);
        let reference = self.reference(repository, "blob")?;
        client.push_blob(&reference, data, &digest).await.context("pushing a blob")?;
        Ok(digest)
    }

    /// Pushes any bytes as a manifest, under a tag, and returns their digest. The registry itself wants a manifest that it
    /// can read and whose blobs it has; use [`Registry::overwrite_blob`] for what it would refuse.
    ///
    /// # Errors
    /// The registry refused them.
    pub async fn push_manifest(
        &self,
        repository: &str,
        tag: &str,
        media_type: &str,
        bytes: impl Into<bytes::Bytes>,
    ) -> anyhow::Result<String> {
        let (bytes, media_type) = (bytes.into(), http::HeaderValue::from_str(media_type)?);
        let digest = digest(&bytes);
        let reference = self.reference(repository, tag)?;
        let client = self.client().await;
        client.push_manifest_raw(&reference, bytes, media_type).await.context("pushing a manifest")?;
        Ok(digest)
    }

    /// Puts other bytes in place of a stored blob or manifest, which the registry then serves under the old digest.
    ///
    /// # Errors
    /// There is no such blob.
    pub fn overwrite_blob(&self, digest: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let hex = digest.strip_prefix("sha256:").context("only sha256 digests are stored")?;
        let first = hex.get(..2).context("a digest has 64 digits")?;
        let path = self.storage().join("docker/registry/v2/blobs/sha256").join(first).join(hex).join("data");
        anyhow::ensure!(path.is_file(), "there is no blob {digest}");
        std::fs::write(path, bytes).context("overwriting a blob")
    }

    fn storage(&self) -> PathBuf {
        self.scratch.join("storage")
    }

    fn reference(&self, repository: &str, tag: &str) -> anyhow::Result<Reference> {
        Ok(self.image(&format!("{repository}:{tag}")).parse()?)
    }

    async fn client(&self) -> Client {
        let client = Client::new(ClientConfig { protocol: ClientProtocol::Http, ..ClientConfig::default() });
        let auth = self.login.as_ref().map_or(RegistryAuth::Anonymous, |login| {
            RegistryAuth::Basic(login.user.clone(), login.password.clone())
        });
        client.store_auth_if_needed(&self.host(), &auth).await;
        client
    }

    /// The folder in which its log and all that was pushed lie.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.scratch.path()
    }

    /// The number of the registry's process.
    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.process.id()
    }
}

fn digest(bytes: &[u8]) -> String {
    Blob::digest_of(&Sha256::digest(bytes))
}

fn launch(tools: &Tools, scratch: &Scratch, port: u16, login: Option<&Login>) -> anyhow::Result<Launch> {
    let mut config = serde_json::json!({
        "version": "0.1",
        "log": {"level": "info"},
        "storage": {"filesystem": {"rootdirectory": scratch.join("storage")}, "delete": {"enabled": true}},
        "http": {"addr": format!("127.0.0.1:{port}")},
    });
    if let Some(login) = login {
        let path = scratch.join("htpasswd");
        // The lowest cost: nothing here is worth guessing, and every request checks it.
        let hash = bcrypt::hash(&login.password, 4)?;
        std::fs::write(&path, format!("{}:{hash}\n", login.user))?;
        config["auth"] = serde_json::json!({"htpasswd": {"realm": "test", "path": path}});
    }
    let path = scratch.join("config.yaml");
    std::fs::write(&path, serde_json::to_vec_pretty(&config)?)?;
    Ok(Launch {
        name: Tool::Registry.name().to_owned(),
        program: tools.path(Tool::Registry).to_owned(),
        arguments: vec!["serve".to_owned(), path.display().to_string()],
        environment: vec![("OTEL_TRACES_EXPORTER".to_owned(), "none".to_owned())],
        log: scratch.join("registry.log"),
    })
}

async fn listening(process: &Process, port: u16) -> anyhow::Result<()> {
    let deadline = Instant::now() + READY_LIMIT;
    let mut tick = tokio::time::interval(POLL);
    loop {
        tick.tick().await;
        if let Some(status) = process.status()? {
            bail!("it ended at once, {status}; {}", process.tail());
        }
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("the registry does not listen after {READY_LIMIT:?}; {}", process.tail());
        }
    }
}
