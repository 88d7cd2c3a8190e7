//! Does of a node only what [`coracle_testing::Node`] waits for: its Node object becomes Ready, its port is open, and
//! SIGTERM ends it. With the flag `--fail` it ends at once.

use std::collections::HashMap;

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let flags: HashMap<String, String> = std::env::args()
        .filter_map(|argument| {
            argument.split_once('=').map(|(flag, value)| (flag.to_owned(), value.to_owned()))
        })
        .collect();
    let flag = |name: &str| flags.get(name).cloned().with_context(|| format!("{name} is missing"));
    if std::env::args().any(|argument| argument == "--fail") {
        bail!("it was told to fail");
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let port: u16 = flag("--port")?.parse()?;
    let _listener = TcpListener::bind(("127.0.0.1", port)).await?;
    register(&flag("--kubeconfig")?, &flag("--hostname-override")?).await?;
    terminate.recv().await;
    Ok(())
}

/// Not Ready first, Ready last, as a node does it.
async fn register(kubeconfig: &str, name: &str) -> anyhow::Result<()> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    let nodes = Api::<Node>::all(Client::try_from(config)?);
    let params = PatchParams::apply("stand-in").force();
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
    nodes.patch(name, &params, &Patch::Apply(node)).await?;
    for status in ["False", "True"] {
        let condition = json!({
            "type": "Ready", "status": status, "reason": "StandIn", "message": "",
            "lastHeartbeatTime": "2000-01-01T00:00:00Z",
        });
        let status = json!({"apiVersion": "v1", "kind": "Node", "status": {"conditions": [condition]}});
        nodes.patch_status(name, &params, &Patch::Apply(status)).await?;
    }
    Ok(())
}
