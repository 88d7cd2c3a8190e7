//! How a guest that serves nobody hears that it is to end: WASI has no signals, but an input can come to its end.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use wasmtime_wasi::cli::{IsTerminal, StdinStream};

use crate::http::Malformed;

/// By this annotation a pod says how its programs are told that they are to end.
const STOP: &str = "coracle.dev/stop";

/// Whether a pod's programs are told by the end of their standard input.
///
/// # Errors
/// The annotation says something else.
pub(crate) fn by_input(annotations: &BTreeMap<String, String>) -> Result<bool, Malformed> {
    match annotations.get(STOP).map(String::as_str) {
        None => Ok(false),
        Some("stdin") => Ok(true),
        Some(_) => Err(Malformed { annotation: STOP.to_owned(), why: "is not \"stdin\"".to_owned() }),
    }
}

/// A standard input without bytes that ends when this is cancelled.
#[derive(Clone)]
pub(crate) struct Silence(pub(crate) CancellationToken);

impl IsTerminal for Silence {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdinStream for Silence {
    fn async_stream(&self) -> Box<dyn AsyncRead + Send + Sync> {
        Box::new(Silent(Box::pin(self.0.clone().cancelled_owned())))
    }
}

struct Silent(Pin<Box<WaitForCancellationFutureOwned>>);

impl AsyncRead for Silent {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.as_mut().poll(context).map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn one_way_of_hearing_is_known() {
        let of = |value: &str| by_input(&BTreeMap::from([(STOP.to_owned(), value.to_owned())]));
        assert_eq!((by_input(&BTreeMap::new()), of("stdin")), (Ok(false), Ok(true)));
        let error = of("SIGTERM").unwrap_err().to_string();
        assert_eq!(error, "metadata.annotations[coracle.dev/stop]: is not \"stdin\"");
    }

    #[test]
    fn an_input_without_bytes_ends_when_it_is_told_to() {
        let token = CancellationToken::new();
        let mut stream = Pin::from(Silence(token.clone()).async_stream());
        let mut read = || {
            let mut buffer = [0; 8];
            let mut buffer = ReadBuf::new(&mut buffer);
            let read = poll_fn(|context| stream.as_mut().poll_read(context, &mut buffer)).now_or_never();
            read.map(|read| read.map(|()| buffer.filled().len()).unwrap())
        };
        assert_eq!(read(), None);
        token.cancel();
        assert_eq!((read(), read()), (Some(0), Some(0)));
    }
}
