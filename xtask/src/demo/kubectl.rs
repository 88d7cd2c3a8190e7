//! Showing what `kubectl` says.

use anyhow::ensure;
use coracle_testing::Cluster;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

/// The label that every pod of a demo carries.
const LABEL: &str = "coracle.dev/demo";

/// Prints a `kubectl` command and its output; fails when the command does.
pub(super) async fn show(cluster: &Cluster, arguments: &[&str]) -> anyhow::Result<String> {
    let line = format!("kubectl {}", arguments.join(" "));
    println!("\n$ {line}");
    let output = cluster.kubectl(arguments).await?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    print!("{said}{}", String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "`{line}` ended with {}", output.status);
    Ok(said)
}

/// Prints the last lines of every demo pod's log; each must have said something.
pub(super) async fn show_logs(cluster: &Cluster, client: &Client) -> anyhow::Result<()> {
    let pods =
        Api::<Pod>::default_namespaced(client.clone()).list(&ListParams::default().labels(LABEL)).await?;
    ensure!(!pods.items.is_empty(), "no pod carries the label {LABEL}");
    for pod in pods {
        let said = show(cluster, &["logs", &pod.name_any(), "--tail=5"]).await?;
        ensure!(!said.trim().is_empty(), "pod {} has logged nothing", pod.name_any());
    }
    Ok(())
}
