//! Answers of guests that are odd, and none: the client sees a good answer or a clear failure.

use coracle_testing::conformance::Bench;
use coracle_testing::http::heard;
use tokio::io::AsyncWriteExt as _;

use crate::client::{IMPATIENT, ensure_well, serve};
use crate::machine::{built, provider};

const KINDS: [&str; 2] = ["http-test-rust", "http-concurrent-rust"];

#[tokio::test]
async fn a_status_that_is_none_never_reaches_a_client() {
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(folder.path());
    let bench = Bench::new(&provider, folder.path());
    for name in KINDS {
        let served = serve(&bench, &built(folder.path(), name), &[IMPATIENT]).await;
        for wanted in [0, 99, 1000] {
            assert_eq!(served.text(&format!("/status?{wanted}")).await, "refused\n", "{name} {wanted}");
        }
        // Only the node itself may say that an answer is still to come.
        for wanted in [100, 101, 103, 199] {
            let answer = served.get(&format!("/status?{wanted}")).await;
            assert_eq!(answer.status, 500, "{name} {wanted}: {answer:?}");
        }
        for (wanted, body) in [(204, ""), (304, ""), (404, "body\n"), (599, "body\n")] {
            let answer = served.get(&format!("/status?{wanted}")).await;
            assert_eq!((answer.status, answer.body.as_str()), (wanted, body), "{name} {wanted}: {answer:?}");
        }
        ensure_well(&served).await;
    }
}

#[tokio::test]
async fn a_short_answer_is_sent_whole_and_with_its_length() {
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(folder.path());
    let bench = Bench::new(&provider, folder.path());
    for name in KINDS {
        for requests in ["1", "10"] {
            let image = built(folder.path(), name);
            let served = serve(&bench, &image, &[("requests-per-instance", requests)]).await;
            let answer = served.get("/hello").await;
            let head = answer.head.to_ascii_lowercase();
            assert!(head.contains("\r\ncontent-length: 6\r\n"), "{name} {requests}: {answer:?}");
            assert!(!head.contains("transfer-encoding"), "{name} {requests}: {answer:?}");
            assert_eq!(answer.body, "hello\n", "{name} {requests}");
        }
    }
}

#[tokio::test]
async fn a_header_that_could_be_taken_for_another_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(folder.path());
    let bench = Bench::new(&provider, folder.path());
    for name in KINDS {
        let served = serve(&bench, &built(folder.path(), name), &[]).await;
        let answer = served.get("/headers").await;
        assert_eq!(answer.status, 200, "{name}: {answer:?}");
        assert!(answer.head.contains("\r\nx-fine: a\r\n"), "{name}: {answer:?}");
        for header in ["x-split", "x-injected", "x-null", "x bad", "upgrade"] {
            assert!(!answer.head.contains(header), "{name} {header}: {answer:?}");
        }
        assert!(answer.head.matches("transfer-encoding").count() <= 1, "{name}: {answer:?}");
        for refused in ["\"x-split\"", "\"x-null\"", "\"x bad\"", "\"\"", "\"upgrade\""] {
            assert!(answer.body.contains(refused), "{name} {refused}: {answer:?}");
        }
        ensure_well(&served).await;
    }
}

#[tokio::test]
async fn an_answer_is_never_longer_than_it_promises() {
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(folder.path());
    let bench = Bench::new(&provider, folder.path());
    for name in KINDS {
        let served = serve(&bench, &built(folder.path(), name), &[IMPATIENT]).await;
        let answer = served.get("/long").await;
        assert!(answer.status == 500 || answer.body.len() <= 3, "{name}: {answer:?}");
        ensure_well(&served).await;
    }
}

#[tokio::test]
async fn what_follows_a_body_goes_both_ways() {
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(folder.path());
    let bench = Bench::new(&provider, folder.path());
    for name in KINDS {
        let served = serve(&bench, &built(folder.path(), name), &[]).await;
        let request = "POST /trailers HTTP/1.1\r\nhost: a\r\nconnection: close\r\nte: trailers\r\n\
                       transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-check: 7\r\n\r\n";
        let mut stream = served.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let text = String::from_utf8(heard(&mut stream).await.0).unwrap();
        assert!(text.contains("5 x-check=7\n"), "{name}: {text}");
        assert!(text.ends_with("\r\n0\r\nx-sum: 42\r\n\r\n"), "{name}: {text:?}");
    }
}

#[tokio::test]
async fn a_guest_that_gives_nothing_back_ends_alone() {
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(folder.path());
    let bench = Bench::new(&provider, folder.path());
    let leaking = serve(&bench, &built(folder.path(), KINDS[1]), &[]).await;
    let other = serve(&bench, &built(folder.path(), KINDS[0]), &[]).await;
    let (leaked, ()) = tokio::join!(leaking.get("/leak"), ensure_well(&other));
    assert_eq!(leaked.status, 500, "{leaked:?}");
    ensure_well(&leaking).await;
}
