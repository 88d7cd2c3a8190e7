//! Answers that are not the guest's.

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use http_body_util::Full;

use super::body::Answer;

/// Why a request is answered by the node itself. The status says whose fault it is, the text what happened; nothing of
/// the guest's inside is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) text: &'static str,
}

/// As many requests as the container may have are being answered.
pub(super) const BUSY: Refusal =
    Refusal { status: StatusCode::SERVICE_UNAVAILABLE, text: "too many requests are being answered" };
/// The node has no room for one more instance.
pub(super) const EXHAUSTED: Refusal =
    Refusal { status: StatusCode::SERVICE_UNAVAILABLE, text: "the node has no room for one more instance" };
/// The guest trapped, or gave no answer.
pub(super) const FAILED: Refusal =
    Refusal { status: StatusCode::INTERNAL_SERVER_ERROR, text: "the service failed" };
/// The guest took too long.
pub(super) const LATE: Refusal =
    Refusal { status: StatusCode::GATEWAY_TIMEOUT, text: "the service did not answer in time" };
/// The request does not say whom it is for.
pub(super) const NO_HOST: Refusal =
    Refusal { status: StatusCode::BAD_REQUEST, text: "the header `host` is missing or malformed" };

impl Refusal {
    /// What a client is told that did this wrong.
    pub(super) fn of_fault(status: StatusCode) -> Self {
        let text = match status {
            StatusCode::PAYLOAD_TOO_LARGE => "the request's body is too large",
            StatusCode::REQUEST_TIMEOUT => "the request took too long to arrive",
            StatusCode::BAD_REQUEST => "the request's body is malformed, or broke off",
            _ => "the request cannot be answered",
        };
        Self { status, text }
    }

    pub(super) fn response(self) -> Response<Answer> {
        let text = Bytes::from(format!("{}\n", self.text));
        let mut response = Response::new(Answer::Text(Full::new(text)));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if self.status.is_client_error() {
            // The rest of such a request is not waited for.
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// The same as bytes, where there is no connection that could say it, or none any more.
    pub(super) fn bytes(self) -> String {
        let Self { status, text } = self;
        let length = text.len() + 1;
        format!(
            "HTTP/1.1 {status}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {length}\r\n\
             connection: close\r\n\r\n{text}\n"
        )
    }
}
