use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use coracle_lifecycle::PodIdentity;
use coracle_lifecycle::projection::PodCertificate;
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, PodCertificateProjection, ServiceAccount};
use kube::api::{ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use kube::runtime::watcher::{Config, Event};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::watch;
use tracing::debug;

use super::key::{Key, Keys};
use super::{CertificateError, Issued, Term};
use crate::events::Recorder;
use crate::pods::{CallError, PodApi, PodDirectory};
use crate::watching;

const GROUP: &str = "certificates.k8s.io";
const KIND: &str = "PodCertificateRequest";
const PLURAL: &str = "podcertificaterequests";
/// The versions of the API that take a request of PKCS #10, the newest first.
const VERSIONS: [&str; 2] = ["v1", "v1beta1"];

/// What a certificate is requested with, each time anew.
pub(in crate::pods) struct Request {
    pub(in crate::pods) api: PodApi,
    pub(in crate::pods) pod: PodIdentity,
    pub(in crate::pods) account: String,
    pub(in crate::pods) node: watch::Receiver<Option<Arc<Node>>>,
    pub(in crate::pods) wanted: PodCertificateProjection,
    /// For what people are told of the pod.
    pub(in crate::pods) directory: PodDirectory,
    pub(in crate::pods) recorder: Recorder,
}

/// A request that the API server has, and the key it is for.
pub(super) struct Asked {
    objects: Api<DynamicObject>,
    node: String,
    name: String,
    key: Key,
}

impl Request {
    /// Makes a key and a request for it.
    pub(super) async fn ask(&self, keys: &Keys) -> Result<Asked, CertificateError> {
        let key = keys.make(&self.wanted.key_type).await?;
        let resource = self.resource().await?;
        let node = self.node.clone().wait_for(Option::is_some).await.ok().and_then(|node| node.clone());
        let node = node.ok_or(CertificateError::Stopping)?;
        let account: Option<ServiceAccount> =
            self.api.get(&self.pod.namespace, &self.account).await.map_err(|error| self.failed(error))?;
        let account = account.ok_or_else(|| CertificateError::NoAccount(self.account.clone()))?;
        let objects: Api<DynamicObject> =
            Api::namespaced_with(self.api.client(), &self.pod.namespace, &resource);
        let object = self.object(&resource, &node, &account, &key.request()?);
        let created = self.api.create(&objects, &object).await.map_err(|error| self.failed(error))?;
        Ok(Asked { objects, node: node.name_any(), name: created.name_any(), key })
    }

    async fn resource(&self) -> Result<ApiResource, CertificateError> {
        let versions = VERSIONS.map(|version| GroupVersionKind::gvk(GROUP, version, KIND));
        let served = self.api.served(&versions, PLURAL).await.map_err(|error| self.failed(error))?;
        served.ok_or(CertificateError::NotServed)
    }

    fn object(
        &self,
        resource: &ApiResource,
        node: &Node,
        account: &ServiceAccount,
        request: &[u8],
    ) -> DynamicObject {
        let (pod, wanted) = (&self.pod, &self.wanted);
        let owner = json!({ "apiVersion": "v1", "kind": "Pod", "name": pod.name, "uid": pod.uid.as_str() });
        let owner = serde_json::from_value(owner).into_iter().collect();
        let spec = json!({
            "signerName": wanted.signer_name,
            "podName": pod.name,
            "podUID": pod.uid.as_str(),
            "serviceAccountName": self.account,
            "serviceAccountUID": account.metadata.uid,
            "nodeName": node.metadata.name,
            "nodeUID": node.metadata.uid,
            "maxExpirationSeconds": wanted.max_expiration_seconds,
            "stubPKCS10Request": STANDARD.encode(request),
            "unverifiedUserAnnotations": wanted.user_annotations,
        });
        let mut object =
            DynamicObject::new("", resource).within(&pod.namespace).data(json!({ "spec": spec }));
        object.metadata.name = None;
        object.metadata.generate_name = Some("req-".to_owned());
        object.metadata.owner_references = Some(owner);
        object
    }

    fn failed(&self, source: CallError) -> CertificateError {
        CertificateError::Call { signer: self.wanted.signer_name.clone(), source }
    }
}

impl Asked {
    /// Waits until the signer has issued a certificate.
    ///
    /// # Errors
    /// When it was denied, failed, or was deleted before.
    pub(super) async fn outcome(self) -> Result<Issued, CertificateError> {
        // The node authorizer lets a node watch only requests that are its own.
        let own = format!("spec.nodeName={},metadata.name={}", self.node, self.name);
        let mut events = Box::pin(watching::follow(self.objects.clone(), Config::default().fields(&own)));
        let mut is_there = false;
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => is_there = false,
                Ok(Event::InitApply(object) | Event::Apply(object)) => {
                    is_there = true;
                    if let Some(outcome) = self.judge(&object.data["status"]) {
                        return outcome;
                    }
                }
                Ok(Event::InitDone) if is_there => is_there = false,
                Ok(Event::InitDone | Event::Delete(_)) => return Err(CertificateError::Deleted(self.name)),
                Err(error) => debug!(%error, "the watch of a certificate request was interrupted"),
            }
        }
        Err(CertificateError::Stopping)
    }

    /// What a status says; nothing while the signer is still at it.
    fn judge(&self, status: &Value) -> Option<Result<Issued, CertificateError>> {
        let name = || self.name.clone();
        status["conditions"].as_array()?.iter().find_map(|condition| {
            let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
            let (reason, message) = (text("reason"), text("message"));
            match condition["type"].as_str()? {
                "Issued" => self.issued(status),
                "Denied" => Some(Err(CertificateError::Denied { name: name(), reason, message })),
                "Failed" => Some(Err(CertificateError::Failed { name: name(), reason, message })),
                _ => None,
            }
        })
    }

    fn issued(&self, status: &Value) -> Option<Result<Issued, CertificateError>> {
        let chain = status["certificateChain"].as_str()?;
        let time = |field: &str| status[field].as_str()?.parse::<Timestamp>().ok();
        let term = Term { refresh_at: time("beginRefreshAt")?, expires_at: time("notAfter") };
        let issued = |key| Issued { certificate: PodCertificate::new(key, chain), term };
        Some(self.key.pem().map(issued))
    }
}
