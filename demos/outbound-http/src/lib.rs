//! Asks the URLs that its arguments name, again and again, and says what they answer.

use std::io::Read as _;
use std::time::Duration;

use wasip2::http::outgoing_handler;
use wasip2::http::types::{ErrorCode, Fields, OutgoingRequest, Scheme};

wasip2::cli::command::export!(Caller);

struct Caller;

impl wasip2::exports::cli::run::Guest for Caller {
    fn run() -> Result<(), ()> {
        let urls: Vec<_> = std::env::args().skip(1).collect();
        loop {
            for url in &urls {
                match get(url) {
                    Ok((status, body)) => println!("{url}: {status}, {}", body.trim_end()),
                    Err(error) => println!("{url}: {error:?}"),
                }
            }
            std::thread::sleep(Duration::from_secs(2));
        }
    }
}

fn get(url: &str) -> Result<(u16, String), ErrorCode> {
    let invalid = |()| ErrorCode::HttpRequestUriInvalid;
    let (scheme, rest) = url.split_once("://").ok_or(ErrorCode::HttpRequestUriInvalid)?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };

    let request = OutgoingRequest::new(Fields::new());
    request.set_scheme(Some(&scheme)).map_err(invalid)?;
    request.set_authority(Some(authority)).map_err(invalid)?;
    request.set_path_with_query(Some(path)).map_err(invalid)?;

    let answer = outgoing_handler::handle(request, None)?;
    answer.subscribe().block();
    let response = answer.get().expect("it is ready").expect("it is taken once")?;
    let body = response.consume().expect("the body is taken once");
    let mut text = String::new();
    let read = body.stream().expect("the stream is taken once").read_to_string(&mut text);
    read.map_err(|_| ErrorCode::HttpResponseIncomplete)?;
    Ok((response.status(), text))
}
