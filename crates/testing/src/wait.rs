//! Waiting for objects of the API, by watching them, never longer than the caller allows.

use std::fmt::Debug;
use std::time::Duration;

use anyhow::bail;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::watch_object;
use kube::{Api, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Waits until the object is there and is as expected, and returns it. Survives an API server that is away.
///
/// # Errors
/// It was not so within `limit`: the error shows the object as it was last seen.
pub async fn object<K>(
    api: Api<K>,
    name: &str,
    limit: Duration,
    expected: impl Fn(&K) -> bool,
) -> anyhow::Result<K>
where
    K: Resource + Clone + Debug + Serialize + DeserializeOwned + Send + 'static,
{
    let found = seen(api, name, limit, |object| object.is_some_and(&expected)).await?;
    found.ok_or_else(|| anyhow::anyhow!("{name} is not there"))
}

/// [`object`] for a pod.
///
/// # Errors
/// As [`object`].
pub async fn pod(
    client: &kube::Client,
    namespace: &str,
    name: &str,
    limit: Duration,
    expected: impl Fn(&Pod) -> bool,
) -> anyhow::Result<Pod> {
    object(Api::namespaced(client.clone(), namespace), name, limit, expected).await
}

/// Waits until there is no object of that name.
///
/// # Errors
/// It was still there after `limit`: the error shows it.
pub async fn gone<K>(api: Api<K>, name: &str, limit: Duration) -> anyhow::Result<()>
where
    K: Resource + Clone + Debug + Serialize + DeserializeOwned + Send + 'static,
{
    seen(api, name, limit, |object| object.is_none()).await.map(drop)
}

async fn seen<K>(
    api: Api<K>,
    name: &str,
    limit: Duration,
    expected: impl Fn(Option<&K>) -> bool,
) -> anyhow::Result<Option<K>>
where
    K: Resource + Clone + Debug + Serialize + DeserializeOwned + Send + 'static,
{
    // On the heap: callers await this within futures of their own.
    let mut watch = Box::pin(watch_object(api, name).default_backoff());
    let mut last = "nothing was seen of it".to_owned();
    let watching = async {
        while let Some(item) = watch.next().await {
            match item {
                Ok(object) if expected(object.as_ref()) => return Some(object),
                Ok(object) => last = shown(object.as_ref()),
                Err(error) => last = format!("the watch failed: {error}"),
            }
        }
        None
    };
    let outcome = tokio::time::timeout(limit, watching).await;
    match outcome {
        Ok(Some(object)) => Ok(object),
        Ok(None) => bail!("the watch of {name} ended; last seen: {last}"),
        Err(_) => bail!("{name} was not as expected within {limit:?}; last seen: {last}"),
    }
}

fn shown<K: Serialize>(object: Option<&K>) -> String {
    object.map_or_else(
        || "no such object".to_owned(),
        |object| serde_json::to_string_pretty(object).unwrap_or_else(|error| error.to_string()),
    )
}
