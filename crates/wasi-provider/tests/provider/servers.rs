//! Servers of HTTP: how requests are answered, and how a server ends.

use std::time::Duration;

use coracle_lifecycle::{Cause, Provider as _, StartError};
use coracle_testing::conformance::{Bench, exit_of, is_running, stop};
use coracle_testing::http::{answer, heard};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::client::{self, serve};
use crate::machine::{built, provider};

const GRACE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn servers_are_told_by_their_exports() {
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(folder.path());
    for (name, kind) in [
        ("http-test-rust", "wasi:http/proxy@0.2 component"),
        ("http-concurrent-rust", "wasi:http/service@0.3 component"),
    ] {
        assert_eq!(provider.prepare(&built(folder.path(), name)).await.unwrap().0, kind);
    }
}

#[tokio::test]
async fn each_request_has_an_instance_of_its_own_and_none_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(folder.path());
    let bench = Bench::new(&provider, folder.path());
    for name in ["http-test-rust", "http-concurrent-rust"] {
        let served = serve(&bench, &built(folder.path(), name), &[]).await;
        for _ in 0..3 {
            assert_eq!(served.text("/count").await, "1\n", "{name}");
        }
        while served.container.usage().await.memory > 0 {
            tokio::task::yield_now().await;
        }
        assert!(served.container.usage().await.cpu > Duration::ZERO);
        assert!(is_running(&*served.container));
        assert_eq!(stop(&*served.container, GRACE).await.cause, Cause::Exited(0), "{name}");
    }
}

#[tokio::test]
async fn a_server_is_given_its_port_files_and_the_whole_request() {
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(folder.path());
    let bench = Bench::new(&provider, folder.path());
    let mut spec = client::spec(&bench, &built(folder.path(), "http-test-rust"), &[]);
    spec.env.push(("COLOUR".to_owned(), "blue".to_owned()));
    std::fs::write(spec.root.join("page"), "of the container").unwrap();
    let log = spec.log.path.clone();
    let served = client::start(&bench, spec).await;
    assert_eq!(served.text("/variable?PORT").await, served.address.port().to_string());
    assert_eq!(served.text("/variable?COLOUR").await, "blue");
    assert_eq!(served.text("/file?/page").await, "of the container");
    assert_eq!(served.text("/log?words").await, "logged\n");
    assert!(std::fs::read_to_string(log).unwrap().ends_with("stdout F words\n"));
    let request = "PUT /request?a=b&c HTTP/1.1\r\nhost: pod.example:81\r\nx-one: 1\r\nx-one: 2\r\n\
                   content-length: 2\r\nconnection: close\r\n\r\nhi";
    let described = served.say(request.as_bytes()).await.body;
    for line in [
        "method=Method::Put",
        "scheme=Some(Scheme::Http)",
        "authority=pod.example:81",
        "target=/request?a=b&c",
        "x-one=1",
        "x-one=2",
        "content-length=2",
    ] {
        assert!(described.lines().any(|found| found == line), "{line} in {described}");
    }
}

#[tokio::test]
async fn a_server_without_a_tcp_port_listens_on_8080() {
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(folder.path());
    let bench = Bench::new(&provider, folder.path());
    let mut spec = client::spec(&bench, &built(folder.path(), "http-test-rust"), &[]);
    spec.ports.truncate(1);
    let served = client::start(&bench, spec).await;
    assert_eq!((served.address.port(), served.text("/variable?PORT").await.as_str()), (8080, "8080"));
}

