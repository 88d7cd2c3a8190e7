//! What volumes add to the start of a pod when what is in them is on the node already.

use coracle_testing::Cluster;

use super::load::{self, Template};
use super::{IMAGE, NODE, median, serving};
use crate::progress::{say, wait};
use crate::stage::{Built, Stage, TAG};

const ROUNDS: usize = 40;

/// In milliseconds.
#[derive(Default)]
pub(super) struct Starts {
    /// The node's times for pods without volumes and for those with them.
    nodes: [Vec<f64>; 2],
    /// The API server's times for a token.
    tokens: Vec<f64>,
}

/// Starts pods of both kinds in turns, one after the other.
pub(super) async fn measure(built: &Built, config_maps: usize) -> anyhow::Result<Starts> {
    let stage = Stage::start(built, Cluster::builder().fast_limits(), NODE, &[IMAGE.to_owned()]).await?;
    let image = stage.registry.image(&format!("{IMAGE}:{TAG}"));
    let plain = Template { image, config_maps: None, probed: None };
    let with_volumes = Template { config_maps: Some(config_maps), ..plain.clone() };
    let running = Box::pin(load::run_in_turns(&stage.cluster, [&plain, &with_volumes], ROUNDS));
    let tokens = wait("pods without volumes and with them", running).await?;
    let tokens = tokens.iter().map(|time| time.as_secs_f64() * 1000.0).collect();
    let mut starts = Starts { tokens, ..Starts::default() };
    // The first is the one that runs all the time.
    for (number, time) in serving::node_times(&stage)?.into_iter().skip(1).enumerate() {
        starts.nodes[number % 2].push(time);
    }
    stage.close().await?;
    Ok(starts)
}

impl Starts {
    pub(super) fn print(mut self) {
        let [plain, with_volumes] = self.nodes.each_mut().map(|times| median(times));
        let token = median(&mut self.tokens);
        say(&format!(
            "\nFrom the watch's event to the API server's answer to the status Running, one pod after the other, in turns: \
             p50 {plain} ms without volumes, {with_volumes} ms with them; a token alone, which they need, takes the API server \
             {token:.1} ms (of {ROUNDS} each).",
        ));
    }
}
