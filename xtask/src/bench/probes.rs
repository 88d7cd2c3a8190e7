//! What it costs the agent to probe each pod once a second, by requests to one server outside it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use coracle_testing::Cluster;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::agent::Usage;
use super::load::{self, Template};
use super::{IMAGE, NODE, NODE_CIDR_MASK_SIZE};
use crate::progress::{say, wait};
use crate::stage::{Built, Stage, TAG};

/// How long pods run before they are measured, and for how long that is done.
const SETTLING: Duration = Duration::from_secs(15);
const MEASURED: Duration = Duration::from_mins(1);

/// What is looked at to see whether probes come all at once.
const MOMENT: Duration = Duration::from_millis(100);

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// A server in this process that all probes ask.
struct Server {
    port: u16,
    times: Arc<Mutex<Vec<Instant>>>,
    _tasks: JoinSet<()>,
}

impl Server {
    async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let (port, times) = (listener.local_addr()?.port(), Arc::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, Arc::clone(&times)));
        Ok(Self { port, times, _tasks: tasks })
    }

    /// When requests came, since this was asked the last time.
    fn take(&self) -> Vec<Instant> {
        std::mem::take(&mut *self.times.lock())
    }
}

async fn serve(listener: TcpListener, times: Arc<Mutex<Vec<Instant>>>) {
    let mut connections = JoinSet::new();
    while let Ok((mut stream, _)) = listener.accept().await {
        times.lock().push(Instant::now());
        while connections.try_join_next().is_some() {}
        connections.spawn(async move {
            // Who goes away before the answer is there is no matter of this server's.
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(ANSWER).await;
        });
    }
}

/// What the agent used while pods did nothing but be probed, or nothing at all.
struct Row {
    pods: usize,
    is_probed: bool,
    cores: f64,
    requests: Vec<Instant>,
}

/// Runs each load twice, without probes and with them, and prints a table.
pub(super) fn run(built: &Built, loads: &[usize]) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let mut rows = Vec::new();
    for &pods in loads {
        for is_probed in [false, true] {
            let measured = runtime.block_on(measure(built, pods, is_probed));
            rows.push(measured.with_context(|| format!("{pods} pods"))?);
        }
    }
    print(&rows);
    Ok(())
}

async fn measure(built: &Built, pods: usize, is_probed: bool) -> anyhow::Result<Row> {
    let cluster = Cluster::builder().fast_limits().node_cidr_mask_size(NODE_CIDR_MASK_SIZE);
    let stage = Stage::start(built, cluster, NODE, &[IMAGE.to_owned()]).await?;
    let server = Server::start().await?;
    let image = stage.registry.image(&format!("{IMAGE}:{TAG}"));
    let template = Template { image, config_maps: None, probed: is_probed.then_some(server.port) };
    let what = format!("{pods} pods {} probes", if is_probed { "with" } else { "without" });
    wait(&what, load::run(&stage.cluster, &template, pods)).await?;
    sleep(SETTLING).await;
    let (agent, began) = (stage.node.process_id(), Instant::now());
    server.take();
    let before = Usage::of(agent)?;
    sleep(MEASURED).await;
    let used = Usage::of(agent)?.since(before, 1).cpu;
    let requests = server.take();
    let cores = used.as_secs_f64() / began.elapsed().as_secs_f64();
    stage.close().await?;
    Ok(Row { pods, is_probed, cores, requests })
}

fn print(rows: &[Row]) {
    say(&format!(
        "\nPods of image {IMAGE}, each with a readiness probe by HTTP once a second, or none; over {} s. The busiest \
         moment is the most requests that came within {} ms.\n",
        MEASURED.as_secs(),
        MOMENT.as_millis()
    ));
    println!("| pods | probes | agent cores | requests/s | busiest moment |");
    println!("|---:|---|---:|---:|---:|");
    for row in rows {
        let each_second = row.requests.len() / usize::try_from(MEASURED.as_secs()).unwrap_or(1);
        let probes = if row.is_probed { "once a second" } else { "none" };
        println!(
            "| {} | {probes} | {:.3} | {each_second} | {} |",
            row.pods,
            row.cores,
            busiest(&row.requests)
        );
    }
}

/// The most that came within a moment.
fn busiest(times: &[Instant]) -> usize {
    let within = |(first, at): (usize, &Instant)| {
        times[first..].partition_point(|time| time.duration_since(*at) < MOMENT)
    };
    times.iter().enumerate().map(within).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_moment_is_found_wherever_it_begins() {
        let start = Instant::now();
        let times: Vec<_> =
            [0, 90, 180, 185, 190, 270, 281].map(|time| start + Duration::from_millis(time)).into();
        assert_eq!(busiest(&times), 4);
        assert_eq!(busiest(&[]), 0);
    }
}