#[tokio::test]
async fn wasip3_servers_are_told_whom_a_request_is_for() {
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(folder.path());
    let bench = Bench::new(&provider, folder.path());
    let served = serve(&bench, &built(folder.path(), "http-concurrent-rust"), &[]).await;
    assert_eq!(served.text("/authority").await, "service.example");
    let body = "0123456789".repeat(10_000);
    let request = format!(
        "POST /echo HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    assert_eq!(served.say(request.as_bytes()).await.body, body);
}

#[tokio::test]
async fn a_connection_serves_many_requests() {
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(folder.path());
    let bench = Bench::new(&provider, folder.path());
    let served = serve(&bench, &built(folder.path(), "http-test-rust"), &[]).await;
    let mut stream = served.connect().await;
    let one = "GET /hello HTTP/1.1\r\nhost: a\r\n\r\n";
    let last = "GET /hello HTTP/1.0\r\n\r\n";
    stream.write_all(format!("{}{last}", one.repeat(3)).as_bytes()).await.unwrap();
    let (all, is_closed) = heard(&mut stream).await;
    assert_eq!(String::from_utf8(all).unwrap().matches("hello\n").count(), 4);
    assert!(is_closed);
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(folder.path());
    let bench = Bench::new(&provider, folder.path());
    let image = built(folder.path(), "http-test-rust");
    let served = serve(&bench, &image, &[]).await;
    let mut second = client::spec(&bench, &image, &[]);
    second.network.addresses.clone_from(&served.spec.network.addresses);
    let Err(StartError::Failed(refused)) = provider.start(second).await else { panic!("two on one port") };
    let (address, port) = (served.address.ip(), served.address.port());
    let expected = format!("cannot listen on address {address}, port {port}: ");
    assert!(refused.starts_with(&expected) && refused.contains("in use"), "{refused}");
    assert_eq!(served.text("/hello").await, "hello\n");
}

#[tokio::test]
async fn an_instance_that_cannot_be_made_ends_the_run_with_the_cause() {
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(folder.path());
    let bench = Bench::new(&provider, folder.path());
    let mut spec = client::spec(&bench, &built(folder.path(), "http-test-rust"), &[]);
    spec.limits.memory = Some(64 << 10);
    let exit = exit_of(&*bench.start(spec).await).await;
    assert_eq!(exit.cause, Cause::OutOfMemory);
    assert!(exit.message.unwrap().contains("memory limit of 65536 bytes"));
}

#[tokio::test]
async fn what_was_accepted_is_answered_before_a_server_ends() {
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(folder.path());
    let bench = Bench::new(&provider, folder.path());
    for name in ["http-test-rust", "http-concurrent-rust"] {
        let served = serve(&bench, &built(folder.path(), name), &[]).await;
        let mut at_work = served.connect().await;
        at_work.write_all(b"GET /sleep?600 HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        served.text("/hello").await;
        let mut waiting = served.connect().await;
        let mut unheard = served.connect().await;
        served.container.stop(GRACE);
        // Both were connected before the stop.
        waiting.write_all(b"GET /hello HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let answers = tokio::join!(answer(&mut at_work), answer(&mut waiting), answer(&mut unheard));
        assert_eq!((answers.0.status, answers.0.body.as_str()), (200, "slept\n"), "{:?}", answers.0);
        assert!(answers.0.head.contains("connection: close"));
        assert_eq!(answers.1.body, "hello\n");
        assert_eq!(answers.2.status, 0, "nothing was asked, so nothing is answered");
        assert_eq!(exit_of(&*served.container).await.cause, Cause::Exited(0));
        assert!(TcpStream::connect(served.address).await.is_err());
    }
}

#[tokio::test]
async fn what_is_not_answered_in_the_grace_is_ended() {
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(folder.path());
    let bench = Bench::new(&provider, folder.path());
    for name in ["http-test-rust", "http-concurrent-rust"] {
        for target in ["/never", "/spin"] {
            let served = serve(&bench, &built(folder.path(), name), &[]).await;
            let mut stream = served.connect().await;
            stream.write_all(format!("GET {target} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).await.unwrap();
            served.text("/hello").await;
            served.container.stop(GRACE);
            let exit = stop(&*served.container, Duration::from_millis(300)).await;
            assert_eq!((exit.cause, exit.cause.exit_code()), (Cause::Killed, 137), "{name} {target}");
            assert_eq!(answer(&mut stream).await.status, 0);
        }
        let served = serve(&bench, &built(folder.path(), name), &[]).await;
        assert_eq!(stop(&*served.container, Duration::ZERO).await.cause, Cause::Killed);
    }
}

#[tokio::test]
async fn work_after_the_answer_is_finished() {
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(folder.path());
    let bench = Bench::new(&provider, folder.path());
    for name in ["http-test-rust", "http-concurrent-rust"] {
        let served = serve(&bench, &built(folder.path(), name), &[]).await;
        assert_eq!(served.text("/afterwards?300").await, "answered\n");
        assert_eq!(stop(&*served.container, GRACE).await.cause, Cause::Exited(0));
        let log = std::fs::read_to_string(&served.spec.log.path).unwrap();
        assert!(log.ends_with("stdout F done afterwards\n"), "{name}: {log}");
    }
}

#[tokio::test]
async fn instances_are_used_again_when_the_pod_allows_it_and_go_when_they_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(folder.path());
    let bench = Bench::new(&provider, folder.path());
    for name in ["http-test-rust", "http-concurrent-rust"] {
        let image = built(folder.path(), name);
        let served = serve(&bench, &image, &[("requests-per-instance", "3")]).await;
        let mut counts = Vec::new();
        for _ in 0..6 {
            counts.push(served.text("/count").await.trim().parse::<u32>().unwrap());
            settled(&served).await;
        }
        assert_eq!(counts, [1, 2, 3, 1, 2, 3], "{name}");
        served.text("/count").await;
        while served.container.usage().await.memory > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(served.text("/count").await, "1\n", "{name}");
    }
}

/// An instance that was let go needs its turn to say that it can be had again: a moment in which no CPU time is used.
async fn settled(served: &client::Served) {
    let mut before = served.container.usage().await.cpu;
    loop {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let now = served.container.usage().await.cpu;
        if now == before {
            return;
        }
        before = now;
    }
}

#[tokio::test]
async fn an_instance_answers_several_requests_at_a_time_when_the_pod_allows_it() {
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(folder.path());
    let bench = Bench::new(&provider, folder.path());
    let settings = [("requests-per-instance", "100"), ("concurrency-per-instance", "8")];
    let served = serve(&bench, &built(folder.path(), "http-concurrent-rust"), &settings).await;
    let first = served.get("/together?1500");
    let others = async {
        settled(&served).await;
        futures::future::join_all((0..4).map(|_| served.get("/together?1000"))).await
    };
    let (first, others) = tokio::join!(first, others);
    assert!(first.body.trim().parse::<u32>().unwrap() > 1, "{first:?}, {others:?}");
}

#[tokio::test]
async fn a_malformed_annotation_is_refused_at_the_start_too() {
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(folder.path());
    let bench = Bench::new(&provider, folder.path());
    let image = built(folder.path(), "http-test-rust");
    provider.prepare(&image).await.unwrap();
    let spec = client::spec(&bench, &image, &[("concurrency", "0")]);
    let Err(StartError::Invalid(refused)) = provider.start(spec).await else { panic!("it was started") };
    assert!(refused.contains("coracle.dev/http-concurrency"), "{refused}");
}
