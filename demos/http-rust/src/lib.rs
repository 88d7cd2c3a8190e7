//! Greets whoever asks: the last part of the path, or everybody.

use std::io::Write;

use wasip2::http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};

wasip2::http::proxy::export!(Greeter);

struct Greeter;

impl wasip2::exports::http::incoming_handler::Guest for Greeter {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let target = request.path_with_query().unwrap_or_default();
        let name = target.trim_matches('/');
        let name = if name.is_empty() { "world" } else { name };
        println!("greeting {name}");

        let headers = Fields::new();
        headers.append("content-type", b"text/plain; charset=utf-8").expect("the header is well formed");
        let response = OutgoingResponse::new(headers);
        let body = response.body().expect("the body is taken once");
        ResponseOutparam::set(out, Ok(response));

        let mut stream = body.write().expect("the stream is taken once");
        // A client that has gone away needs no greeting.
        if writeln!(stream, "Hello, {name}, from WebAssembly").is_ok() {
            drop(stream);
            let _ = OutgoingBody::finish(body, None);
        }
    }
}
