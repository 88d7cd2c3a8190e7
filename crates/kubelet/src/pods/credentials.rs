use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use coracle_lifecycle::{Credential, Wish};
use k8s_openapi::api::core::v1::{Pod, Secret};
use serde::Deserialize;

use super::Context;

/// What a pod's pull secrets say, and the names of those that could not be read.
#[derive(Debug, Default)]
pub(super) struct PullSecrets {
    pub(super) credentials: Vec<Credential>,
    pub(super) missing: Vec<String>,
}

/// Reads a pod's `imagePullSecrets`.
pub(super) async fn pull_secrets(context: &Context, pod: &Pod) -> PullSecrets {
    let mut secrets = PullSecrets::default();
    let references = pod.spec.iter().flat_map(|spec| spec.image_pull_secrets.iter().flatten());
    for reference in references {
        let name = &reference.name;
        let secret = context.api.secret(&pod.identity().namespace, name).await;
        match secret.ok().flatten().and_then(|secret| credentials(&secret)) {
            Some(found) => secrets.credentials.extend(found),
            None => secrets.missing.push(name.clone()),
        }
    }
    secrets
}

#[derive(Deserialize)]
struct DockerConfig {
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
fn credentials(secret: &Secret) -> Option<Vec<Credential>> {
    let data = secret.data.as_ref()?;
    let entries = match (data.get(".dockerconfigjson"), data.get(".dockercfg")) {
        (Some(config), _) => serde_json::from_slice::<DockerConfig>(&config.0).ok()?.auths,
        (None, Some(config)) => serde_json::from_slice(&config.0).ok()?,
        (None, None) => return None,
    };
    Some(entries.into_iter().filter_map(|(registry, entry)| entry.into_credential(registry)).collect())
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

    #[test]
    fn both_forms_of_docker_configuration_are_read() {
        let expected =
            vec![Credential { registry: "r:5000".into(), username: "u".into(), password: "p:w".into() }];
        let check = |secret: Secret| assert_eq!(credentials(&secret), Some(expected.clone()));
        check(secret(".dockerconfigjson", r#"{"auths":{"r:5000":{"username":"u","password":"p:w"}}}"#));
        check(secret(".dockerconfigjson", r#"{"auths":{"r:5000":{"auth":"dTpwOnc="}}}"#));
        check(secret(".dockercfg", r#"{"r:5000":{"auth":"dTpwOnc=","email":"x"}}"#));
    }

    #[test]
    fn a_secret_of_another_kind_counts_as_missing() {
        assert_eq!(credentials(&secret("password", "x")), None);
        assert_eq!(credentials(&secret(".dockerconfigjson", "{")), None);
        assert_eq!(credentials(&Secret::default()), None);
    }
}
