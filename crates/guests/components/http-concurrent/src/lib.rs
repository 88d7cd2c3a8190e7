//! A server of wasip3, whose instances can answer several requests at a time.

mod network;

use std::sync::atomic::{AtomicU32, Ordering};

use wasip3::clocks::monotonic_clock::wait_for;
use wasip3::http::client;
use wasip3::http::types::{ErrorCode, Fields, Request, Response, Scheme};
use wasip3::{wit_bindgen, wit_future, wit_stream};

wasip3::http::service::export!(Server);

struct Server;

/// The requests that this instance has had, and those it is at.
static COUNT: AtomicU32 = AtomicU32::new(0);
static AT_WORK: AtomicU32 = AtomicU32::new(0);

impl wasip3::exports::http::handler::Guest for Server {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let count = COUNT.fetch_add(1, Ordering::Relaxed) + 1;
        let target = request.get_path_with_query().unwrap_or_default();
        let (path, argument) = target.split_once('?').unwrap_or((&target, ""));
        match path {
            "/count" => Ok(text(format!("{count}\n"))),
            "/authority" => Ok(text(request.get_authority().unwrap_or_default())),
            "/together" => {
                AT_WORK.fetch_add(1, Ordering::Relaxed);
                wait_for(milliseconds(argument)).await;
                Ok(text(format!("{}\n", AT_WORK.load(Ordering::Relaxed))))
            }
            "/sleep" => {
                wait_for(milliseconds(argument)).await;
                Ok(text("slept\n".to_owned()))
            }
            "/afterwards" => {
                let wait = milliseconds(argument);
                wit_bindgen::spawn_local(async move {
                    wait_for(wait).await;
                    println!("done afterwards");
                });
                Ok(text("answered\n".to_owned()))
            }
            "/echo" => Ok(echo(request)),
            "/fetch" => Ok(text(fetch(argument).await.unwrap_or_else(|error| format!("{error:?}\n")))),
            "/tcp" => {
                Ok(text(network::ask_tcp(argument).await.unwrap_or_else(|error| format!("{error:?}\n"))))
            }
            "/udp" => {
                Ok(text(network::ask_udp(argument).await.unwrap_or_else(|error| format!("{error:?}\n"))))
            }
            "/listen" => Ok(text(network::listen(argument).unwrap_or_else(|error| format!("{error:?}\n")))),
            "/resolve" => Ok(text(network::resolve(argument).await)),
            "/half" => Ok(half()),
            "/long" => Ok(long()),
            "/status" => Ok(status(argument)),
            "/headers" => Ok(headers()),
            "/trailers" => Ok(trailers(request).await),
            "/sockets" => Ok(text(format!("{}\n", network::sockets().len()))),
            "/leak" => leak(),
            "/never" => {
                wait_for(milliseconds("10000000")).await;
                Err(ErrorCode::InternalError(None))
            }
            "/spin" => loop {
                std::hint::black_box(());
            },
            "/trap" => std::process::abort(),
            "/error" => Err(ErrorCode::InternalError(None)),
            _ => Ok(text("hello\n".to_owned())),
        }
    }
}

/// In nanoseconds.
fn milliseconds(argument: &str) -> u64 {
    argument.parse::<u64>().expect("a number") * 1_000_000
}

fn text(text: String) -> Response {
    with_headers(Fields::new(), text)
}

/// What a `GET` of this URL is answered.
async fn fetch(url: &str) -> Result<String, ErrorCode> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let (authority, target) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (_, trailers) = wit_future::new(|| Ok(None));
    let (request, _) = Request::new(Fields::new(), None, trailers, None);
    let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
    request.set_scheme(Some(&scheme)).expect("a scheme");
    request.set_authority(Some(authority)).map_err(|()| ErrorCode::HttpRequestUriInvalid)?;
    request.set_path_with_query(Some(target)).map_err(|()| ErrorCode::HttpRequestUriInvalid)?;
    let response = client::send(request).await?;
    let status = response.get_status_code();
    let (_, read) = wit_future::new(|| Ok(()));
    let (body, trailers) = Response::consume_body(response, read);
    let text = String::from_utf8_lossy(&body.collect().await).into_owned();
    trailers.await?;
    Ok(format!("{status} {text}"))
}

fn echo(request: Request) -> Response {
    let (_, read) = wit_future::new(|| Ok(()));
    let (body, trailers) = Request::consume_body(request, read);
    Response::new(Fields::new(), Some(body), trailers).0
}

/// Promises three bytes and writes more.
fn long() -> Response {
    let headers = Fields::new();
    headers.append("content-length", b"3").expect("a header");
    let (mut to, body) = wit_stream::new();
    let (_, trailers) = wit_future::new(|| Ok(None));
    wit_bindgen::spawn_local(async move {
        to.write_all(b"more than three\n".to_vec()).await;
    });
    Response::new(headers, Some(body), trailers).0
}

/// Answers with a body and this status, or says that it may not have it.
fn status(wanted: &str) -> Response {
    let response = text("body\n".to_owned());
    match response.set_status_code(wanted.parse().expect("a number")) {
        Ok(()) => response,
        Err(()) => text("refused\n".to_owned()),
    }
}

/// Answers with all headers of an odd kind that it may have, and says which it may not.
fn headers() -> Response {
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
    with_headers(headers, refused)
}

fn with_headers(headers: Fields, text: String) -> Response {
    let (mut to, body) = wit_stream::new();
    let (_, trailers) = wit_future::new(|| Ok(None));
    wit_bindgen::spawn_local(async move {
        to.write_all(text.into_bytes()).await;
    });
    Response::new(headers, Some(body), trailers).0
}

/// Says what follows a request's body, and has something follow its own.
async fn trailers(request: Request) -> Response {
    let (_, read) = wit_future::new(|| Ok(()));
    let (body, after) = Request::consume_body(request, read);
    let length = body.collect().await.len();
    let entries = after.await.ok().flatten().map(|fields| fields.copy_all()).unwrap_or_default();
    let said: Vec<_> =
        entries.iter().map(|(name, value)| format!("{name}={}", String::from_utf8_lossy(value))).collect();
    let headers = Fields::new();
    headers.append("trailer", b"x-sum").expect("a header");
    let own = Fields::new();
    own.append("x-sum", b"42").expect("a header");
    let (mut to, body) = wit_stream::new();
    let (told, trailers) = wit_future::new(|| Ok(None));
    wit_bindgen::spawn_local(async move {
        to.write_all(format!("{length} {}\n", said.join(" ")).into_bytes()).await;
        drop(to);
        let _ = told.write(Ok(Some(own))).await;
    });
    Response::new(headers, Some(body), trailers).0
}

/// Makes streams and never gives one back.
fn leak() -> ! {
    loop {
        std::mem::forget(wit_stream::new::<u8>());
    }
}

/// Promises ten bytes, writes five, and then nothing.
fn half() -> Response {
    let headers = Fields::new();
    headers.append("content-length", b"10").expect("a header");
    let (mut to, body) = wit_stream::new();
    let (_, trailers) = wit_future::new(|| Ok(None));
    wit_bindgen::spawn_local(async move {
        to.write_all(b"half\n".to_vec()).await;
        wait_for(milliseconds("10000000")).await;
        drop(to);
    });
    Response::new(headers, Some(body), trailers).0
}
