use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use coracle_lifecycle::PodIdentity;
use hyper::header::{ACCEPT, HeaderValue};
use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Event, Node, Pod, PodStatus, Secret, ServiceAccount};
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions,
};
use kube::core::{GroupVersionKind, PartialObjectMeta, Request};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::Value;
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::patch;
use super::publish::{Acknowledgement, version};
use crate::answers::words;

/// kube's client speaks HTTP/1.1: this many calls in flight are this many connections.
const CALLS_IN_FLIGHT: usize = 16;
/// What is asked for where only an object's metadata is of interest.
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
/// How long one call may take. Calls on a dead connection would otherwise keep all others waiting.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why a call failed.
#[derive(Debug, Error)]
pub(crate) enum CallError {
    #[error("no answer from the API server within {PATIENCE:?}")]
    TimedOut,
    #[error("{}", words(.0))]
    Api(#[from] kube::Error),
}

impl CallError {
    /// Whether the object of the call does not exist.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Api(kube::Error::Api(status)) if status.is_not_found())
    }

    /// Whether the API server has answered, and would not answer otherwise if it was asked again.
    pub(crate) fn is_answer(&self) -> bool {
        matches!(self, Self::Api(kube::Error::Api(_)))
    }

    /// Whether the node may not make this call.
    pub(super) fn is_forbidden(&self) -> bool {
        matches!(self, Self::Api(kube::Error::Api(status)) if status.is_forbidden())
    }
}

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

    /// As [`Api::patch_status`], but of the answer only the metadata is asked for: the pod itself comes by the watch.
    async fn patch_status(
        &self,
        pods: &Api<Pod>,
        name: &str,
        patch: &Patch<Value>,
    ) -> kube::Result<PartialObjectMeta<Pod>> {
        let request = Request::new(pods.resource_url());
        let request = request.patch_subresource("status", name, &PatchParams::default(), patch);
        let mut request = request.map_err(kube::Error::BuildRequest)?;
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static(METADATA));
        self.client.request(request).await
    }

    /// The outcome of one call, once its turn has come.
    async fn call<T>(&self, request: impl Future<Output = kube::Result<T>>) -> Result<T, CallError> {
        let _permit = self.calls.acquire().await;
        timeout(PATIENCE, request).await.map_err(|_| CallError::TimedOut)?.map_err(CallError::Api)
    }

    fn pods(&self, pod: &PodIdentity) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &pod.namespace)
    }

    /// Writes a pod's status; `latest` is asked when the call's turn has come, so that only the newest is written.
    pub(super) async fn write_status(
        &self,
        pod: &PodIdentity,
        latest: impl FnOnce() -> Arc<PodStatus> + Send,
    ) -> Result<Acknowledgement, CallError> {
        let pods = self.pods(pod);
        let request = async {
            let status = latest();
            let patch = Patch::Strategic(patch::status(&pod.uid, &status));
            let answer = self.patch_status(&pods, &pod.name, &patch).await;
            let version = answer.as_ref().ok().and_then(|answer| version(&answer.metadata));
            Ok((status, version, answer.map(drop)))
        };
        let (status, version, answer) = self.call(request).await?;
        Ok(Acknowledgement {
            written: self.written(pod, answer.map_err(CallError::Api)).await?,
            status,
            version,
        })
    }

    /// Deletes the object for good: grace 0, and only if it is still the same one.
    pub(crate) async fn delete(&self, pod: &PodIdentity) -> Result<Written, CallError> {
        let preconditions = Preconditions { uid: Some(pod.uid.to_string()), resource_version: None };
        let parameters = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(preconditions),
            ..DeleteParams::default()
        };
        let answer = self.call(self.pods(pod).delete(&pod.name, &parameters)).await;
        self.written(pod, answer.map(drop)).await
    }

    /// A conflict can mean that a pod was re-created under this name: only its UID tells.
    async fn written(&self, pod: &PodIdentity, answer: Result<(), CallError>) -> Result<Written, CallError> {
        match answer {
            Ok(()) => Ok(Written::Done),
            Err(CallError::Api(kube::Error::Api(status))) if status.code == 404 => Ok(Written::Gone),
            Err(CallError::Api(kube::Error::Api(status))) if status.code == 409 => {
                let now = self.call(self.pods(pod).get_metadata_opt(&pod.name)).await?;
                let is_same = now.is_some_and(|now| now.metadata.uid.as_deref() == Some(pod.uid.as_str()));
                if is_same { Err(kube::Error::Api(status).into()) } else { Ok(Written::Gone) }
            }
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Secret>, CallError> {
        self.call(Api::namespaced(self.client.clone(), namespace).get_opt(name)).await
    }

    /// The Node object; `None` when there is none.
    pub(super) async fn node(&self, name: &str) -> Result<Option<Node>, CallError> {
        self.call(Api::all(self.client.clone()).get_opt(name)).await
    }

    /// An object of a namespace; `None` when there is none.
    pub(super) async fn get<K>(&self, namespace: &str, name: &str) -> Result<Option<K>, CallError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        self.call(Api::namespaced(self.client.clone(), namespace).get_opt(name)).await
    }

    /// The names of the kinds in a version of an API group, such as `certificates.k8s.io/v1`; none when it is not served.
    async fn resources(&self, version: &str) -> Result<Vec<String>, CallError> {
        match self.call(self.client.list_api_group_resources(version)).await {
            Ok(list) => Ok(list.resources.into_iter().map(|kind| kind.name).collect()),
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// A kind in the first of some versions of its group that the API server serves; `None` when it serves none of them.
    pub(super) async fn served(
        &self,
        versions: &[GroupVersionKind],
        plural: &str,
    ) -> Result<Option<ApiResource>, CallError> {
        for kind in versions {
            let names = self.resources(&kind.api_version()).await?;
            if names.iter().any(|name| name == plural) {
                return Ok(Some(ApiResource::from_gvk_with_plural(kind, plural)));
            }
        }
        Ok(None)
    }

    /// Makes an object of a kind that not every API server serves, and gives it back as it is there.
    pub(super) async fn create(
        &self,
        objects: &Api<DynamicObject>,
        object: &DynamicObject,
    ) -> Result<DynamicObject, CallError> {
        self.call(objects.create(&PostParams::default(), object)).await
    }

    /// A token of the pod's service account that dies with the pod, and its end; `None` when the answer holds none.
    pub(crate) async fn token(
        &self,
        pod: &PodIdentity,
        account: &str,
        audience: Option<&str>,
        seconds: Option<i64>,
    ) -> Result<Option<(String, Timestamp)>, CallError> {
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
        let parameters = PostParams::default();
        let answer = self.call(accounts.create_token_request(account, &parameters, &request)).await?;
        Ok(answer.status.and_then(|status| Some((status.token?, status.expiration_timestamp?.0))))
    }

    pub(crate) async fn create_event(&self, event: &Event) -> Result<(), CallError> {
        let namespace = event.metadata.namespace.as_deref().unwrap_or_default();
        let events: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        self.call(events.create(&PostParams::default(), event)).await.map(drop)
    }

    /// Says of an Event which was written before how often it has happened now, when last, and with what message.
    pub(crate) async fn count_event(&self, event: &Event) -> Result<(), CallError> {
        let Event { count, last_timestamp, message, .. } = event;
        let change =
            serde_json::json!({ "count": count, "lastTimestamp": last_timestamp, "message": message });
        let (change, metadata) = (Patch::Strategic(change), &event.metadata);
        let (namespace, name) = (metadata.namespace.as_deref(), metadata.name.as_deref());
        let name = name.unwrap_or_default();
        let events: Api<Event> = Api::namespaced(self.client.clone(), namespace.unwrap_or_default());
        self.call(events.patch(name, &PatchParams::default(), &change)).await.map(drop)
    }
}
