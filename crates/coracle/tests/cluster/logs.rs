//! `kubectl logs`.

use std::process::Stdio;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader, Lines};
use tokio::process::{Child, ChildStdout};

use crate::scene::Scene;
use crate::{guests, manifests, states, until};

/// Runs a guest to its end.
async fn ended(scene: &Scene<'_>, guest: &str) -> Pod {
    let image = guests::image(guest).await.unwrap();
    scene.run_until(guest, manifests::once(&image, &[]), states::has_ended).await.unwrap()
}

/// Runs the guest that prints a line each 100 ms, until it has printed some.
async fn ticking(scene: &Scene<'_>, name: &str) -> Pod {
    let image = guests::image("ticker").await.unwrap();
    let pod = scene.run_until(name, manifests::app("Always", &image, &[]), states::is_running).await.unwrap();
    let log = scene.log_file(&pod, "app", 0);
    until::so("there are some lines", || std::fs::read(&log).is_ok_and(|text| text.len() > 500))
        .await
        .unwrap();
    pod
}

#[tokio::test]
async fn the_log_of_a_finished_pod_is_served_whole_and_in_parts() {
    let scene = Scene::new("prints").await.unwrap();
    ended(&scene, "many-lines").await;
    let text = scene.logs("many-lines", &[]).await.unwrap();
    assert_eq!(text.lines().count(), 1000);
    for (line, number) in text.lines().zip(1..) {
        assert_eq!(line, format!("line {number:04}"));
    }
    let tail = scene.logs("many-lines", &["--tail=2"]).await.unwrap();
    assert_eq!(tail, "line 0999\nline 1000\n");
    assert_eq!(scene.logs("many-lines", &["--tail=0"]).await.unwrap(), "");
    assert_eq!(scene.logs("many-lines", &["--limit-bytes=14"]).await.unwrap(), "line 0001\nline");
    assert_eq!(scene.logs("many-lines", &["--since=1h", "--tail=1"]).await.unwrap(), "line 1000\n");

    let stamped = scene.logs("many-lines", &["--timestamps", "--tail=1"]).await.unwrap();
    let (time, line) = stamped.split_once(' ').unwrap();
    assert_eq!((time.len(), line), ("2006-01-02T15:04:05.000000000Z".len(), "line 1000\n"));
    time.parse::<jiff::Timestamp>().unwrap();
}

#[tokio::test]
async fn both_streams_and_bytes_that_are_no_text_are_logged() {
    let scene = Scene::new("streams").await.unwrap();
    tokio::join!(ended(&scene, "stdout-stderr"), ended(&scene, "not-utf8"));
    let both = scene.logs("stdout-stderr", &[]).await.unwrap();
    assert_eq!(both, "to standard output\nto standard error\n");
    let output = scene.kubectl(&["logs", "not-utf8"]).await.unwrap();
    assert_eq!(output.stdout, b"before\n\xff\xfe\x80\xc3\x28\nafter\n");
}

#[tokio::test]
async fn the_log_lies_on_disk_in_the_form_of_cri() {
    let scene = Scene::new("on-disk").await.unwrap();
    let pod = ended(&scene, "stdout-stderr").await;
    let text = std::fs::read_to_string(scene.log_file(&pod, "app", 0)).unwrap();
    let lines: Vec<_> = text.lines().map(|line| line.split_once(' ').unwrap()).collect();
    for (time, _) in &lines {
        time.parse::<jiff::Timestamp>().unwrap();
    }
    let rest: Vec<_> = lines.into_iter().map(|(_, rest)| rest).collect();
    assert_eq!(rest, ["stdout F to standard output", "stderr F to standard error"]);
}

