//! Guests and clients that mean no good: each is refused clearly, and nobody else notices.

use std::time::Duration;

use coracle_lifecycle::Cause;
use coracle_testing::conformance::{Bench, stop};
use coracle_testing::http::answer;
use tokio::io::AsyncWriteExt as _;

use crate::client::{IMPATIENT, Served, ensure_well, serve, spec, start};
use crate::machine::{built, provider};

fn log(served: &Served) -> String {
    std::fs::read_to_string(&served.spec.log.path).unwrap()
}

#[tokio::test]
async fn a_guest_that_fails_is_answered_for_and_the_container_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(folder.path());
    let bench = Bench::new(&provider, folder.path());
    for name in ["http-test-rust", "http-concurrent-rust"] {
        let served = serve(&bench, &built(folder.path(), name), &[]).await;
        for target in ["/trap", "/error"] {
            let answer = served.get(target).await;
            assert_eq!(
                (answer.status, answer.body.as_str()),
                (500, "the service failed\n"),
                "{name} {target}"
            );
        }
        ensure_well(&served).await;
        let log = log(&served);
        assert!(log.contains("stderr F coracle: an instance failed: "), "{log}");
        assert!(log.contains("coracle: GET /error: "), "{log}");
        assert!(log.contains("unreachable"), "{log}");
        assert_eq!(stop(&*served.container, Duration::from_secs(30)).await.cause, Cause::Exited(0));
    }
}

#[tokio::test]
async fn a_guest_without_an_answer_is_answered_for() {
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(folder.path());
    let bench = Bench::new(&provider, folder.path());
    let served = serve(&bench, &built(folder.path(), "http-test-rust"), &[]).await;
    for target in ["/silent", "/exit"] {
        assert_eq!(served.get(target).await.status, 500, "{target}");
    }
    ensure_well(&served).await;
}

#[tokio::test]
async fn a_guest_that_never_answers_is_ended() {
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(folder.path());
    let bench = Bench::new(&provider, folder.path());
    for name in ["http-test-rust", "http-concurrent-rust"] {
        let served = serve(&bench, &built(folder.path(), name), &[IMPATIENT]).await;
        let (never, spin, ()) = tokio::join!(served.get("/never"), served.get("/spin"), ensure_well(&served));
        assert_eq!((never.status, spin.status), (504, 504), "{name}: {never:?} {spin:?}");
        while served.container.usage().await.memory > 0 {
            tokio::task::yield_now().await;
        }
        ensure_well(&served).await;
    }
}

#[tokio::test]
async fn half_an_answer_is_never_taken_for_the_whole() {
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(folder.path());
    let bench = Bench::new(&provider, folder.path());
    for (name, targets) in
        [("http-test-rust", &["/half", "/half-trap", "/short"][..]), ("http-concurrent-rust", &["/half"])]
    {
        let served = serve(&bench, &built(folder.path(), name), &[IMPATIENT]).await;
        for target in targets {
            let answer = served.get(target).await;
            assert!(!answer.is_whole, "{name} {target}: {answer:?}");
        }
        ensure_well(&served).await;
        while served.container.usage().await.memory > 0 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_stuck_guest_of_a_shared_instance_ends_alone() {
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(folder.path());
    let bench = Bench::new(&provider, folder.path());
    let settings = [IMPATIENT, ("requests-per-instance", "100"), ("concurrency-per-instance", "4")];
    let served = serve(&bench, &built(folder.path(), "http-concurrent-rust"), &settings).await;
    let (never, slept) = tokio::join!(served.get("/never"), served.get("/sleep?700"));
    assert_eq!((never.status, slept.status), (504, 200));
    let trapped = served.get("/trap").await;
    assert_eq!(trapped.status, 500);
    ensure_well(&served).await;
}

#[tokio::test]
async fn requests_beyond_the_limit_are_told_to_come_again() {
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(folder.path());
    let bench = Bench::new(&provider, folder.path());
    let served = serve(&bench, &built(folder.path(), "http-test-rust"), &[("concurrency", "2")]).await;
    let asked = futures::future::join_all((0..6).map(|_| served.get("/sleep?800"))).await;
    let answered = asked.iter().filter(|answer| answer.status == 200).count();
    let refused: Vec<_> = asked.iter().filter(|answer| answer.status == 503).collect();
    assert_eq!((answered, refused.len()), (2, 4), "{asked:?}");
    assert!(refused.iter().all(|answer| answer.head.contains("retry-after: 1")));
    ensure_well(&served).await;
}

#[tokio::test]
async fn the_instances_of_a_container_share_its_memory() {
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(folder.path());
    let bench = Bench::new(&provider, folder.path());
    let mut spec = spec(&bench, &built(folder.path(), "http-test-rust"), &[]);
    spec.limits.memory = Some(16 << 20);
    let served = start(&bench, spec).await;
    assert_eq!(served.text("/memory?8000000").await, "8000000\n");
    assert_eq!(served.get("/memory?32000000").await.status, 500);
    assert!(log(&served).contains("memory limit of 16777216 bytes"), "{}", log(&served));
    ensure_well(&served).await;
}

#[tokio::test]
async fn a_head_that_is_too_large_or_no_head_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(folder.path());
    let bench = Bench::new(&provider, folder.path());
    let served = serve(&bench, &built(folder.path(), "http-test-rust"), &[]).await;
    let large = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "x".repeat(1 << 20));
    assert_eq!(served.say(large.as_bytes()).await.status, 431);
    let many = format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: y\r\n".repeat(2_000));
    assert_eq!(served.say(many.as_bytes()).await.status, 431);
    let long = format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "x".repeat(1 << 20));
    assert!(matches!(served.say(long.as_bytes()).await.status, 414 | 431));
    for malformed in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\ncontent-length: x\r\n\r\n",
        "no such thing\r\n\r\n",
        "\0\0\0\0\r\n\r\n",
    ] {
        assert_eq!(served.say(malformed.as_bytes()).await.status, 400, "{malformed:?}");
    }
    ensure_well(&served).await;
}

