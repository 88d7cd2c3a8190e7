//! The streams of a command that somebody outside reads and writes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use coracle_lifecycle::{Sink, Source};
use futures::AsyncWriteExt as _;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdinStream, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

/// What is written and not read yet, in bytes: then the guest waits.
const CAPACITY: usize = 64 << 10;

/// A guest's output on its way to a reader.
#[derive(Clone, Default)]
pub(crate) struct Pipe(Arc<Mutex<Held>>);

#[derive(Default)]
struct Held {
    bytes: Vec<u8>,
    /// Nobody writes any more.
    is_closed: bool,
    /// Nobody reads any more.
    is_unread: bool,
    reader: Option<Waker>,
    writers: Vec<Waker>,
}

impl Held {
    fn room(&self) -> usize {
        CAPACITY.saturating_sub(self.bytes.len())
    }

    fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.reader.take().into_iter().for_each(Waker::wake);
    }
}

impl Pipe {
    /// The guest's end of it.
    pub(crate) fn output(&self) -> Output {
        Output(self.clone())
    }

    /// Adds a line of the runtime's own.
    pub(crate) fn say(&self, line: &str) {
        self.0.lock().put(format!("{line}\n").as_bytes());
    }

    /// Nothing more is written.
    pub(crate) fn close(&self) {
        let mut held = self.0.lock();
        held.is_closed = true;
        held.reader.take().into_iter().for_each(Waker::wake);
    }

    /// Passes on what is written until the pipe is closed, or nobody takes it any more.
    pub(crate) async fn drain(&self, sink: Option<Sink>) {
        let mut sink = sink.unwrap_or_else(|| Box::new(futures::io::sink()));
        while let Some(bytes) = std::future::poll_fn(|context| self.poll_taken(context)).await {
            let written = sink.write_all(&bytes).await;
            if written.is_err() || sink.flush().await.is_err() {
                break;
            }
        }
        // A reader that went away is told so itself.
        let _ = sink.close().await;
        let mut held = self.0.lock();
        held.is_unread = true;
        held.writers.drain(..).for_each(Waker::wake);
    }

    fn poll_taken(&self, context: &Context<'_>) -> Poll<Option<Vec<u8>>> {
        let mut held = self.0.lock();
        if !held.bytes.is_empty() {
            held.writers.drain(..).for_each(Waker::wake);
            return Poll::Ready(Some(std::mem::take(&mut held.bytes)));
        }
        if held.is_closed {
            return Poll::Ready(None);
        }
        held.reader = Some(context.waker().clone());
        Poll::Pending
    }
}

/// A guest's standard output or error, whatever the version of WASI.
#[derive(Clone)]
pub(crate) struct Output(Pipe);

impl Output {
    /// The room there is, once there is any.
    fn poll_room(&self, context: &Context<'_>) -> Poll<StreamResult<usize>> {
        let mut held = self.0.0.lock();
        match held.room() {
            _ if held.is_unread => Poll::Ready(Err(StreamError::Closed)),
            0 => {
                held.writers.push(context.waker().clone());
                Poll::Pending
            }
            room => Poll::Ready(Ok(room)),
        }
    }
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Output {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {
        // An error is for the write that follows.
        let _ = std::future::poll_fn(|context| self.poll_room(context)).await;
    }
}

impl OutputStream for Output {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let mut held = self.0.0.lock();
        if held.is_unread {
            return Err(StreamError::Closed);
        }
        // Several streams may have been given the same room.
        if bytes.len() > CAPACITY || held.bytes.len() > 2 * CAPACITY {
            return Err(StreamError::Trap(wasmtime::format_err!("more was written than there is room for")));
        }
        held.put(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        let held = self.0.0.lock();
        if held.is_unread { Err(StreamError::Closed) } else { Ok(held.room()) }
    }
}

impl AsyncWrite for Output {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Poll::Ready(room) = self.poll_room(context) else { return Poll::Pending };
        let Ok(room) = room else { return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())) };
        let count = room.min(bytes.len());
        self.0.0.lock().put(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A guest's standard input; all streams made from it read the same bytes.
#[derive(Clone)]
pub(crate) struct Input(Arc<Mutex<Source>>);

impl Input {
    pub(crate) fn new(source: Source) -> Self {
        Self(Arc::new(Mutex::new(source)))
    }
}

impl IsTerminal for Input {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdinStream for Input {
    fn async_stream(&self) -> Box<dyn AsyncRead + Send + Sync> {
        Box::new(self.clone())
    }
}

impl AsyncRead for Input {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut source = self.0.lock();
        let read =
            futures::AsyncRead::poll_read(Pin::new(&mut *source), context, buffer.initialize_unfilled());
        read.map_ok(|count| buffer.advance(count))
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn a_writer_waits_for_its_reader() {
        let pipe = Pipe::default();
        let mut output = pipe.output();
        assert_eq!(output.check_write().unwrap(), CAPACITY);
        output.write(Bytes::from(vec![7; CAPACITY])).unwrap();
        assert_eq!(output.check_write().unwrap(), 0);
        assert!(output.ready().now_or_never().is_none());
        let context = Context::from_waker(Waker::noop());
        let Poll::Ready(Some(taken)) = pipe.poll_taken(&context) else { panic!() };
        assert_eq!(taken.len(), CAPACITY);
        assert!(output.ready().now_or_never().is_some());
        pipe.close();
        assert_eq!(pipe.poll_taken(&context), Poll::Ready(None));
    }

    #[test]
    fn a_writer_whose_reader_is_gone_is_told() {
        let pipe = Pipe::default();
        let mut output = pipe.output();
        pipe.close();
        pipe.drain(None).now_or_never().unwrap();
        assert!(matches!(output.check_write(), Err(StreamError::Closed)));
        assert!(matches!(output.write(Bytes::from_static(b"x")), Err(StreamError::Closed)));
    }

    #[test]
    fn nobody_writes_without_end() {
        let pipe = Pipe::default();
        let mut output = pipe.output();
        let much = || Bytes::from(vec![7; CAPACITY]);
        assert!(matches!(output.write(Bytes::from(vec![7; CAPACITY + 1])), Err(StreamError::Trap(_))));
        let written = std::iter::repeat_with(|| output.write(much())).take_while(Result::is_ok).count();
        assert!(written <= 4, "{written}");
    }
}
