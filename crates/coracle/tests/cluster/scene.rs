//! A node and a namespace of a test's own.

use std::process::Output;
use std::time::Duration;

use anyhow::{Context, ensure};
use coracle_testing::{Cluster, Node, NodeOptions, wait};
use k8s_openapi::api::core::v1::{Node as NodeObject, Pod};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{guests, manifests};

/// How long anything may take that should take a moment, on a machine that has other things to do.
pub(crate) const LIMIT: Duration = Duration::from_mins(2);

/// A node that has joined a cluster, and a namespace for what it runs.
pub(crate) struct Scene<'c> {
    pub(crate) cluster: &'c Cluster,
    pub(crate) client: Client,
    pub(crate) namespace: String,
    pub(crate) node: Node,
}

/// The options of a node that may ask the shared registry.
pub(crate) async fn options(name: &str) -> anyhow::Result<NodeOptions> {
    Ok(NodeOptions {
        name: name.to_owned(),
        binary: env!("CARGO_BIN_EXE_coracle").into(),
        insecure_registries: vec![guests::registry().await?.host()],
        ..NodeOptions::default()
    })
}

impl Scene<'static> {
    /// A node of this name in the cluster that all tests share.
    pub(crate) async fn new(node: &str) -> anyhow::Result<Self> {
        Self::with(Cluster::shared().await?, options(node).await?).await
    }
}

impl<'c> Scene<'c> {
    pub(crate) async fn with(cluster: &'c Cluster, options: NodeOptions) -> anyhow::Result<Self> {
        let namespace = cluster.namespace().await?;
        let node = Node::start(cluster, options).await?;
        Ok(Self { cluster, client: cluster.admin().await?, namespace, node })
    }

    /// The namespace's objects of one kind.
    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// This scene's Node object.
    pub(crate) async fn node_object(&self) -> anyhow::Result<NodeObject> {
        Ok(Api::all(self.client.clone()).get(self.node.name()).await?)
    }

    /// Makes an object from its manifest.
    pub(crate) async fn create<K>(&self, manifest: Value) -> anyhow::Result<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::Serialize
            + DeserializeOwned,
    {
        let object: K = serde_json::from_value(manifest)?;
        Ok(self.api().create(&PostParams::default(), &object).await?)
    }

    /// A pod's spec, or a template's, that the scheduler can only put onto this node.
    pub(crate) fn placed(&self, spec: Value) -> Value {
        manifests::placed(self.node.name(), spec)
    }

    /// Makes a pod that the scheduler can only put onto this node.
    pub(crate) async fn run(&self, name: &str, spec: Value) -> anyhow::Result<Pod> {
        self.create(manifests::pod(name, &self.placed(spec))).await
    }

    /// Waits until a pod is as expected.
    pub(crate) async fn pod(&self, name: &str, expected: impl Fn(&Pod) -> bool) -> anyhow::Result<Pod> {
        wait::pod(&self.client, &self.namespace, name, LIMIT, expected).await
    }

    /// Runs a pod and waits until it is as expected.
    pub(crate) async fn run_until(
        &self,
        name: &str,
        spec: Value,
        expected: impl Fn(&Pod) -> bool,
    ) -> anyhow::Result<Pod> {
        self.run(name, spec).await?;
        self.pod(name, expected).await
    }

    /// Asks for a pod's deletion; with a grace period of 0 the object is gone at once.
    pub(crate) async fn delete(&self, name: &str, grace: Option<u32>) -> anyhow::Result<()> {
        let params = DeleteParams { grace_period_seconds: grace, ..DeleteParams::default() };
        self.api::<Pod>().delete(name, &params).await?;
        Ok(())
    }

    /// Waits until there is no pod of this name.
    pub(crate) async fn gone(&self, name: &str) -> anyhow::Result<()> {
        wait::gone(self.api::<Pod>(), name, LIMIT).await
    }

    /// Runs `kubectl` in the namespace.
    pub(crate) async fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        self.cluster.kubectl(&[&["--namespace", &self.namespace], arguments].concat()).await
    }

    /// What `kubectl logs` prints for a pod, with more flags.
    pub(crate) async fn logs(&self, pod: &str, flags: &[&str]) -> anyhow::Result<String> {
        let output = self.kubectl(&[&["logs", pod], flags].concat()).await?;
        ensure!(output.status.success(), "kubectl logs: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).context("a log in UTF-8")
    }

    /// What `kubectl` complains of when it has to fail.
    pub(crate) async fn complaint(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.kubectl(arguments).await?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success(), "kubectl {arguments:?} should fail, and said {said}");
        Ok(said)
    }

    /// The log file of a container's run, on the node's disk.
    pub(crate) fn log_file(&self, pod: &Pod, container: &str, attempt: u32) -> std::path::PathBuf {
        self.pod_logs(pod).join(container).join(format!("{attempt}.log"))
    }

    /// The directory of a pod's logs on the node's disk.
    pub(crate) fn pod_logs(&self, pod: &Pod) -> std::path::PathBuf {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let name = format!("{}_{}_{uid}", self.namespace, pod.name_any());
        self.node.root_directory().join("logs").join(name)
    }

    /// The directory of all else that the node keeps of a pod.
    pub(crate) fn pod_directory(&self, pod: &Pod) -> std::path::PathBuf {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        self.node.root_directory().join("pods").join(uid)
    }
}

/// What the node said is shown with a test that failed, and by no other: the harness keeps the output of tests that pass.
impl Drop for Scene<'_> {
    fn drop(&mut self) {
        let log = self.node.log().unwrap_or_else(|error| error.to_string());
        println!("the log of node {} (namespace {}):\n{log}", self.node.name(), self.namespace);
    }
}
