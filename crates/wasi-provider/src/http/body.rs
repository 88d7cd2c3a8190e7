//! The bodies of requests and answers, each with an end to waiting for it.

use std::collections::VecDeque;
use std::future::poll_fn;
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
            Self::Guest(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Text(text) => text.size_hint(),
            Self::Guest(body) => body.size_hint(),
        }
    }
}

/// Parts of an answer that are sent with its head if they are there: one, and its end.
const EARLY: usize = 2;
/// The turns that a guest has for them.
const TURNS: usize = 6;

/// What a guest writes. A guest that stops half-way leaves a broken connection, so that nobody takes the half for the
/// whole.
pub(super) struct GuestBody {
    body: WasiBody,
    /// What came before it was asked for.
    early: VecDeque<Option<Result<Frame<Bytes>, Error>>>,
    /// What was known of its length at first.
    hint: SizeHint,
    exchange: Arc<Exchange>,
    journal: Arc<Journal>,
    alarm: Alarm,
    helper: Helper,
}

impl GuestBody {
    /// What this guest writes. What it is about to write is there already, and is sent together with the answer's head; a
    /// short answer is whole, so that its length can be told. A guest that takes its time is not waited for.
    pub(super) async fn begin(
        body: WasiBody,
        exchange: Arc<Exchange>,
        journal: Arc<Journal>,
        alarm: Alarm,
        helper: Helper,
    ) -> Self {
        let hint = body.size_hint();
        let mut begun = Self { body, early: VecDeque::new(), hint, exchange, journal, alarm, helper };
        for _ in 0..TURNS {
            match begun.now().await {
                Some(part) => {
                    let goes_on = matches!(part, Some(Ok(_)));
                    begun.early.push_back(part);
                    if !goes_on || begun.early.len() == EARLY {
                        break;
                    }
                }
                None if begun.helper.is_at_work() => {}
                None => break,
            }
        }
        begun
    }

    async fn now(&mut self) -> Option<Option<Result<Frame<Bytes>, Error>>> {
        let next = poll_fn(|context| match self.poll_guest(context) {
            Poll::Ready(part) => Poll::Ready(Some(part)),
            Poll::Pending => Poll::Ready(None),
        });
        next.await
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Polled {
        match self.early.pop_front() {
            Some(part) => Poll::Ready(part),
            None => self.poll_guest(context),
        }
    }

    fn poll_guest(&mut self, context: &mut Context<'_>) -> Polled {
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

    fn is_end_stream(&self) -> bool {
        match self.early.front() {
            Some(part) => part.is_none(),
            None => self.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let is_whole = matches!(self.early.back(), Some(None));
        let data = |frame: &Frame<Bytes>| frame.data_ref().map(Bytes::len);
        let lengths = self.early.iter().flatten().map(|part| part.as_ref().ok().and_then(data));
        match lengths.sum::<Option<usize>>().filter(|_| is_whole) {
            Some(length) => SizeHint::with_exact(length as u64),
            // What the guest has said, or that there are trailers, which only an answer of unknown length has.
            None => self.hint,
        }
    }
}

impl Drop for GuestBody {
    fn drop(&mut self) {
        // What the guest does afterwards has its time from here.
        self.exchange.go_on();
    }
}
