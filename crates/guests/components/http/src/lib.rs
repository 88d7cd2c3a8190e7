//! A server that answers as the path says: `/hello`, or one of the ways in which an answer can fail.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, IncomingRequest, OutgoingBody, OutgoingRequest, OutgoingResponse, ResponseOutparam,
    Scheme,
};
use wasip2::io::streams::{InputStream, OutputStream};

wasip2::http::proxy::export!(Server);

struct Server;

/// The requests that this instance has had.
static COUNT: AtomicU32 = AtomicU32::new(0);

impl wasip2::exports::http::incoming_handler::Guest for Server {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let target = request.path_with_query().unwrap_or_default();
        let (path, argument) = target.split_once('?').unwrap_or((&target, ""));
        match path {
            "/count" => text(out, &format!("{}\n", COUNT.fetch_add(1, Ordering::Relaxed) + 1)),
            "/variable" => text(out, &std::env::var(argument).unwrap_or_default()),
            "/request" => text(out, &described(&request)),
            "/log" => {
                println!("{argument}");
                text(out, "logged\n");
            }
            "/file" => text(out, &std::fs::read_to_string(argument).unwrap_or_default()),
            "/length" => text(out, &length(&request)),
            "/fetch" => text(out, &fetch(argument).unwrap_or_else(|error| format!("{error:?}\n"))),
            "/echo" => echo(&request, out),
            "/sleep" => {
                std::thread::sleep(Duration::from_millis(number(argument)));
                text(out, "slept\n");
            }
            "/afterwards" => {
                text(out, "answered\n");
                std::thread::sleep(Duration::from_millis(number(argument)));
                println!("done afterwards");
            }
            "/zeros" => zeros(out, number(argument)),
            "/memory" => text(out, &format!("{}\n", vec![1_u8; number(argument) as usize].len())),
            "/trap" => std::process::abort(),
            "/exit" => std::process::exit(0),
            "/spin" => loop {
                std::hint::black_box(());
            },
            "/never" => std::thread::sleep(Duration::from_secs(10_000)),
            "/silent" => {}
            "/error" => ResponseOutparam::set(out, Err(ErrorCode::InternalError(None))),
            "/half" => begun(out, || std::thread::sleep(Duration::from_secs(10_000))),
            "/half-trap" => begun(out, || std::process::abort()),
            "/short" => begun(out, || {}),
            _ => text(out, "hello\n"),
        }
    }
}

fn number(argument: &str) -> u64 {
    argument.parse().expect("a number")
}

fn described(request: &IncomingRequest) -> String {
    let mut lines = vec![
        format!("method={:?}", request.method()),
        format!("scheme={:?}", request.scheme()),
        format!("authority={}", request.authority().unwrap_or_default()),
        format!("target={}", request.path_with_query().unwrap_or_default()),
    ];
    for (name, value) in request.headers().entries() {
        lines.push(format!("{name}={}", String::from_utf8_lossy(&value)));
    }
    lines.join("\n")
}

fn length(request: &IncomingRequest) -> String {
    let body = request.consume().expect("a body");
    let mut all = Vec::new();
    match body.stream().expect("a stream").read_to_end(&mut all) {
        Ok(length) => format!("{length}\n"),
        Err(error) => format!("the body broke off after {} bytes: {error}\n", all.len()),
    }
}

/// What a `GET` of this URL is answered.
fn fetch(url: &str) -> Result<String, ErrorCode> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let (authority, target) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let request = OutgoingRequest::new(Fields::new());
    let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
    request.set_scheme(Some(&scheme)).expect("a scheme");
    request.set_authority(Some(authority)).map_err(|()| ErrorCode::HttpRequestUriInvalid)?;
    request.set_path_with_query(Some(target)).map_err(|()| ErrorCode::HttpRequestUriInvalid)?;
    let answer = outgoing_handler::handle(request, None)?;
    answer.subscribe().block();
    let response = answer.get().expect("it is ready").expect("it is taken once")?;
    let body = response.consume().expect("a body");
    let mut text = String::new();
    match body.stream().expect("a stream").read_to_string(&mut text) {
        Ok(_) => Ok(format!("{} {text}", response.status())),
        Err(error) => Ok(format!("{} broke off after {text:?}: {error}\n", response.status())),
    }
}

fn echo(request: &IncomingRequest, out: ResponseOutparam) {
    let body = request.consume().expect("a body");
    let mut from: InputStream = body.stream().expect("a stream");
    let (answer, mut to) = begin(out, Fields::new());
    let mut piece = vec![0; 16 << 10];
    while let Ok(count @ 1..) = Read::read(&mut from, &mut piece) {
        if to.write_all(&piece[..count]).is_err() {
            return;
        }
    }
    finish(answer, to);
}

fn zeros(out: ResponseOutparam, mut left: u64) {
    let (body, mut to) = begin(out, Fields::new());
    let piece = [0; 4096];
    while left > 0 {
        let count = left.min(4096) as usize;
        if to.write_all(&piece[..count]).is_err() {
            return;
        }
        left -= count as u64;
    }
    finish(body, to);
}

/// Promises ten bytes, writes five, and then does something else.
fn begun(out: ResponseOutparam, then: impl FnOnce()) {
    let headers = Fields::new();
    headers.append("content-length", b"10").expect("a header");
    let (_body, mut to) = begin(out, headers);
    to.write_all(b"half\n").expect("written");
    to.flush().expect("flushed");
    then();
}

fn text(out: ResponseOutparam, text: &str) {
    let headers = Fields::new();
    headers.append("content-type", b"text/plain").expect("a header");
    let (body, mut to) = begin(out, headers);
    to.write_all(text.as_bytes()).expect("written");
    finish(body, to);
}

fn begin(out: ResponseOutparam, headers: Fields) -> (OutgoingBody, OutputStream) {
    let response = OutgoingResponse::new(headers);
    let body = response.body().expect("the body");
    ResponseOutparam::set(out, Ok(response));
    let stream = body.write().expect("the stream");
    (body, stream)
}

fn finish(body: OutgoingBody, stream: OutputStream) {
    drop(stream);
    OutgoingBody::finish(body, None).expect("finished");
}
