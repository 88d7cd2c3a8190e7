//! What the node and its images take up, in the form of the kubelet's summary
//! (<https://pkg.go.dev/k8s.io/kubelet/pkg/apis/stats/v1alpha1>).

use std::path::PathBuf;
use std::{fmt, io};

use coracle_lifecycle::Wish;
use jiff::Timestamp;
use rustix::fs::{StatVfs, statvfs};
use serde_json::{Value, json};
use thiserror::Error;

use crate::clock::now;
use crate::pods::{PodDirectory, PodView};
use crate::tree;

/// Why there are no figures.
#[derive(Debug, Error)]
pub(super) enum StatsError {
    #[error("the disk cannot be asked: {0}")]
    Disk(#[from] rustix::io::Errno),
    #[error("the images cannot be measured: {0}")]
    Images(#[from] io::Error),
}

/// Where the figures come from.
#[derive(Clone)]
pub struct Stats {
    node: String,
    started: Timestamp,
    root_dir: PathBuf,
    image_directory: PathBuf,
    pods: PodDirectory,
}

impl Stats {
    /// The figures of the node of this name from now on. It keeps everything under `root_dir`, its images in a directory there.
    pub fn new(
        node: impl Into<String>,
        root_dir: impl Into<PathBuf>,
        image_directory: impl Into<PathBuf>,
        pods: PodDirectory,
    ) -> Self {
        let (root_dir, image_directory) = (root_dir.into(), image_directory.into());
        Self { node: node.into(), started: now(), root_dir, image_directory, pods }
    }

    /// What Prometheus is told, in the text format of `OpenMetrics`.
    pub(super) fn metrics(&self) -> Result<String, fmt::Error> {
        self.pods.startups().text()
    }

    /// The figures now. Files of pods and of images lie in one file system. Pods have no figures of CPU time and memory yet.
    pub(super) async fn summary(&self) -> Result<Value, StatsError> {
        let directory = self.image_directory.clone();
        // Layers that images share count once.
        let images = tokio::task::spawn_blocking(move || tree::used(&directory)).await;
        let images = images.map_err(io::Error::other).flatten()?;
        let disk = statvfs(&self.root_dir)?;
        let used = disk.f_blocks.saturating_sub(disk.f_bfree).saturating_mul(disk.f_frsize);
        Ok(json!({
            "node": {
                "nodeName": self.node,
                "startTime": self.started,
                "fs": figures(&disk, used),
                "runtime": {
                    "imageFs": figures(&disk, images),
                    "containerFs": figures(&disk, used),
                },
            },
            "pods": self.pods.list().iter().map(pod).collect::<Vec<_>>(),
        }))
    }
}

fn figures(disk: &StatVfs, used: u64) -> Value {
    json!({
        "time": now(),
        "availableBytes": disk.f_bavail.saturating_mul(disk.f_frsize),
        "capacityBytes": disk.f_blocks.saturating_mul(disk.f_frsize),
        "usedBytes": used,
        "inodes": disk.f_files,
        "inodesFree": disk.f_ffree,
        "inodesUsed": disk.f_files.saturating_sub(disk.f_ffree),
    })
}

fn pod(view: &PodView) -> Value {
    let (identity, status) = (view.pod.identity(), view.status.borrow().clone());
    let containers = status.container_statuses.iter().flatten().filter_map(|container| {
        let running = container.state.as_ref()?.running.as_ref()?;
        Some(json!({"name": container.name, "startTime": running.started_at}))
    });
    json!({
        "podRef": {"name": identity.name, "namespace": identity.namespace, "uid": identity.uid.to_string()},
        "startTime": status.start_time,
        "containers": containers.collect::<Vec<_>>(),
    })
}
