use k8s_openapi::api::core::v1::{Container, Pod};
use thiserror::Error;

use crate::{LocalImage, PodIdentity, Wish};

/// Why a container that must not run as root would. The messages are the kubelet's.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RootUser {
    /// The pod says that it is root.
    #[error("container's runAsUser breaks non-root policy (pod: {0:?}, container: {1})")]
    Wished(String, String),
    /// The image is made for root.
    #[error("container has runAsNonRoot and image will run as root (pod: {0:?}, container: {1})")]
    OfImage(String, String),
    /// The image names a user of whom nobody knows a number.
    #[error(
        "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root (pod: {pod:?}, container: {container})"
    )]
    Unknown {
        /// The user.
        user: String,
        /// The pod.
        pod: String,
        /// The container.
        container: String,
    },
}

/// Holds a container to `runAsNonRoot`, as the kubelet does. A bare artifact knows no users, so it is nobody's.
///
/// # Errors
/// When it would be root, or nobody can tell.
pub fn ensure_non_root(pod: &Pod, container: &Container, image: &LocalImage) -> Result<(), RootUser> {
    let of_pod = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let own = container.security_context.as_ref();
    let must_not = own
        .and_then(|own| own.run_as_non_root)
        .or_else(|| of_pod.and_then(|of_pod| of_pod.run_as_non_root))
        .unwrap_or(false);
    let wished = own.and_then(|own| own.run_as_user).or_else(|| of_pod.and_then(|of_pod| of_pod.run_as_user));
    let names = || (written(&pod.identity()), container.name.clone());
    let wrong = |error: fn(String, String) -> RootUser| {
        let (pod, container) = names();
        Err(error(pod, container))
    };
    match (must_not, wished, image.files()) {
        (true, Some(0), _) => wrong(RootUser::Wished),
        (false, ..) | (true, None, None) | (true, Some(_), _) => Ok(()),
        (true, None, Some(files)) => match number(files.config.user.as_deref()) {
            Ok(0) => wrong(RootUser::OfImage),
            Ok(_) => Ok(()),
            Err(user) => {
                let ((pod, container), user) = (names(), user.to_owned());
                Err(RootUser::Unknown { user, pod, container })
            }
        },
    }
}

/// The number in an image's `USER`, which may name a group too; root where it is not given.
fn number(user: Option<&str>) -> Result<u64, &str> {
    let name = user.unwrap_or_default().split(':').next().unwrap_or_default();
    if name.is_empty() { Ok(0) } else { name.parse().map_err(|_| name) }
}

/// A pod as the kubelet's messages write it.
fn written(pod: &PodIdentity) -> String {
    format!("{}_{}({})", pod.name, pod.namespace, pod.uid)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn digest() -> String {
        format!("sha256:{}", "0".repeat(64))
    }

    fn artifact() -> Value {
        json!({"Program": {"digest": digest(), "path": "/m", "name": "m"}})
    }

    fn files(user: Option<&str>) -> Value {
        let config =
            json!({"entrypoint": [], "command": [], "env": [], "working_directory": null, "user": user});
        json!({"Files": {"chain": digest(), "directory": "/f", "config": config}})
    }

    fn judged(pod: &Value, container: &Value, content: &Value) -> Result<(), String> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"securityContext": pod, "containers": [{"name": "c", "securityContext": container}]},
        }))
        .unwrap();
        let image =
            json!({"digest": digest(), "reference": "r", "repo_digest": "r", "content": content, "size": 1});
        let image = serde_json::from_value(image).unwrap();
        ensure_non_root(&pod, &pod.container("c").unwrap(), &image).map_err(|error| error.to_string())
    }

    #[test]
    fn who_need_not_be_anybody_may_be_root() {
        assert_eq!(judged(&json!({}), &json!({"runAsUser": 0}), &files(None)), Ok(()));
        let opted_out = judged(&json!({"runAsNonRoot": true}), &json!({"runAsNonRoot": false}), &files(None));
        assert_eq!(opted_out, Ok(()));
    }

    #[test]
    fn the_pods_own_user_comes_before_the_images() {
        let must_not = json!({"runAsNonRoot": true, "runAsUser": 5});
        assert_eq!(judged(&must_not, &json!({}), &files(Some("root"))), Ok(()));
        let expected = "container's runAsUser breaks non-root policy (pod: \"p_n(u)\", container: c)";
        assert_eq!(judged(&must_not, &json!({"runAsUser": 0}), &artifact()), Err(expected.to_owned()));
    }

    #[test]
    fn an_images_user_is_judged_by_its_number() {
        let judged = |content: &Value| judged(&json!({}), &json!({"runAsNonRoot": true}), content);
        for content in [artifact(), files(Some("7")), files(Some("7:0"))] {
            assert_eq!(judged(&content), Ok(()), "{content}");
        }
        let root = "container has runAsNonRoot and image will run as root (pod: \"p_n(u)\", container: c)";
        for user in [None, Some(""), Some("0"), Some("0:5")] {
            assert_eq!(judged(&files(user)), Err(root.to_owned()), "{user:?}");
        }
        let unknown = "container has runAsNonRoot and image has non-numeric user (web), cannot verify user is non-root (pod: \"p_n(u)\", container: c)";
        assert_eq!(judged(&files(Some("web:web"))), Err(unknown.to_owned()));
    }
}
