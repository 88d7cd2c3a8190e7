//! What answers a container's requests.

use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Poll, ready};

use futures::FutureExt as _;
use futures::channel::oneshot;
use http::header::{CONNECTION, HOST, HeaderValue};
use http::uri::{Authority, Scheme};
use http::{Request, Response, StatusCode, Uri, Version};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wasmtime_wasi_http::WasiBody;

use super::alarm::Alarm;
use super::body::{Answer, GuestBody, RequestBody};
use super::exchange::{Exchange, Places};
use super::instances::{Instances, MakeError};
use super::job::Job;
use super::journal::Journal;
use super::pool::Pool;
use super::refusal::{self, Refusal};
use super::settings::Settings;
use super::work::{Helper, Shift};
use super::worker::Worker;
use crate::container::Run;
use crate::tasks::Tasks;

/// The instances of a container that answer, or will, and the requests on their way to them.
pub(super) struct Service {
    pub(super) settings: Settings,
    pub(super) instances: Instances,
    pub(super) journal: Arc<Journal>,
    pub(super) run: Arc<Run>,
    /// Cancelled when it is to end.
    pub(super) drain: CancellationToken,
    pub(super) pool: Pool,
    pub(super) tasks: Tasks,
    pub(super) requests: Places,
}

impl Service {
    /// Gives a request to an instance: one that waits for it, or a fresh one. What answers it is done in the turns of whoever
    /// has what is returned, and after that in a task's.
    pub(super) fn dispatch(self: &Arc<Self>, job: Box<Job>) -> Helper {
        let work = match self.pool.offer(job) {
            Ok(work) => work,
            Err(job) => Some(Worker::new(Arc::clone(self)).begin(job)),
        };
        let Some(work) = work else { return Helper::default() };
        let shift = Shift::new(Arc::clone(self), work);
        if self.settings.shares_instances() {
            // No request waits for the client of another.
            self.tasks.spawn(shift);
            return Helper::default();
        }
        Helper::with(shift)
    }

    /// Answers a request of a connection with this alarm, whatever comes of it.
    pub(super) async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        alarm: Alarm,
    ) -> Response<Answer> {
        let mut response = match self.try_answer(request, alarm).await {
            Ok(response) => response,
            Err(refusal) => {
                self.journal.refused();
                refusal.response()
            }
        };
        if self.drain.is_cancelled() {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    async fn try_answer(
        self: &Arc<Self>,
        mut request: Request<Incoming>,
        alarm: Alarm,
    ) -> Result<Response<Answer>, Refusal> {
        let place = self.requests.take().ok_or(refusal::BUSY)?;
        *request.uri_mut() = absolute(&request, self.run.spec().network.addresses.first())?;
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let exchange = Arc::new(Exchange::begin(method, uri, self.settings.patience, place));
        let limit = self.settings.body;
        if request.body().size_hint().lower() > limit {
            return Err(Refusal::of_fault(StatusCode::PAYLOAD_TOO_LARGE));
        }
        let request = request.map(|body| RequestBody::new(body, Arc::clone(&exchange), limit).boxed_unsync());
        let (answer, answered) = oneshot::channel();
        let mut helper = self.dispatch(Box::new(Job { request, answer, exchange: Arc::clone(&exchange) }));
        let response = self.awaited(&exchange, answered, &alarm, &mut helper).await?;
        self.journal.answered();
        let journal = Arc::clone(&self.journal);
        let (head, body) = response.into_parts();
        let body = GuestBody::begin(body, exchange, journal, alarm, helper).await;
        Ok(Response::from_parts(head, Answer::Guest(body)))
    }

    /// The guest's answer, or why there is none.
    async fn awaited(
        &self,
        exchange: &Exchange,
        mut answered: oneshot::Receiver<wasmtime::Result<Response<WasiBody>>>,
        alarm: &Alarm,
        helper: &mut Helper,
    ) -> Result<Response<WasiBody>, Refusal> {
        let answer = poll_fn(|context| {
            helper.go_on(context);
            if let Poll::Ready(answer) = answered.poll_unpin(context) {
                return Poll::Ready(Some(answer));
            }
            while exchange.deadline() > Instant::now() {
                ready!(alarm.poll(exchange.deadline(), context));
            }
            Poll::Ready(None)
        });
        let Some(answer) = answer.await else {
            let refusal = exchange.fault().map_or(refusal::LATE, Refusal::of_fault);
            self.journal.failed(exchange, &refusal.text);
            return Err(refusal);
        };
        match (answer, exchange.fault()) {
            (_, Some(fault)) => Err(Refusal::of_fault(fault)),
            // It would be no end of the exchange: only the node itself may say that there is more to come.
            (Ok(Ok(response)), None) if response.status().is_informational() => {
                let status = response.status().as_u16();
                self.journal.failed(exchange, &format_args!("the status {status} is no answer"));
                Err(refusal::FAILED)
            }
            (Ok(Ok(response)), None) => Ok(response),
            (Ok(Err(error)), None) => {
                self.journal.failed(exchange, &error.root_cause());
                let no_room = matches!(error.downcast_ref(), Some(MakeError::NoRoom(_)));
                Err(if no_room { refusal::EXHAUSTED } else { refusal::FAILED })
            }
            (Err(oneshot::Canceled), None) => {
                self.journal.failed(exchange, &"the instance ended without an answer");
                Err(refusal::FAILED)
            }
        }
    }
}

/// The request's URI with all that guests are told of it: scheme and authority.
fn absolute(request: &Request<Incoming>, own: Option<&IpAddr>) -> Result<Uri, Refusal> {
    let mut parts = request.uri().clone().into_parts();
    parts.scheme = Some(Scheme::HTTP);
    if parts.authority.is_none() {
        let mut hosts = request.headers().get_all(HOST).iter();
        let authority = match (hosts.next(), hosts.next()) {
            (Some(host), None) => Authority::try_from(host.as_bytes()).ok(),
            // Before 1.1 there was no such header.
            (None, _) if request.version() < Version::HTTP_11 => {
                own.and_then(|own| Authority::try_from(SocketAddr::new(*own, 80).to_string()).ok())
            }
            _ => None,
        };
        parts.authority = Some(authority.ok_or(refusal::NO_HOST)?);
    }
    Uri::from_parts(parts).map_err(|_| refusal::NO_HOST)
}
