//! A server that answers as the path says: `/hello`, or one of the ways in which an answer can fail.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, IncomingBody, IncomingRequest, OutgoingBody, OutgoingRequest, OutgoingResponse, ResponseOutparam,
    Scheme,
};
use wasip2::io::streams::{InputStream, OutputStream};
use wasip2::sockets::network::IpAddressFamily;
use wasip2::sockets::tcp::TcpSocket;
use wasip2::sockets::tcp_create_socket::create_tcp_socket;

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
            "/long" => long(out),
            "/status" => status(out, argument),
            "/headers" => headers(out),
            "/trailers" => trailers(&request, out),
            "/sockets" => text(out, &format!("{}\n", sockets().len())),
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

/// Promises three bytes and writes more.
fn long(out: ResponseOutparam) {
    let headers = Fields::new();
    headers.append("content-length", b"3").expect("a header");
    let (body, mut to) = begin(out, headers);
    let _ = to.write_all(b"more than three\n");
    finish(body, to);
}

/// Answers with a body and this status, or says that it may not have it.
fn status(out: ResponseOutparam, wanted: &str) {
    let response = OutgoingResponse::new(Fields::new());
    if response.set_status_code(number(wanted) as u16).is_err() {
        return text(out, "refused\n");
    }
    let body = response.body().expect("the body");
    ResponseOutparam::set(out, Ok(response));
    let mut to = body.write().expect("the stream");
    let _ = to.write_all(b"body\n");
    finish(body, to);
}

/// Answers with all headers of an odd kind that it may have, and says which it may not.
fn headers(out: ResponseOutparam) {
    let (headers, mut refused) = (Fields::new(), String::new());
    for (name, value) in [
        ("x-split", &b"a\r\nx-injected: 1"[..]),
        ("x-null", b"a\0b"),
        ("x bad", b"a"),
        ("", b"a"),
        ("connection", b"keep-alive"),
        ("transfer-encoding", b"chunked"),
        ("upgrade", b"websocket"),
        ("x-fine", b"a"),
    ] {
        if headers.append(name, value).is_err() {
            refused.push_str(&format!("{name:?} {:?}\n", String::from_utf8_lossy(value)));
        }
    }
    let (body, mut to) = begin(out, headers);
    to.write_all(refused.as_bytes()).expect("written");
    finish(body, to);
}

/// Says what follows a request's body, and has something follow its own.
fn trailers(request: &IncomingRequest, out: ResponseOutparam) {
    let body = request.consume().expect("a body");
    let mut all = Vec::new();
    let length = body.stream().expect("a stream").read_to_end(&mut all);
    let after = IncomingBody::finish(body);
    after.subscribe().block();
    let after = after.get().expect("they are ready").expect("they are taken once");
    let entries = after.ok().flatten().map(|fields| fields.entries()).unwrap_or_default();
    let said: Vec<_> =
        entries.iter().map(|(name, value)| format!("{name}={}", String::from_utf8_lossy(value))).collect();
    let headers = Fields::new();
    headers.append("trailer", b"x-sum").expect("a header");
    let (body, mut to) = begin(out, headers);
    to.write_all(format!("{} {}\n", length.unwrap_or_default(), said.join(" ")).as_bytes()).expect("written");
    drop(to);
    let own = Fields::new();
    own.append("x-sum", b"42").expect("a header");
    OutgoingBody::finish(body, Some(own)).expect("finished");
}

/// As many sockets as it can have.
fn sockets() -> Vec<TcpSocket> {
    let mut all = Vec::new();
    while let Ok(socket) = create_tcp_socket(IpAddressFamily::Ipv4) {
        all.push(socket);
    }
    all
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