#[tokio::test]
async fn a_body_that_is_too_large_or_endless_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(folder.path());
    let bench = Bench::new(&provider, folder.path());
    let served = serve(&bench, &built(folder.path(), "http-test-rust"), &[("max-body", "1Mi")]).await;
    let promised = "POST /length HTTP/1.1\r\nhost: a\r\ncontent-length: 1048577\r\n\r\n";
    assert_eq!(served.say(promised.as_bytes()).await.status, 413);
    let mut endless = served.connect().await;
    endless
        .write_all(b"POST /length HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n")
        .await
        .unwrap();
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    while endless.write_all(chunk.as_bytes()).await.is_ok() {}
    assert_eq!(answer(&mut endless).await.status, 413);
    let exact = format!(
        "POST /length HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 1048576\r\n\r\n{}",
        "x".repeat(1 << 20)
    );
    assert_eq!(served.say(exact.as_bytes()).await.body, "1048576\n");
    ensure_well(&served).await;
}

#[tokio::test]
async fn a_client_that_is_too_slow_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(folder.path());
    let bench = Bench::new(&provider, folder.path());
    let served = serve(&bench, &built(folder.path(), "http-test-rust"), &[IMPATIENT]).await;
    let slowly = async |said: &[u8]| {
        let (mut from, mut to) = served.connect().await.into_split();
        to.write_all(said).await.unwrap();
        let dripping = async {
            while to.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(400)).await;
            }
            std::future::pending::<()>().await;
        };
        let mut said = Vec::new();
        tokio::select! {
            read = tokio::io::AsyncReadExt::read_to_end(&mut from, &mut said) => drop(read),
            () = dripping => {}
        }
        String::from_utf8(said).unwrap()
    };
    let (head, body, ()) = tokio::join!(
        slowly(b"GET /hello HTTP/1.1\r\nhost: a\r\nx: "),
        slowly(b"POST /length HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n"),
        ensure_well(&served),
    );
    assert!(head.starts_with("HTTP/1.1 408 "), "{head}");
    assert!(body.starts_with("HTTP/1.1 408 "), "{body}");
    // One that said nothing is only closed.
    assert_eq!(answer(&mut served.connect().await).await.status, 0);
    ensure_well(&served).await;
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(folder.path());
    let bench = Bench::new(&provider, folder.path());
    let served = serve(&bench, &built(folder.path(), "http-test-rust"), &[IMPATIENT]).await;
    let mut greedy = served.connect().await;
    greedy.write_all(b"GET /zeros?100000000 HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    // It has begun: the memory from here on is its own, not that of the instance made at the start.
    greedy.peek(&mut [0]).await.unwrap();
    while served.container.usage().await.memory > 0 {
        tokio::task::yield_now().await;
    }
    assert!(!answer(&mut greedy).await.is_whole);
    ensure_well(&served).await;
}
