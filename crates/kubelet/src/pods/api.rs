use std::sync::Arc;

use coracle_lifecycle::PodIdentity;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod, PodStatus, Secret, ServiceAccount};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Client, Error};
use tokio::sync::Semaphore;

use super::patch;
use super::publish::Acknowledgement;

/// kube's client speaks HTTP/1.1: this many calls in flight are this many connections.
const CALLS_IN_FLIGHT: usize = 16;

/// The calls that the pods of a node make to the API server, as the node's own identity.
#[derive(Clone)]
pub(crate) struct PodApi {
    client: Client,
    calls: Arc<Semaphore>,
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// The API server accepted it.
    Done,
    /// The object is gone, or another one has its name now.
    Gone,
}

impl PodApi {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, calls: Arc::new(Semaphore::new(CALLS_IN_FLIGHT)) }
    }

    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// Writes a pod's status; `latest` is asked when the call's turn has come, so that only the newest is written.
    pub(super) async fn write_status(
        &self,
        pod: &PodIdentity,
        latest: impl FnOnce() -> Arc<PodStatus> + Send,
    ) -> Result<Acknowledgement, Error> {
        let _permit = self.calls.acquire().await;
        let status = latest();
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace);
        let patch = Patch::Strategic(patch::status(&pod.uid, &status));
        let answer = pods.patch_status(&pod.name, &PatchParams::default(), &patch).await;
        let (answer, version) = match answer {
            Ok(pod) => (Ok(()), pod.metadata.resource_version.and_then(|version| version.parse().ok())),
            Err(error) => (Err(error), None),
        };
        Ok(Acknowledgement { written: self.written(pod, answer).await?, status, version })
    }

    /// Deletes the object for good: grace 0, and only if it is still the same one.
    pub(crate) async fn delete(&self, pod: &PodIdentity) -> Result<Written, Error> {
        let _permit = self.calls.acquire().await;
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace);
        let preconditions = Preconditions { uid: Some(pod.uid.to_string()), resource_version: None };
        let parameters = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(preconditions),
            ..DeleteParams::default()
        };
        let answer = pods.delete(&pod.name, &parameters).await;
        self.written(pod, answer.map(drop)).await
    }

    /// A conflict can mean that a pod was re-created under this name: only its UID tells.
    async fn written(&self, pod: &PodIdentity, answer: Result<(), Error>) -> Result<Written, Error> {
        match answer {
            Ok(()) => Ok(Written::Done),
            Err(Error::Api(status)) if status.code == 404 => Ok(Written::Gone),
            Err(Error::Api(status)) if status.code == 409 => {
                let pods: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace);
                let now = pods.get_metadata_opt(&pod.name).await?;
                let is_same = now.is_some_and(|now| now.metadata.uid.as_deref() == Some(pod.uid.as_str()));
                if is_same { Err(Error::Api(status)) } else { Ok(Written::Gone) }
            }
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Secret>, Error> {
        let _permit = self.calls.acquire().await;
        Api::namespaced(self.client.clone(), namespace).get_opt(name).await
    }

    pub(crate) async fn config_map(&self, namespace: &str, name: &str) -> Result<Option<ConfigMap>, Error> {
        let _permit = self.calls.acquire().await;
        Api::namespaced(self.client.clone(), namespace).get_opt(name).await
    }

    /// A token of the pod's service account that dies with the pod.
    pub(crate) async fn token(
        &self,
        pod: &PodIdentity,
        account: &str,
        audience: Option<&str>,
        seconds: Option<i64>,
    ) -> Result<String, Error> {
        let _permit = self.calls.acquire().await;
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &pod.namespace);
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: audience.map(|audience| vec![audience.to_owned()]),
                expiration_seconds: seconds,
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Pod".to_owned()),
                    name: Some(pod.name.clone()),
                    uid: Some(pod.uid.to_string()),
                }),
            }),
            ..TokenRequest::default()
        };
        let answer = accounts.create_token_request(account, &PostParams::default(), &request).await?;
        Ok(answer.status.and_then(|status| status.token).unwrap_or_default())
    }

    pub(crate) async fn create_event(&self, event: &Event) -> Result<(), Error> {
        let _permit = self.calls.acquire().await;
        let namespace = event.metadata.namespace.as_deref().unwrap_or_default();
        Api::namespaced(self.client.clone(), namespace).create(&PostParams::default(), event).await.map(drop)
    }

    pub(crate) async fn patch_event(&self, event: &Event) -> Result<(), Error> {
        let _permit = self.calls.acquire().await;
        let namespace = event.metadata.namespace.as_deref().unwrap_or_default();
        let name = event.metadata.name.as_deref().unwrap_or_default();
        let change = serde_json::json!({ "count": event.count, "lastTimestamp": event.last_timestamp });
        let events: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        events.patch(name, &PatchParams::default(), &Patch::Strategic(change)).await.map(drop)
    }
}
