//! `cargo xtask bench`: how fast pods of a sleeping Rust program become Running through the scheduler, and what each
//! costs the agent; how long a pod takes whose image is new to the node; and HTTP through a pod. It says what it measured; it
//! judges nothing.

use anyhow::Context;
use coracle_testing::Cluster;

use crate::prerequisites;
use crate::progress::{say, wait};
use crate::stage::{Built, MANIFEST_REGISTRY, Stage, TAG};

mod agent;
mod http;
pub(crate) mod images;
mod load;
mod probes;
mod serving;
mod volumes;
mod watches;

use agent::Usage;
use load::{Started, Template};

/// The sleeping guest.
const IMAGE: &str = "sleep-rust";
const NODE: &str = "coracle-bench";

/// A node's range must have more addresses than the largest load has pods.
const NODE_CIDR_MASK_SIZE: u8 = 18;

/// What one load came to.
struct Row {
    pods: usize,
    started: Started,
    before: Usage,
    after: Usage,
    /// How many watches of single config maps the API server serves more than before.
    watches: usize,
}

/// Runs one load after the other, each on a cluster of its own, and prints a table.
pub(crate) fn run(loads: &[usize], config_maps: Option<usize>) -> anyhow::Result<()> {
    prerequisites::for_demo()?;
    let built = Built::all()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let rows: Vec<_> = loads
        .iter()
        .map(|&pods| {
            runtime.block_on(measure(&built, pods, config_maps)).with_context(|| format!("{pods} pods"))
        })
        .collect::<Result<_, _>>()?;
    print(&rows);
    match config_maps {
        Some(config_maps) => runtime.block_on(volumes::measure(&built, config_maps))?.print(),
        None => runtime.block_on(serving::measure(&built))?.print(),
    }
    Ok(())
}

/// The middle one; of an even number the greater of the two.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Measures what probes cost while nothing else happens, and prints a table.
pub(crate) fn run_probes(loads: &[usize]) -> anyhow::Result<()> {
    prerequisites::for_demo()?;
    probes::run(&Built::all()?, loads)
}

/// The image is pulled and compiled by one pod before: every figure is that of a warm node.
async fn measure(built: &Built, pods: usize, config_maps: Option<usize>) -> anyhow::Result<Row> {
    let cluster = Cluster::builder().fast_limits().node_cidr_mask_size(NODE_CIDR_MASK_SIZE);
    let stage = Stage::start(built, cluster, NODE, &[IMAGE.to_owned()]).await?;
    let reference = format!("{IMAGE}:{TAG}");
    let template = Template { image: stage.registry.image(&reference), config_maps, probed: None };
    let client = stage.cluster.admin().await?;
    let watches = watches::of_config_maps(&client).await?;
    wait("warming up with one pod", load::run(&stage.cluster, &template, 1)).await?;
    let agent = stage.node.process_id();
    let before = Usage::of(agent)?;
    let what = format!("{pods} pods from {} clients", load::CLIENTS);
    let started = wait(&what, load::run(&stage.cluster, &template, pods)).await;
    let after = Usage::of(agent)?;
    let watches = watches::of_config_maps(&client).await?.saturating_sub(watches);
    let started = started.with_context(|| stage.node.log().unwrap_or_default())?;
    stage.close().await?;
    Ok(Row { pods, started, before, after, watches })
}

fn print(rows: &[Row]) {
    say(&format!(
        "\nCreate→Running as one watcher sees it; image {MANIFEST_REGISTRY}{IMAGE}, pulled and compiled before; \
         CPU and resident memory are the agent's growth divided by the pods; watches are those of single config maps, \
         among them that of the cluster's authority.\n"
    ));
    println!(
        "| pods | pods/s | p50 s | p99 s | CPU ms/pod | resident KiB/pod | agent resident MiB | watches |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|---:|");
    for row in rows {
        let each = row.after.since(row.before, row.pods);
        println!(
            "| {} | {:.1} | {:.2} | {:.2} | {:.2} | {:.0} | {:.1} | {} |",
            row.pods,
            row.started.per_second(),
            row.started.percentile(50).as_secs_f64(),
            row.started.percentile(99).as_secs_f64(),
            each.cpu.as_secs_f64() * 1000.0,
            each.resident_kib,
            row.after.resident_kib / 1024.0,
            row.watches,
        );
    }
}
