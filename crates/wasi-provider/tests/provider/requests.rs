//! Requests that two servers might read differently, and odd ones: each is refused, or means one thing.

use coracle_testing::conformance::Bench;
use coracle_testing::http::{answer, heard};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::client::{IMPATIENT, Served, ensure_well, serve};
use crate::machine::{built, provider};

const KINDS: [&str; 2] = ["http-test-rust", "http-concurrent-rust"];
/// What follows each request on its connection.
const SMUGGLED: &str = "GET /hello HTTP/1.1\r\nhost: b\r\nconnection: close\r\n\r\n";

/// All that a client hears that says this.
async fn said(served: &Served, words: &str) -> String {
    let mut stream = served.connect().await;
    // A server that has heard enough need not hear the rest.
    let _ = stream.write_all(words.as_bytes()).await;
    String::from_utf8_lossy(&heard(&mut stream).await.0).into_owned()
}

fn answers(text: &str) -> usize {
    text.matches("HTTP/1.1 ").count()
}

#[tokio::test]
async fn a_request_without_one_meaning_is_refused_and_nothing_after_it_is_heard() {
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(folder.path());
    let bench = Bench::new(&provider, folder.path());
    let served = serve(&bench, &built(folder.path(), KINDS[0]), &[IMPATIENT]).await;
    for header in [
        "content-length: 5\r\ncontent-length: 6",
        "content-length: 5, 6",
        "content-length: +5",
        "content-length: -5",
        "content-length: 0x5",
        "content-length: 5 5",
        "content-length:",
        "content-length: 99999999999999999999",
        "content-length : 5",
        "transfer-encoding: gzip",
        "transfer-encoding: chunked, identity",
        "transfer-encoding: xchunked",
        "transfer-encoding : chunked",
        "x: a\r\n folded: b",
        "x: a\0b",
        "x\0: a",
        "x: a\rb",
        "x y: a",
        ": a",
        "no colon",
    ] {
        let request = format!("POST /length HTTP/1.1\r\nhost: a\r\n{header}\r\n\r\n{SMUGGLED}");
        let text = said(&served, &request).await;
        assert!(text.starts_with("HTTP/1.1 400 "), "{header:?}: {text}");
        assert_eq!(answers(&text), 1, "{header:?}: {text}");
    }
    for line in [
        "GET /hello",
        "GET /hello HTTP/1.2",
        "GET /hello HTTP/2.0",
        "GET /he llo HTTP/1.1",
        "GET /\u{1} HTTP/1.1",
        "G\u{0}T / HTTP/1.1",
    ] {
        let text = said(&served, &format!("{line}\r\nhost: a\r\n\r\n{SMUGGLED}")).await;
        assert!(text.starts_with("HTTP/1.1 400 "), "{line:?}: {text}");
        assert_eq!(answers(&text), 1, "{line:?}: {text}");
    }
    ensure_well(&served).await;
}

#[tokio::test]
async fn a_length_beside_chunks_ends_the_connection() {
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(folder.path());
    let bench = Bench::new(&provider, folder.path());
    let served = serve(&bench, &built(folder.path(), KINDS[0]), &[IMPATIENT]).await;
    for headers in
        ["content-length: 3\r\ntransfer-encoding: chunked", "transfer-encoding: chunked\r\ncontent-length: 3"]
    {
        let request = format!("POST /length HTTP/1.1\r\nhost: a\r\n{headers}\r\n\r\n0\r\n\r\n{SMUGGLED}");
        let text = said(&served, &request).await;
        assert_eq!(answers(&text), 1, "{headers:?}: {text}");
    }
    ensure_well(&served).await;
}

#[tokio::test]
async fn a_body_that_is_malformed_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(folder.path());
    let bench = Bench::new(&provider, folder.path());
    let served = serve(&bench, &built(folder.path(), KINDS[0]), &[IMPATIENT]).await;
    let extended = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(100_000));
    let trailing = format!("5\r\nhello\r\n0\r\n{}\r\n", "x: y\r\n".repeat(10_000));
    for body in
        ["5\r\nhelloX\r\n0\r\n\r\n", "FFFFFFFFFFFFFFFFF\r\n", "-1\r\n", "x\r\n", "\r\n", &extended, &trailing]
    {
        let head = "POST /length HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
        let text = said(&served, &format!("{head}{body}{SMUGGLED}")).await;
        let body = &body[..body.len().min(40)];
        assert!(text.starts_with("HTTP/1.1 400 "), "{body:?}: {text}");
        assert_eq!(answers(&text), 1, "{body:?}: {text}");
    }
    ensure_well(&served).await;
}

