//! `cargo xtask demo`: Coracle's main job, seen with `kubectl`.

use std::future::Future;
use std::pin::pin;

use anyhow::{Context, bail};
use coracle_testing::Cluster;
use tokio::signal::unix::{SignalKind, signal};

use crate::prerequisites;
use crate::progress::{say, wait};
use crate::stage::{Built, Stage};

mod answers;
mod delay;
mod expectation;
mod kubectl;
mod manifests;

use delay::explained;
use expectation::Expectation;
use manifests::Manifests;

/// The node's name in the demo.
const NODE: &str = "coracle-demo";

/// Runs the demo; with `once`, ends after showing.
pub(crate) fn run(once: bool) -> anyhow::Result<()> {
    prerequisites::for_demo()?;
    let built = Built::all()?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(play(&built, once))
}

async fn play(built: &Built, once: bool) -> anyhow::Result<()> {
    let mut interrupted = pin!(interruption()?);
    let manifests = Manifests::read(&built.guests)?;
    let images = manifests.images();
    let stage = tokio::select! {
        stage = Stage::start(built, Cluster::builder(), NODE, &images) => stage?,
        () = &mut interrupted => bail!("interrupted"),
    };
    let shown = tokio::select! {
        shown = show(&stage, &manifests) => shown,
        () = &mut interrupted => Err(anyhow::anyhow!("interrupted")),
    };
    if shown.is_ok() && !once {
        invite(&stage);
        interrupted.await;
    }
    let log = stage.node.log().unwrap_or_default();
    let closed = stage.close().await;
    shown.with_context(|| format!("the node's log:\n{log}"))?;
    closed
}

/// Applies the demos, waits for what each promises, and shows it as a user sees it.
async fn show(stage: &Stage, manifests: &Manifests) -> anyhow::Result<()> {
    let client = stage.cluster.admin().await?;
    let applied = wait("applying demos/*/manifest.yaml", manifests.apply(stage)).await?;
    for object in applied {
        let Some(expectation) = Expectation::of(&client, &object).await? else { continue };
        wait(&expectation.to_string(), explained(&client, expectation.met(&client))).await?;
    }
    for arguments in [
        &["get", "nodes", "-o", "wide"][..],
        &["get", "pods", "-o", "wide"],
        &["get", "jobs"],
        &["get", "deployments"],
    ] {
        kubectl::show(&stage.cluster, arguments).await?;
    }
    answers::show(&client).await?;
    kubectl::show_logs(&stage.cluster, &client).await
}

fn invite(stage: &Stage) {
    let kubectl = stage.cluster.kubectl_path();
    say("\nEverything is up. In another terminal:\n");
    println!("export KUBECONFIG={}", stage.cluster.kubeconfig_path().display());
    if let Some(folder) = kubectl.parent() {
        println!("export PATH={}:$PATH", folder.display());
    }
    say("kubectl get pods -o wide\n\nCtrl-C takes everything down.");
}

/// Ends with the first SIGINT or SIGTERM from now on.
fn interruption() -> anyhow::Result<impl Future<Output = ()>> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        say("\ntaking everything down");
    })
}
