//! A connection whose client has to take what it is sent.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

use super::pace::Pace;

/// A connection that fails with [`io::ErrorKind::TimedOut`] when its client takes too little of what it is sent. Only
/// the time counts in which something waits to be taken.
pub(super) struct Patient {
    stream: TcpStream,
    pace: Pace,
    /// Since when nothing waits to be taken.
    resting: Option<Instant>,
    alarm: Pin<Box<Sleep>>,
}

impl Patient {
    pub(super) fn new(stream: TcpStream, pause: Duration) -> Self {
        let now = Instant::now();
        let pace = Pace::new(pause, now);
        let alarm = Box::pin(sleep_until(pace.deadline()));
        Self { stream, pace, resting: Some(now), alarm }
    }

    pub(super) fn into_inner(self) -> TcpStream {
        self.stream
    }

    fn judge(
        &mut self,
        written: Poll<io::Result<usize>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = written {
            if self.resting.is_none() {
                let now = Instant::now();
                self.pace.add(written.as_ref().map_or(0, |bytes| *bytes), now);
                self.resting = Some(now);
            }
            return Poll::Ready(written);
        }
        if let Some(since) = self.resting.take() {
            self.pace.pass(since.elapsed());
            self.alarm.as_mut().reset(self.pace.deadline());
        }
        ready!(self.alarm.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.judge(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
