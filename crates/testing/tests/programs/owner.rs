//! Owns a cluster and a registry, says which processes and folders they are made of, and waits to be killed.
//! A test kills it with SIGKILL and looks whether all of that is gone.

use coracle_testing::{Cluster, Registry};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let registry = Registry::start().await?;
    for id in cluster.process_ids().into_iter().chain([registry.process_id()]) {
        println!("process {id}");
    }
    println!("folder {}", cluster.folder().display());
    println!("folder {}", registry.folder().display());
    println!("complete");
    std::future::pending().await
}
