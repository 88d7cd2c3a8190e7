//! HTTP through a pod against the same component in a bare server on the same engine: requests a second by `wrk`.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use coracle_testing::{http, ports, target_dir, wait};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;

use crate::progress::say;
use crate::stage::{Stage, TAG};

/// The guests that answer, by what they are.
pub(super) const GUESTS: [(&str, &str); 2] =
    [("WASI 0.2", "http-test-rust"), ("WASI 0.3", "http-concurrent-rust")];

/// How instances are used: by how many requests, and how many at a time.
const MODES: [(&str, u32, u32); 2] = [("fresh", 1, 1), ("reused", 1000, 1)];
const TARGET: &str = "/hello";
/// Turns of each side, one after the other, so that what else the machine does hits both.
const TURNS: usize = 5;
const SECONDS: u32 = 3;
const CONNECTIONS: &str = "-c32";
const LIMIT: Duration = Duration::from_mins(1);

/// What one guest in one mode came to: the median of the turns, in requests a second.
pub(super) struct Row {
    guest: &'static str,
    mode: &'static str,
    bare: f64,
    pod: f64,
    /// The first answer of a pod that has no instance.
    cold: Duration,
}

/// Whether the program that asks is on this machine.
pub(super) fn can_ask() -> bool {
    let found = Command::new("wrk").arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        say("HTTP is not measured: wrk is missing; install it with `sudo apt-get install wrk`");
    }
    found
}

/// Measures each guest in each mode.
pub(super) async fn measure(stage: &Stage, yardstick: &Path) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (name, guest) in GUESTS {
        for (mode, requests, concurrency) in MODES {
            let served = Served::start(stage, guest, requests, concurrency).await?;
            let wasm = target_dir().join("guests").join(format!("{guest}.wasm"));
            let bare = Bare::start(yardstick, &wasm, requests, concurrency).await?;
            let cold = cold(served.address).await?;
            let (bare, pod) = turns(bare.address, served.address).await?;
            rows.push(Row { guest: name, mode, bare, pod, cold });
            served.stop().await?;
        }
    }
    Ok(rows)
}

pub(super) fn print(rows: &[Row]) {
    say(&format!(
        "\nHTTP: `wrk -t1 {CONNECTIONS}`, medians of {TURNS} turns of {SECONDS} s each, on the machine's own network; bare is wasmtime's \
         ProxyHandler with the same engine, limiter, epochs and WASI context.\n"
    ));
    println!("| guest | instances | bare requests/s | pod requests/s | ratio | first answer ms |");
    println!("|---|---|---:|---:|---:|---:|");
    for Row { guest, mode, bare, pod, cold } in rows {
        let milliseconds = cold.as_secs_f64() * 1000.0;
        println!("| {guest} | {mode} | {bare:.0} | {pod:.0} | {:.2} | {milliseconds:.1} |", pod / bare);
    }
}

/// A pod in the machine's own network.
struct Served {
    pods: Api<Pod>,
    name: String,
    address: SocketAddr,
}

impl Served {
    async fn start(stage: &Stage, guest: &str, requests: u32, concurrency: u32) -> anyhow::Result<Self> {
        let client = stage.cluster.admin().await?;
        let (port, name) = (ports::free()?, format!("{guest}-{requests}"));
        let pods = Api::<Pod>::default_namespaced(client.clone());
        let arch = "kubernetes.io/arch";
        let pod = serde_json::from_value(json!({
            "metadata": {"name": name, "annotations": {
                "coracle.dev/http-requests-per-instance": requests.to_string(),
                "coracle.dev/http-concurrency-per-instance": concurrency.to_string(),
            }},
            "spec": {
                "hostNetwork": true,
                "automountServiceAccountToken": false,
                "containers": [{
                    "name": "server", "image": stage.registry.image(&format!("{guest}:{TAG}")),
                    "ports": [{"containerPort": port}],
                }],
                "nodeSelector": {arch: "wasm32-wasi"},
                "tolerations": [{"key": arch, "operator": "Exists"}],
            },
        }))?;
        pods.create(&PostParams::default(), &pod).await?;
        let is_running =
            |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running");
        wait::pod(&client, "default", &name, LIMIT, is_running).await?;
        Ok(Self { pods, name, address: ([127, 0, 0, 1], port).into() })
    }

    async fn stop(self) -> anyhow::Result<()> {
        self.pods.delete(&self.name, &DeleteParams::default().grace_period(0)).await?;
        Ok(())
    }
}

/// The bare server's process.
struct Bare {
    process: Child,
    address: SocketAddr,
}

impl Bare {
    async fn start(yardstick: &Path, wasm: &Path, requests: u32, concurrency: u32) -> anyhow::Result<Self> {
        let address = SocketAddr::from(([127, 0, 0, 1], ports::free()?));
        let mut command = Command::new(yardstick);
        command.arg(wasm).args([address.to_string(), requests.to_string(), concurrency.to_string()]);
        let bare = Self { process: command.spawn().context("starting the bare server")?, address };
        let began = Instant::now();
        while http::get(address, TARGET).await.is_err() {
            ensure!(began.elapsed() < LIMIT, "the bare server does not answer");
            tokio::task::yield_now().await;
        }
        Ok(bare)
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// How long the first answer of a pod takes that has just started.
async fn cold(address: SocketAddr) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let answer = http::get(address, TARGET).await?;
    ensure!(answer.status == 200, "the pod answers {}", answer.head);
    Ok(began.elapsed())
}

async fn turns(bare: SocketAddr, pod: SocketAddr) -> anyhow::Result<(f64, f64)> {
    let [mut bares, mut pods] = [Vec::new(), Vec::new()];
    for _ in 0..TURNS {
        bares.push(asked(bare).await?);
        pods.push(asked(pod).await?);
    }
    Ok((median(bares), median(pods)))
}

/// Requests a second, all of which were answered well.
async fn asked(address: SocketAddr) -> anyhow::Result<f64> {
    let (time, url) = (format!("-d{SECONDS}s"), format!("http://{address}{TARGET}"));
    let asking = move || Command::new("wrk").args(["-t1", CONNECTIONS, &time, &url]).output();
    let output = tokio::task::spawn_blocking(asking).await?.context("starting wrk")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    rate(&said).with_context(|| format!("wrk says {said}{}", String::from_utf8_lossy(&output.stderr)))
}

fn rate(said: &str) -> Option<f64> {
    let is_clean = !said.contains("Non-2xx") && !said.contains("Socket errors");
    let line = said.lines().find_map(|line| line.trim().strip_prefix("Requests/sec:"))?;
    line.trim().parse().ok().filter(|_| is_clean)
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_good_answers_count() {
        let said = "  3000 requests in 3.00s\nRequests/sec:  1000.50\nTransfer/sec: 1MB";
        assert_eq!(rate(said), Some(1000.5));
        assert_eq!(rate(&format!("  Non-2xx or 3xx responses: 1\n{said}")), None);
        assert_eq!(rate(&format!("  Socket errors: connect 1\n{said}")), None);
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
    }
}
