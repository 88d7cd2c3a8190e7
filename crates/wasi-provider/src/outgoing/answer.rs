//! The body of an answer to a guest.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};
use wasmtime_wasi_http::{Error, WasiBody};

use super::Permit;

/// What the other side sends, with an end to waiting for it. The request is under way until this is dropped.
pub(super) struct AnswerBody {
    incoming: Incoming,
    patience: Duration,
    alarm: Option<Pin<Box<Sleep>>>,
    _permit: Permit,
}

impl AnswerBody {
    pub(super) fn boxed(incoming: Incoming, patience: Duration, permit: Permit) -> WasiBody {
        Self { incoming, patience, alarm: None, _permit: permit }.boxed_unsync()
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Poll::Ready(polled) = Pin::new(&mut self.incoming).poll_frame(context) {
            self.alarm = None;
            return Poll::Ready(polled.map(|frame| frame.map_err(Error::Hyper)));
        }
        let patience = self.patience;
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + patience)));
        ready!(alarm.as_mut().poll(context));
        Poll::Ready(Some(Err(Error::ConnectionReadTimeout)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
