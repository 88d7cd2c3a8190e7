use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use coracle_lifecycle::{Credential, RegistryKey, repository_of};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use tokio::time::{Instant, timeout};

/// How long a plugin may take, as with the kubelet.
const PATIENCE: Duration = Duration::from_mins(1);
/// The longest answer of a plugin.
const ANSWER_LIMIT: u64 = 1024 * 1024;
const VERSION: &str = "credentialprovider.kubelet.k8s.io/v1";

/// Why the file of `--image-credential-provider-config` cannot be used.
#[derive(Debug, Error)]
pub enum PluginConfigError {
    /// It cannot be read.
    #[error("{path} cannot be read: {cause}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// It is no such file.
    #[error("{path}: {why}")]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// Why a plugin gave no credentials.
#[derive(Debug, Error)]
enum PluginError {
    #[error("it cannot be run: {0}")]
    Run(#[from] io::Error),
    #[error("it ended with {0}")]
    Failed(ExitStatus),
    #[error("it did not answer within {} s", PATIENCE.as_secs())]
    Late,
    #[error("its answer is no CredentialProviderResponse of {VERSION}")]
    Answer,
}

/// The file of `--image-credential-provider-config`
/// (<https://kubernetes.io/docs/tasks/administer-cluster/kubelet-credential-provider/>).
#[derive(Deserialize)]
struct Document {
    kind: String,
    providers: Vec<RawPlugin>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawPlugin {
    name: String,
    match_images: Vec<String>,
    default_cache_duration: String,
    api_version: String,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: Vec<Variable>,
}

#[derive(Deserialize)]
struct Variable {
    name: String,
    value: String,
}

/// A program that knows credentials for some images, and what it said last.
pub(super) struct Plugin {
    name: String,
    program: PathBuf,
    images: Vec<String>,
    usual: Duration,
    args: Vec<String>,
    env: Vec<(String, String)>,
    known: Mutex<HashMap<String, Known>>,
}

struct Known {
    until: Instant,
    credentials: Vec<Credential>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    api_version: &'a str,
    kind: &'a str,
    image: &'a str,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    kind: String,
    api_version: String,
    cache_key_type: String,
    cache_duration: Option<String>,
    #[serde(default)]
    auth: Option<BTreeMap<String, Login>>,
}

#[derive(Deserialize)]
struct Login {
    username: String,
    password: String,
}

/// The plugins that a configuration names, whose programs lie in `directory`.
pub(super) fn read(path: &Path, directory: &Path) -> Result<Vec<Plugin>, PluginConfigError> {
    let unreadable = |cause| PluginConfigError::Unreadable { path: path.to_owned(), cause };
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    parse(&text, directory).map_err(|why| PluginConfigError::Wrong { path: path.to_owned(), why })
}

fn parse(text: &str, directory: &Path) -> Result<Vec<Plugin>, String> {
    let document: Document = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    if document.kind != "CredentialProviderConfig" {
        return Err(format!("it is of kind {:?} and no CredentialProviderConfig", document.kind));
    }
    document.providers.into_iter().map(|raw| Plugin::new(raw, directory)).collect()
}

impl Plugin {
    fn new(raw: RawPlugin, directory: &Path) -> Result<Self, String> {
        let named = |why: String| format!("provider {:?}: {why}", raw.name);
        if raw.name.is_empty() || raw.name.contains('/') || matches!(&*raw.name, "." | "..") {
            return Err(named("this is no name of a program".to_owned()));
        }
        if raw.api_version != VERSION {
            return Err(named(format!("the version {:?} is not {VERSION}", raw.api_version)));
        }
        if raw.match_images.is_empty() {
            return Err(named("matchImages is empty".to_owned()));
        }
        let usual = duration(&raw.default_cache_duration)
            .ok_or_else(|| named(format!("{:?} is no duration", raw.default_cache_duration)))?;
        let program = directory.join(&raw.name);
        if !program.is_file() {
            return Err(named(format!("{} does not exist", program.display())));
        }
        Ok(Self {
            program,
            usual,
            name: raw.name,
            images: raw.match_images,
            args: raw.args,
            env: raw.env.into_iter().map(|variable| (variable.name, variable.value)).collect(),
            known: Mutex::default(),
        })
    }

