//! A client of HTTP that says every byte itself, so that a test can say wrong ones.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// No server of a test takes longer.
const PATIENCE: Duration = Duration::from_mins(1);

/// An answer, as far as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its status; 0 when there was none.
    pub status: u16,
    /// Its first line and its headers, in lower case.
    pub head: String,
    /// Its body; what is not UTF-8 is replaced.
    pub body: String,
    /// Whether it ended as its head promised.
    pub is_whole: bool,
}

/// The answer to a `GET` on a connection of its own.
///
/// # Errors
/// Nothing listens there.
pub async fn get(address: SocketAddr, target: &str) -> io::Result<Answer> {
    let request = format!("GET {target} HTTP/1.1\r\nhost: service.example\r\nconnection: close\r\n\r\n");
    say(address, request.as_bytes()).await
}

/// The answer to whatever is said on a connection of its own.
///
/// # Errors
/// Nothing listens there.
pub async fn say(address: SocketAddr, words: &[u8]) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(address).await?;
    // A server that has heard enough need not hear the rest.
    let _ = stream.write_all(words).await;
    Ok(answer(&mut stream).await)
}

/// The one answer that comes until the connection ends.
pub async fn answer(stream: &mut TcpStream) -> Answer {
    let (bytes, is_closed) = heard(stream).await;
    parsed(&bytes, is_closed)
}

/// All that comes until the connection ends, and whether that is its end and no break.
pub async fn heard(stream: &mut TcpStream) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
    (bytes, matches!(read, Ok(Ok(_))))
}

fn parsed(bytes: &[u8], is_closed: bool) -> Answer {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let head = head.to_ascii_lowercase();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    let (body, is_whole) = match length {
        Some(length) => (body.to_owned(), body.len() == length),
        None if head.contains("transfer-encoding: chunked") => dechunked(body),
        None => (body.to_owned(), is_closed && status != 0),
    };
    Answer { status, head, body, is_whole }
}

/// A chunked body, and whether its last chunk is there.
fn dechunked(mut rest: &str) -> (String, bool) {
    let mut body = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let Ok(size) = usize::from_str_radix(size, 16) else { break };
        if size == 0 {
            return (body, true);
        }
        let Some(chunk) = after.get(..size) else { break };
        body.push_str(chunk);
        rest = after.get(size + 2..).unwrap_or_default();
    }
    (body, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_when_all_came_that_was_promised() {
        let read = |text: &str| parsed(text.as_bytes(), true);
        let sized = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n";
        let answer = read(&format!("{sized}abc"));
        assert_eq!((answer.status, answer.body.as_str(), answer.is_whole), (200, "abc", true));
        assert!(!read(&format!("{sized}ab")).is_whole);
        let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n";
        let answer = read(&format!("{chunked}0\r\n\r\n"));
        assert_eq!((answer.body.as_str(), answer.is_whole), ("abc", true));
        assert!(!read(chunked).is_whole);
        assert_eq!((read("").status, read("").is_whole), (0, false));
    }
}
