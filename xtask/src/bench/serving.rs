//! What a node does for images that are new to it, for those that it has, and for requests.

use std::fs;
use std::path::Path;
use std::time::Duration;

use coracle_testing::{Artifact, Cluster};

use super::load::{self, Template};
use super::{NODE, http};
use crate::cargo;
use crate::progress::{say, wait};
use crate::stage::{Built, Stage, TAG};

/// A program of 70 KB that goes on running.
const NEW_IMAGE: &str = "sleep-rust-p2";
const NEW_IMAGES: u8 = 15;
const KNOWN_IMAGES: usize = 40;

/// What a node does for images that are new to it and for requests.
pub(super) struct Serving {
    new_image: Vec<Duration>,
    /// From the watch's event to the answer to the status by which a pod runs whose image is here, in milliseconds.
    node: Vec<f64>,
    http: Vec<http::Row>,
}

/// Measures all of it on one cluster.
pub(super) async fn measure(built: &Built) -> anyhow::Result<Serving> {
    let images: Vec<_> = http::GUESTS.iter().map(|(_, guest)| (*guest).to_owned()).collect();
    let stage = Stage::start(built, Cluster::builder().fast_limits(), NODE, &images).await?;
    let new_image = wait("pods with an image that is new", new_images(&stage, &built.guests)).await?;
    let node = wait("pods with an image that is here", known_image(&stage)).await?;
    let mut http = Vec::new();
    if http::can_ask() {
        let yardstick = cargo::build_program("coracle-yardstick")?;
        http = wait("HTTP requests", http::measure(&stage, &yardstick)).await?;
    }
    stage.close().await?;
    Ok(Serving { new_image, node, http })
}

/// From creation to Running of one pod after the other, each with a program that the node has never seen.
async fn new_images(stage: &Stage, guests: &Path) -> anyhow::Result<Vec<Duration>> {
    let wasm = fs::read(guests.join(format!("{NEW_IMAGE}.wasm")))?;
    let mut delays = Vec::new();
    for number in 0..NEW_IMAGES {
        let (name, mut other) = (format!("new-{number}"), wasm.clone());
        // A custom section that is called after the number: the same program in other bytes.
        other.extend([0, 2, 1, number]);
        stage.registry.push(&name, TAG, &Artifact::cncf(other)).await?;
        let image = stage.registry.image(&format!("{name}:{TAG}"));
        let template = Template { image, config_maps: None, probed: None };
        delays.push(load::run(&stage.cluster, &template, 1).await?.percentile(50));
    }
    delays.sort_unstable();
    Ok(delays)
}

/// The node's own time for one pod after the other whose image is here.
async fn known_image(stage: &Stage) -> anyhow::Result<Vec<f64>> {
    let template =
        Template { image: stage.registry.image(&format!("new-0:{TAG}")), config_maps: None, probed: None };
    let before = node_times(stage)?.len();
    for _ in 0..KNOWN_IMAGES {
        load::run(&stage.cluster, &template, 1).await?;
    }
    let mut times = node_times(stage)?.split_off(before);
    times.sort_by(f64::total_cmp);
    Ok(times)
}

/// What the node says in its log of each pod's start, in milliseconds.
pub(super) fn node_times(stage: &Stage) -> anyhow::Result<Vec<f64>> {
    let log = stage.node.log()?;
    let lines = log.lines().filter(|line| line.contains("the pod runs"));
    let number = |line: &str| line.split("milliseconds=").nth(1)?.split_whitespace().next()?.parse().ok();
    Ok(lines.filter_map(number).collect())
}

/// The value that so many of a hundred do not exceed.
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    sorted.get((sorted.len() * percent).div_ceil(100).saturating_sub(1)).copied().unwrap_or_default()
}

impl Serving {
    pub(super) fn print(&self) {
        let middle = self.new_image.get(self.new_image.len() / 2).copied().unwrap_or_default();
        say(&format!(
            "\nImage {NEW_IMAGE} new to the node, pulled and compiled: create→Running p50 {} ms of {NEW_IMAGES} pods, one after the other.",
            middle.as_millis()
        ));
        let [p50, p90, p99] = [50, 90, 99].map(|percent| percentile(&self.node, percent));
        say(&format!(
            "Image on the node: from the watch's event to the API server's answer to the status Running, p50 {p50} ms, p90 {p90} ms, p99 \
             {p99} ms of {KNOWN_IMAGES} pods, one after the other."
        ));
        if !self.http.is_empty() {
            http::print(&self.http);
        }
    }
}