    /// Its credentials for an image; none when it has none or fails, which the log tells.
    pub(super) async fn credentials(&self, image: &str) -> Vec<Credential> {
        let (registry, repository) = repository_of(image);
        if !self.images.iter().any(|pattern| RegistryKey::parse(pattern).fits(&registry, &repository)) {
            return Vec::new();
        }
        let image = format!("{registry}/{repository}");
        if let Some(known) = self.known_for(&image, &registry) {
            return known;
        }
        match self.ask(&image).await {
            Ok(answer) => self.keep(answer, image, registry),
            Err(error) => {
                tracing::warn!(plugin = self.name, image, %error, "a credential provider failed");
                Vec::new()
            }
        }
    }

    fn known_for(&self, image: &str, registry: &str) -> Option<Vec<Credential>> {
        let known = self.known.lock();
        let now = Instant::now();
        let mut fresh = [image, registry, ""].into_iter().filter_map(|key| known.get(key));
        fresh.find(|known| known.until > now).map(|known| known.credentials.clone())
    }

    fn keep(&self, answer: Answer, image: String, registry: String) -> Vec<Credential> {
        let key = match &*answer.cache_key_type {
            "Image" => image,
            "Registry" => registry,
            _ => String::new(),
        };
        let lasts = answer.cache_duration.as_deref().and_then(duration).unwrap_or(self.usual);
        let login = |(registry, Login { username, password })| Credential { registry, username, password };
        let credentials: Vec<Credential> = answer.auth.unwrap_or_default().into_iter().map(login).collect();
        let now = Instant::now();
        let mut known = self.known.lock();
        known.retain(|_, known| known.until > now);
        if let Some(until) = now.checked_add(lasts) {
            known.insert(key, Known { until, credentials: credentials.clone() });
        }
        credentials
    }

    async fn ask(&self, image: &str) -> Result<Answer, PluginError> {
        let answer = timeout(PATIENCE, self.run(image)).await.map_err(|_| PluginError::Late)??;
        let answer: Answer = serde_json::from_slice(&answer).map_err(|_| PluginError::Answer)?;
        let is_known = matches!(&*answer.cache_key_type, "Image" | "Registry" | "Global");
        if answer.kind != "CredentialProviderResponse" || answer.api_version != VERSION || !is_known {
            return Err(PluginError::Answer);
        }
        Ok(answer)
    }

    async fn run(&self, image: &str) -> Result<Vec<u8>, PluginError> {
        let request = Request { api_version: VERSION, kind: "CredentialProviderRequest", image };
        let request = serde_json::to_vec(&request).map_err(io::Error::from)?;
        let mut command = Command::new(&self.program);
        command.args(&self.args).envs(self.env.iter().cloned()).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let write = async {
            if let Some(mut input) = input {
                // One that does not read its question may know the answer all the same.
                let _ = input.write_all(&request).await;
            }
        };
        let mut answer = Vec::new();
        let read = async {
            match output {
                Some(output) => output.take(ANSWER_LIMIT).read_to_end(&mut answer).await,
                None => Ok(0),
            }
        };
        let ((), read) = tokio::join!(write, read);
        read?;
        match child.wait().await? {
            status if status.success() => Ok(answer),
            status => Err(PluginError::Failed(status)),
        }
    }
}

/// A duration as Kubernetes writes it, such as `12h0m0s`.
fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    Duration::try_from(text.parse::<jiff::SignedDuration>().ok()?).ok()
}

#[cfg(test)]
#[path = "plugin_tests.rs"]
mod tests;
