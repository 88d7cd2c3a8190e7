use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use coracle_lifecycle::Credential;
use k8s_openapi::api::core::v1::Secret;
use serde::Deserialize;

/// The longest docker configuration.
const FILE_LIMIT: u64 = 4 * 1024 * 1024;

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, DockerCredential>,
}

#[derive(Deserialize)]
struct DockerCredential {
    username: Option<String>,
    password: Option<String>,
    auth: Option<String>,
}

/// The credentials in a secret of type `kubernetes.io/dockerconfigjson` or `kubernetes.io/dockercfg`; `None` when it
/// holds neither.
pub(crate) fn credentials_of_secret(secret: &Secret) -> Option<Vec<Credential>> {
    let data = secret.data.as_ref()?;
    let entries = match (data.get(".dockerconfigjson"), data.get(".dockercfg")) {
        (Some(config), _) => serde_json::from_slice::<DockerConfig>(&config.0).ok()?.auths,
        (None, Some(config)) => serde_json::from_slice(&config.0).ok()?,
        (None, None) => return None,
    };
    Some(listed(entries))
}

/// The credentials in the first of these docker configurations that is there. One that is none is told in the log.
pub(super) fn credentials_of_files(files: &[PathBuf]) -> Vec<Credential> {
    for path in files {
        match read(path) {
            Ok(credentials) => return credentials,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(path = %path.display(), %error, "no docker configuration"),
        }
    }
    Vec::new()
}

fn read(path: &Path) -> io::Result<Vec<Credential>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_LIMIT).read_to_end(&mut bytes)?;
    // The parser's error could repeat a part of a secret.
    let config = serde_json::from_slice::<DockerConfig>(&bytes);
    let config = config.map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        io::Error::new(io::ErrorKind::InvalidData, format!("it is malformed at {place}"))
    })?;
    Ok(listed(config.auths))
}

fn listed(entries: BTreeMap<String, DockerCredential>) -> Vec<Credential> {
    entries.into_iter().filter_map(|(registry, entry)| entry.into_credential(registry)).collect()
}

impl DockerCredential {
    fn into_credential(self, registry: String) -> Option<Credential> {
        let plain = self.username.zip(self.password);
        let (username, password) = plain.or_else(|| decoded(&self.auth?))?;
        Some(Credential { registry, username, password })
    }
}

/// The user name and password in base64 of `username:password`.
fn decoded(auth: &str) -> Option<(String, String)> {
    let text = String::from_utf8(STANDARD.decode(auth).ok()?).ok()?;
    let (username, password) = text.split_once(':')?;
    Some((username.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    fn secret(key: &str, text: &str) -> Secret {
        let data = BTreeMap::from([(key.to_owned(), ByteString(text.as_bytes().to_vec()))]);
        Secret { data: Some(data), ..Secret::default() }
    }

    fn expected() -> Vec<Credential> {
        vec![Credential { registry: "r:5000".into(), username: "u".into(), password: "p:w".into() }]
    }

    #[test]
    fn both_forms_of_docker_configuration_are_read() {
        let check = |secret: Secret| assert_eq!(credentials_of_secret(&secret), Some(expected()));
        check(secret(".dockerconfigjson", r#"{"auths":{"r:5000":{"username":"u","password":"p:w"}}}"#));
        check(secret(".dockerconfigjson", r#"{"auths":{"r:5000":{"auth":"dTpwOnc="}}}"#));
        check(secret(".dockercfg", r#"{"r:5000":{"auth":"dTpwOnc=","email":"x"}}"#));
    }

    #[test]
    fn a_secret_of_another_kind_counts_as_missing() {
        assert_eq!(credentials_of_secret(&secret("password", "x")), None);
        assert_eq!(credentials_of_secret(&secret(".dockerconfigjson", "{")), None);
        assert_eq!(credentials_of_secret(&Secret::default()), None);
    }

    #[test]
    fn the_first_file_that_is_there_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let files = ["missing", "broken", "good"].map(|name| folder.path().join(name));
        assert_eq!(credentials_of_files(&files), []);
        std::fs::write(&files[1], r#"{"auths":{"r:5000":"secret"#).unwrap();
        std::fs::write(&files[2], r#"{"auths":{"r:5000":{"auth":"dTpwOnc="}},"credsStore":"x"}"#).unwrap();
        assert_eq!(credentials_of_files(&files), expected());
        let error = read(&files[1]).unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }
}