#[tokio::test]
async fn a_log_that_is_not_there_is_said_not_to_be() {
    let scene = Scene::new("silent").await.unwrap();
    ended(&scene, "hello").await;
    let error = scene.complaint(&["logs", "hello", "--container=other"]).await.unwrap();
    assert!(error.contains("container other is not valid for pod hello"), "{error}");
    let error = scene.complaint(&["logs", "hello", "--previous"]).await.unwrap();
    assert!(error.contains(r#"previous terminated container "app" in pod "hello" not found"#), "{error}");

    let image = guests::registry().await.unwrap().image("nothing:v1");
    let fails = |pod: &Pod| states::waiting_reason(pod).contains("ImagePull");
    scene.run_until("missing", manifests::once(&image, &[]), fails).await.unwrap();
    let error = scene.complaint(&["logs", "missing"]).await.unwrap();
    assert!(error.contains("is waiting to start: ") && error.contains("pull"), "{error}");
}

#[tokio::test]
async fn the_previous_run_of_a_container_keeps_its_log() {
    let scene = Scene::new("previous").await.unwrap();
    let image = guests::image("exit-rust").await.unwrap();
    let waits = |pod: &Pod| states::restarts(pod) == 1 && states::waiting(pod).is_some();
    scene.run_until("exits", manifests::app("OnFailure", &image, &["5"]), waits).await.unwrap();
    scene.pod("exits", |pod| states::restarts(pod) == 2 && states::waiting(pod).is_some()).await.unwrap();
    let current = scene.logs("exits", &["--timestamps"]).await.unwrap();
    let previous = scene.logs("exits", &["--timestamps", "--previous"]).await.unwrap();
    for log in [&current, &previous] {
        assert_eq!(log.split_once(' ').unwrap().1, "ending with exit code 5\n");
    }
    // While the container waits, its last run is both the current and the previous one.
    assert_eq!(current, previous);
}

#[tokio::test]
async fn a_followed_log_ends_with_its_container() {
    let scene = Scene::new("followed").await.unwrap();
    ticking(&scene, "ticks").await;
    let (mut follower, mut lines) = follow(&scene, "ticks");
    let mut numbers = vec![number(&mut lines).await.unwrap()];
    // More than there was at the start, so that some of it was really followed.
    while numbers.len() < 30 {
        numbers.push(number(&mut lines).await.unwrap());
    }
    scene.delete("ticks", None).await.unwrap();
    while let Some(next) = number(&mut lines).await {
        numbers.push(next);
    }
    assert!(follower.wait().await.unwrap().success());
    let expected: Vec<_> = (1..=numbers.len()).collect();
    assert_eq!(numbers, expected);
}

#[tokio::test]
async fn a_follower_that_leaves_leaves_nothing_behind() {
    let scene = Scene::new("left-alone").await.unwrap();
    let pod = ticking(&scene, "ticks").await;
    let uid = pod.uid().unwrap();
    let agent = scene.node.process_id();
    let open = || {
        let files = until::open_files(agent);
        files
            .iter()
            .filter(|path| path.to_string_lossy().contains(&uid) && path.ends_with("app/0.log"))
            .count()
    };
    let before = open();
    let mut followers = vec![follow(&scene, "ticks"), follow(&scene, "ticks")];
    for (_, lines) in &mut followers {
        number(lines).await.unwrap();
    }
    assert_eq!(open(), before + 2);
    for (mut follower, _) in followers {
        follower.kill().await.unwrap();
    }
    until::so("nobody reads the log any more", || open() == before).await.unwrap();
    assert!(states::is_running(&scene.pod("ticks", |_| true).await.unwrap()));
}

/// Starts `kubectl logs --follow`.
fn follow(scene: &Scene<'_>, pod: &str) -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut command = tokio::process::Command::from(scene.cluster.kubectl_command());
    command.args(["--namespace", &scene.namespace, "logs", "--follow", pod]);
    let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    (child, lines)
}

/// The number in the next line of the guest that ticks.
async fn number(lines: &mut Lines<BufReader<impl AsyncRead + Unpin>>) -> Option<usize> {
    let line = lines.next_line().await.unwrap()?;
    Some(line.strip_prefix("tick ").unwrap().parse().unwrap())
}
