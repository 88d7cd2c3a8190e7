use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt};
use tokio::sync::watch;
use tokio::time::sleep;

use super::call::{CallError, call, retries};
use super::complaint::Complaint;
use crate::clock;

/// For so long the control plane believes in a node it hears nothing from.
const DURATION_SECONDS: i32 = 40;

/// A quarter of that.
const RENEW_EVERY: Duration = Duration::from_secs(10);

/// So many hundredths of the interval are left to chance, that nodes started together do not renew together.
const JITTER: f64 = 0.04;

/// How often a renewal that others came between is tried at once, as the kubelet does.
const CONFLICTS: usize = 5;

/// Keeps the node's Lease alive.
pub(super) struct LeaseKeeper {
    leases: Api<Lease>,
    name: String,
    node: watch::Receiver<Option<Arc<Node>>>,
    /// As last written; `None` when it must be read first.
    held: Option<Lease>,
}

impl LeaseKeeper {
    pub(super) fn new(client: Client, name: &str, node: watch::Receiver<Option<Arc<Node>>>) -> Self {
        let leases = Api::namespaced(client, "kube-node-lease");
        Self { leases, name: name.to_owned(), node, held: None }
    }

    /// Renews the Lease without end. It rests while there is no Node, and a new Node's is renewed at once.
    pub(super) async fn run(mut self) {
        let mut waits = retries();
        let mut complaint = Complaint::about("renewing the node's lease");
        loop {
            let uid = self.uid().await;
            let wait = match self.renew_over_conflicts(&uid).await {
                Ok(()) => {
                    complaint.worked();
                    waits.reset();
                    RENEW_EVERY.mul_f64(1.0 + JITTER * fastrand::f64())
                }
                Err(error) => {
                    complaint.failed(&error);
                    waits.next()
                }
            };
            tokio::select! {
                () = sleep(wait) => {}
                () = self.replaced(&uid) => {}
            }
        }
    }

    /// The UID of the Node, once there is one.
    async fn uid(&mut self) -> String {
        let uid_of = |node: &Option<Arc<Node>>| node.as_ref().and_then(|node| node.uid()).unwrap_or_default();
        let uid = self.node.wait_for(Option::is_some).await.map(|node| uid_of(&node)).ok();
        match uid {
            Some(uid) => uid,
            None => std::future::pending().await,
        }
    }

    /// Waits until there is another Node of this name.
    async fn replaced(&mut self, uid: &str) {
        let is_other =
            |node: &Option<Arc<Node>>| node.as_ref().is_some_and(|node| node.uid().as_deref() != Some(uid));
        if self.node.wait_for(is_other).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Renews the Lease. Another one came between when it was written, or collected with its Node, since it was read:
    /// then it is read again.
    async fn renew_over_conflicts(&mut self, uid: &str) -> Result<(), CallError> {
        for _ in 1..CONFLICTS {
            match self.renew(uid).await {
                Err(error) if error.is_conflict() => {}
                outcome => return outcome,
            }
        }
        self.renew(uid).await
    }

    async fn renew(&mut self, uid: &str) -> Result<(), CallError> {
        let known = match self.held.take() {
            Some(lease) => Some(lease),
            None => call(self.leases.get_opt(&self.name)).await?,
        };
        let parameters = PostParams::default();
        let exists = known.is_some();
        let lease = renewed(known.unwrap_or_default(), &self.name, uid, clock::now());
        let written = if exists {
            call(self.leases.replace(&self.name, &parameters, &lease)).await?
        } else {
            call(self.leases.create(&parameters, &lease)).await?
        };
        self.held = Some(written);
        Ok(())
    }
}

/// `lease` as it is to be written now, owned by the Node with this UID.
fn renewed(lease: Lease, name: &str, uid: &str, now: Timestamp) -> Lease {
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: name.to_owned(),
        uid: uid.to_owned(),
        ..OwnerReference::default()
    };
    Lease {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            owner_references: Some(vec![owner]),
            ..lease.metadata
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(name.to_owned()),
            lease_duration_seconds: Some(DURATION_SECONDS),
            renew_time: Some(MicroTime(now)),
            ..lease.spec.unwrap_or_default()
        }),
    }
}
