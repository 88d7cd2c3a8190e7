//! The bodies of requests and answers, each with an end to waiting for it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::time::Instant;
use wasmtime_wasi_http::{Error, WasiBody};

use super::alarm::Alarm;
use super::exchange::Exchange;
use super::journal::Journal;
use super::pace::Pace;
use super::work::Helper;

type Polled = Poll<Option<Result<Frame<Bytes>, Error>>>;

/// A request's body as the guest reads it: no longer than it may be, from a client that is not too slow. What is wrong
/// with it is the client's fault, and told as such.
pub(super) struct RequestBody {
    incoming: Incoming,
    exchange: Arc<Exchange>,
    left: u64,
    pace: Pace,
    alarm: Alarm,
    /// Since when the client is waited for.
    waiting: Option<Instant>,
    /// Since when the guest is.
    resting: Instant,
}

impl RequestBody {
    pub(super) fn new(incoming: Incoming, exchange: Arc<Exchange>, limit: u64) -> Self {
        let now = Instant::now();
        let (pace, alarm) = (Pace::new(exchange.patience(), now), Alarm::default());
        Self { incoming, exchange, left: limit, pace, alarm, waiting: None, resting: now }
    }

    fn take(&mut self, data: &Bytes) -> Result<(), Error> {
        let Some(left) = self.left.checked_sub(data.len() as u64) else {
            self.exchange.blame(StatusCode::PAYLOAD_TOO_LARGE);
            return Err(Error::HttpRequestBodySize(None));
        };
        self.left = left;
        self.pace.add(data.len(), Instant::now());
        self.exchange.go_on();
        Ok(())
    }

    fn wait(&mut self, context: &mut Context<'_>) -> Polled {
        if self.waiting.is_none() {
            let now = Instant::now();
            self.pace.pass(now - self.resting);
            self.waiting = Some(now);
        }
        ready!(self.alarm.poll(self.pace.deadline(), context));
        self.exchange.blame(StatusCode::REQUEST_TIMEOUT);
        Poll::Ready(Some(Err(Error::ConnectionReadTimeout)))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Polled {
        let Poll::Ready(polled) = Pin::new(&mut self.incoming).poll_frame(context) else {
            return self.wait(context);
        };
        self.waiting = None;
        self.resting = Instant::now();
        let frame = match polled {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                self.exchange.blame(StatusCode::BAD_REQUEST);
                return Poll::Ready(Some(Err(Error::Hyper(error))));
            }
            None => return Poll::Ready(None),
        };
        if let Some(data) = frame.data_ref() {
            self.take(data)?;
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// The body of an answer.
pub(super) enum Answer {
    /// The node's own words.
    Text(Full<Bytes>),
    /// The guest's.
    Guest(GuestBody),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Polled {
        match &mut *self {
            Self::Text(text) => Pin::new(text).poll_frame(context).map_err(|never| match never {}),
            Self::Guest(body) => body.poll(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Text(text) => text.is_end_stream(),
            Self::Guest(body) => body.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Text(text) => text.size_hint(),
            Self::Guest(body) => body.body.size_hint(),
        }
    }
}

/// What a guest writes. A guest that stops half-way leaves a broken connection, so that nobody takes the half for the
/// whole.
pub(super) struct GuestBody {
    body: WasiBody,
    exchange: Arc<Exchange>,
    journal: Arc<Journal>,
    alarm: Alarm,
    helper: Helper,
}

impl GuestBody {
    pub(super) fn new(
        body: WasiBody,
        exchange: Arc<Exchange>,
        journal: Arc<Journal>,
        helper: Helper,
    ) -> Self {
        Self { body, exchange, journal, alarm: Alarm::default(), helper }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Polled {
        self.helper.go_on(context);
        let polled = match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(polled) => polled,
            Poll::Pending => {
                while self.exchange.deadline() > Instant::now() {
                    ready!(self.alarm.poll(self.exchange.deadline(), context));
                }
                Some(Err(Error::HttpResponseTimeout))
            }
        };
        match &polled {
            Some(Ok(_)) => self.exchange.go_on(),
            Some(Err(error)) => self.journal.broke_off(&self.exchange, error),
            // Most have little left to do.
            None => self.helper.go_on(context),
        }
        Poll::Ready(polled)
    }
}

impl Drop for GuestBody {
    fn drop(&mut self) {
        // What the guest does afterwards has its time from here.
        self.exchange.go_on();
    }
}
