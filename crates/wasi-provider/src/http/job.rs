//! A request on its way to an instance.

use std::sync::Arc;

use futures::channel::oneshot;
use wasmtime_wasi_http::handler::{Request, Response};

use super::exchange::Exchange;

/// A request, and where its answer goes.
pub(super) struct Job {
    pub(super) request: Request,
    pub(super) answer: oneshot::Sender<wasmtime::Result<Response>>,
    pub(super) exchange: Arc<Exchange>,
}