#[tokio::test]
async fn http_2_is_refused_at_its_first_words() {
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(folder.path());
    let bench = Bench::new(&provider, folder.path());
    let served = serve(&bench, &built(folder.path(), KINDS[0]), &[IMPATIENT]).await;
    // A thousand streams, each reset at once.
    let frame = |kind: u8, stream: u32, payload: &[u8]| {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, 0], &stream.to_be_bytes(), payload].concat()
    };
    let mut words = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    words.extend(frame(4, 0, &[]));
    for stream in (1..2_000).step_by(2) {
        words.extend(frame(1, stream, &[0x82, 0x86, 0x84]));
        words.extend(frame(3, stream, &[0, 0, 0, 8]));
    }
    let mut stream = served.connect().await;
    let _ = stream.write_all(&words).await;
    let (text, _) = heard(&mut stream).await;
    assert!(text.len() < 1_000, "{}", String::from_utf8_lossy(&text));
    ensure_well(&served).await;
}

#[tokio::test]
async fn what_a_server_need_not_do_is_not_done() {
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(folder.path());
    let bench = Bench::new(&provider, folder.path());
    for name in KINDS {
        let served = serve(&bench, &built(folder.path(), name), &[IMPATIENT]).await;
        let upgrade = "GET /hello HTTP/1.1\r\nhost: a\r\nconnection: upgrade, close\r\nupgrade: websocket\r\n\
                       sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
        let plain = served.say(upgrade.as_bytes()).await;
        assert_eq!((plain.status, plain.body.as_str()), (200, "hello\n"), "{name}: {plain:?}");
        let tunnel =
            served.say(b"CONNECT other.example:443 HTTP/1.1\r\nhost: other.example:443\r\n\r\n").await;
        assert!((400..600).contains(&tunnel.status), "{name}: {tunnel:?}");
        ensure_well(&served).await;
    }
}

#[tokio::test]
async fn old_clients_and_careful_ones_are_answered() {
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(folder.path());
    let bench = Bench::new(&provider, folder.path());
    for name in KINDS {
        let served = serve(&bench, &built(folder.path(), name), &[]).await;
        let old = served.say(b"GET /hello HTTP/1.0\r\n\r\n").await;
        assert_eq!((old.status, old.body.as_str()), (200, "hello\n"), "{name}: {old:?}");
        assert!(!old.head.contains("chunked"), "{name}: {old:?}");

        let head = "POST /trailers HTTP/1.1\r\nhost: a\r\nconnection: close\r\nexpect: 100-continue\r\n\
                    content-length: 5\r\n\r\n";
        let mut careful = served.connect().await;
        careful.write_all(head.as_bytes()).await.unwrap();
        let mut go_on = [0; 25];
        careful.read_exact(&mut go_on).await.unwrap();
        assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n", "{name}");
        careful.write_all(b"hello").await.unwrap();
        let answered = answer(&mut careful).await;
        assert_eq!((answered.status, answered.body.as_str()), (200, "5 \n"), "{name}");

        let large = head.replace("content-length: 5", "content-length: 99999999999");
        assert_eq!(served.say(large.as_bytes()).await.status, 413, "{name}");
    }
}

#[tokio::test]
async fn an_answer_without_a_body_is_followed_by_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(folder.path());
    let bench = Bench::new(&provider, folder.path());
    for name in KINDS {
        let served = serve(&bench, &built(folder.path(), name), &[]).await;
        for first in ["HEAD /hello", "GET /status?204", "GET /status?304"] {
            let text = said(&served, &format!("{first} HTTP/1.1\r\nhost: a\r\n\r\n{SMUGGLED}")).await;
            let (one, two) = text.split_once("\r\n\r\n").unwrap();
            assert!(two.starts_with("HTTP/1.1 200 OK\r\n"), "{name} {first}: {one} then {two}");
            assert!(two.contains("hello\n"), "{name} {first}: {two}");
        }
        // A body that the guest does not read is no request.
        let unread =
            "POST /hello HTTP/1.1\r\nhost: a\r\ncontent-length: 28\r\n\r\nGET /trap HTTP/1.1\r\nx: y\r\n\r\n";
        let text = said(&served, &format!("{unread}{SMUGGLED}")).await;
        assert!(text.starts_with("HTTP/1.1 200 ") && !text.contains("HTTP/1.1 500"), "{name}: {text}");
        ensure_well(&served).await;
    }
}
