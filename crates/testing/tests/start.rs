//! How soon a control plane can be used. Alone in its file, so that no other test of this crate takes its cores.

use std::time::{Duration, Instant};

use coracle_testing::Cluster;

#[tokio::test]
async fn a_cluster_is_ready_in_under_ten_seconds() {
    // The first one reads the programs from the disk, however slow that is.
    Cluster::start().await.unwrap().shutdown();
    let started = Instant::now();
    let cluster = Cluster::start().await.unwrap();
    let took = started.elapsed();
    assert!(took < Duration::from_secs(10), "it took {took:?}");
    let folder = cluster.folder().to_owned();
    cluster.shutdown();
    assert!(!folder.exists());
}
