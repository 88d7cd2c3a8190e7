use coracle_lifecycle::{Credential, Wish};
use k8s_openapi::api::core::v1::Pod;

use super::Context;
use crate::credentials::credentials_of_secret;

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
        match secret.ok().flatten().and_then(|secret| credentials_of_secret(&secret)) {
            Some(found) => secrets.credentials.extend(found),
            None => secrets.missing.push(name.clone()),
        }
    }
    secrets
}
