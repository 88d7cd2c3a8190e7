use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use serde_json::json;
use tempfile::TempDir;
use tokio::time::timeout;

use super::*;

/// A run whose log a test writes and reads.
struct Scene {
    directory: TempDir,
    status: watch::Sender<Arc<PodStatus>>,
}

type Output = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

fn status(is_running: bool) -> Arc<PodStatus> {
    let state =
        if is_running { json!({ "running": {} }) } else { json!({ "terminated": { "exitCode": 0 } }) };
    let container =
        json!({ "name": "c", "image": "", "imageID": "", "state": state, "containerID": "r://u_c_0" });
    Arc::new(serde_json::from_value(json!({ "containerStatuses": [container] })).unwrap())
}

impl Scene {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), status: watch::channel(status(true)).0 }
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("0.log")
    }

    fn write(&self, text: &str) {
        let mut file = OpenOptions::new().create(true).append(true).open(self.log()).unwrap();
        for line in text.split_inclusive('\n') {
            let tag = if line.ends_with('\n') { "F" } else { "P" };
            writeln!(file, "2026-11-21T10:00:00Z stdout {tag} {}", line.trim_end_matches('\n')).unwrap();
        }
    }

    fn rotate(&self, second: u32) {
        fs::rename(self.log(), self.directory.path().join(format!("0.log.20261121-1000{second:02}")))
            .unwrap();
    }

    async fn read(&self, options: LogOptions) -> Output {
        let run =
            Run { container: "c".into(), id: ContainerId::new("u_c_0"), status: self.status.subscribe() };
        Box::pin(read(LogFiles::new(self.log()), run, options).await.unwrap())
    }

    async fn follow(&self) -> Output {
        self.read(LogOptions { follow: true, ..LogOptions::default() }).await
    }
}

/// Reads until `expected` has come; whether it ends there is another matter.
async fn expect(output: &mut Output, expected: &str) {
    let mut seen = Vec::new();
    while seen.len() < expected.len() {
        let next = timeout(Duration::from_secs(20), output.next()).await;
        seen.extend(next.expect("more of the log").expect("no end yet").unwrap());
    }
    assert_eq!(String::from_utf8_lossy(&seen), expected);
}

async fn expect_end(output: &mut Output) {
    let next = timeout(Duration::from_secs(20), output.next()).await.expect("an end");
    assert!(next.is_none(), "{next:?}");
}

#[tokio::test]
async fn without_follow_it_ends_at_the_end() {
    let scene = Scene::new();
    scene.write("one\n");
    scene.rotate(1);
    scene.write("two\nbegun");
    let mut output = scene.read(LogOptions::default()).await;
    expect(&mut output, "one\ntwo\nbegun").await;
    expect_end(&mut output).await;
}

#[tokio::test]
async fn a_followed_log_ends_with_its_run_and_says_all() {
    let scene = Scene::new();
    scene.write("one\n");
    let mut output = scene.follow().await;
    expect(&mut output, "one\n").await;
    assert!(output.next().now_or_never().is_none(), "it waits");
    scene.write("two\n");
    expect(&mut output, "two\n").await;
    scene.write("last\n");
    scene.status.send_replace(status(false));
    expect(&mut output, "last\n").await;
    expect_end(&mut output).await;
}

#[tokio::test]
async fn a_log_that_does_not_exist_yet_is_awaited() {
    let scene = Scene::new();
    let mut output = scene.follow().await;
    assert!(output.next().now_or_never().is_none());
    scene.write("first\n");
    expect(&mut output, "first\n").await;
}

#[tokio::test]
async fn rotation_loses_nothing_however_often() {
    let scene = Scene::new();
    scene.write("1\n");
    let mut output = scene.follow().await;
    expect(&mut output, "1\n").await;
    scene.write("2\n");
    scene.rotate(1);
    scene.write("3\n");
    scene.rotate(2);
    scene.write("4\n");
    expect(&mut output, "2\n3\n4\n").await;
    scene.rotate(3);
    scene.write("5\n");
    expect(&mut output, "5\n").await;
}

#[tokio::test]
async fn tail_and_follow_go_together() {
    let scene = Scene::new();
    scene.write("1\n2\n3\n");
    let mut output = scene.read(LogOptions { follow: true, tail: Some(0), ..LogOptions::default() }).await;
    assert!(output.next().now_or_never().is_none());
    scene.write("4\n");
    expect(&mut output, "4\n").await;
    let mut output = scene.read(LogOptions { tail: Some(2), ..LogOptions::default() }).await;
    expect(&mut output, "3\n4\n").await;
}

#[tokio::test]
async fn a_limit_ends_even_a_followed_log() {
    let scene = Scene::new();
    scene.write("12345\n");
    let mut output = scene.read(LogOptions { follow: true, limit: Some(3), ..LogOptions::default() }).await;
    expect(&mut output, "123").await;
    expect_end(&mut output).await;
}

#[tokio::test]
async fn a_pod_that_is_gone_ends_its_logs() {
    let scene = Scene::new();
    scene.write("1\n");
    let mut output = scene.follow().await;
    expect(&mut output, "1\n").await;
    drop(scene.status);
    expect_end(&mut output).await;
}
