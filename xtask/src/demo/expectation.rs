//! What each object of the demos promises.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, bail};
use coracle_testing::wait;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};

const LIMIT: Duration = Duration::from_mins(2);

/// What an object should come to.
pub(super) enum Expectation {
    /// The Job of this name completes.
    Completes(String),
    /// All replicas of the Deployment of this name become available.
    Available(String),
    /// The pod of this name ends with success.
    Succeeds(String),
    /// The pod of this name runs and is ready.
    Runs(String),
}

impl Expectation {
    /// Of an object as `kubectl` names it (`deployment.apps/NAME`); none of a Service, which only names others. A pod
    /// that is never restarted is one that ends.
    pub(super) async fn of(client: &Client, object: &str) -> anyhow::Result<Option<Self>> {
        let (kind, name) = object.split_once('/').with_context(|| format!("{object} names no object"))?;
        let name = name.to_owned();
        Ok(Some(match kind {
            "job.batch" => Self::Completes(name),
            "deployment.apps" => Self::Available(name),
            "service" => return Ok(None),
            "pod" => {
                let pod = Api::<Pod>::default_namespaced(client.clone()).get(&name).await?;
                let policy = pod.spec.and_then(|spec| spec.restart_policy);
                if policy.as_deref() == Some("Never") { Self::Succeeds(name) } else { Self::Runs(name) }
            }
            _ => bail!("the demo does not know what to expect of {object}"),
        }))
    }

    /// Waits until it is met, at most two minutes.
    pub(super) async fn met(&self, client: &Client) -> anyhow::Result<()> {
        let pods = || Api::<Pod>::default_namespaced(client.clone());
        match self {
            Self::Completes(name) => {
                let jobs = Api::<Job>::default_namespaced(client.clone());
                let job = wait::object(jobs, name, LIMIT, |job| completed(job).is_some()).await?;
                if completed(&job) != Some(true) {
                    bail!("job {name} failed");
                }
            }
            Self::Available(name) => {
                let deployments = Api::<Deployment>::default_namespaced(client.clone());
                wait::object(deployments, name, LIMIT, available).await?;
            }
            Self::Succeeds(name) => {
                let pod =
                    wait::object(pods(), name, LIMIT, |pod| matches!(phase(pod), "Succeeded" | "Failed"));
                if phase(&pod.await?) != "Succeeded" {
                    bail!("pod {name} failed");
                }
            }
            Self::Runs(name) => {
                wait::object(pods(), name, LIMIT, ready).await?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Expectation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Completes(name) => write!(formatter, "waiting until job {name} is complete"),
            Self::Available(name) => write!(formatter, "waiting until deployment {name} is available"),
            Self::Succeeds(name) => write!(formatter, "waiting until pod {name} has succeeded"),
            Self::Runs(name) => write!(formatter, "waiting until pod {name} runs"),
        }
    }
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

fn ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    phase(pod) == "Running"
        && conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Whether it completed or failed; `None` while it runs.
fn completed(job: &Job) -> Option<bool> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let is_true =
        |kind: &str| conditions.iter().any(|condition| condition.type_ == kind && condition.status == "True");
    if is_true("Complete") { Some(true) } else { is_true("Failed").then_some(false) }
}

fn available(deployment: &Deployment) -> bool {
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let available = deployment.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0);
    wanted == available
}
