//! One instance at work: it answers requests until it has answered as many as it may, has failed, or is not needed.

use std::future::{pending, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::stream::{FuturesUnordered, StreamExt as _};
use parking_lot::Mutex;
use thiserror::Error;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::Instant;
use wasmtime::AsContextMut as _;
use wasmtime::component::Accessor;
use wasmtime_wasi_http::WasiHttpView as _;
use wasmtime_wasi_http::handler::{Prepared, Proxy};

use super::alarm::Alarm;
use super::desk::Desk;
use super::exchange::Exchange;
use super::job::Job;
use super::pool::Inbox;
use super::service::Service;
use super::work::Work;
use crate::end::message;
use crate::guest::ComponentGuest;
use crate::program::Instance;

#[derive(Debug, Error)]
#[error("an instance was ended because it did not go on")]
struct Stuck;

/// One instance's work. Whatever ends it, requests that it has not begun go to another one.
pub(super) struct Worker {
    service: Arc<Service>,
    inbox: Inbox,
    jobs: UnboundedReceiver<Option<Box<Job>>>,
    desk: Arc<Mutex<Desk>>,
}

impl Worker {
    pub(super) fn new(service: Arc<Service>) -> Self {
        let (inbox, jobs) = unbounded_channel();
        Self { service, inbox, jobs, desk: Arc::default() }
    }

    /// Its work, which begins with this request.
    pub(super) fn begin(self, first: Box<Job>) -> Work {
        let (inbox, desk, service) = (self.inbox.clone(), Arc::clone(&self.desk), Arc::clone(&self.service));
        let journal = Arc::clone(&service.journal);
        let working = AssertUnwindSafe(self.run(first)).catch_unwind();
        let turns = service.run.turn(Box::pin(async move {
            if working.await.is_err() {
                journal.trapped(&"the runtime failed");
            }
        }) as Pin<Box<_>>);
        Work::new(turns, inbox, desk)
    }

    /// Makes the instance and works until it ends.
    async fn run(mut self, first: Box<Job>) {
        match self.service.instances.make().await {
            Ok((instance, _place)) => {
                if let Err(error) = self.work(instance, first).await {
                    self.service.journal.trapped(&message(&error));
                }
            }
            Err(error) => {
                let _ = first.answer.send(Err(error.into_error()));
            }
        }
    }

    /// Answers from within the instance, and watches from outside: while guest code computes, nothing within has its
    /// turn.
    async fn work(&mut self, instance: Instance, first: Box<Job>) -> wasmtime::Result<()> {
        let Self { service, inbox, jobs, desk } = self;
        let Instance { mut store, proxy } = instance;
        let within = store
            .run_concurrent(async |accessor| answer_all(accessor, &proxy, first, jobs, desk, service).await);
        let mut within = pin!(within);
        let patience = service.settings.patience;
        let (alarm, mut look) = (Alarm::default(), Instant::now() + patience);
        poll_fn(|context| {
            if let Poll::Ready(done) = within.as_mut().poll(context) {
                return Poll::Ready(done.flatten());
            }
            // It waits for something: for others it is free.
            desk.lock().wait_in_pool(&service.settings, &service.pool, inbox);
            while alarm.poll(look, context).is_ready() {
                let Some(next) = desk.lock().deadline(patience) else {
                    return Poll::Ready(Err(Stuck.into()));
                };
                look = next;
            }
            Poll::Pending
        })
        .await
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.service.pool.remove(&self.inbox);
        self.jobs.close();
        while let Ok(sent) = self.jobs.try_recv() {
            if let Some(job) = sent {
                drop(self.service.dispatch(job));
            }
        }
    }
}

async fn answer_all(
    accessor: &Accessor<ComponentGuest>,
    proxy: &Proxy,
    first: Box<Job>,
    jobs: &mut UnboundedReceiver<Option<Box<Job>>>,
    desk: &Mutex<Desk>,
    service: &Service,
) -> wasmtime::Result<()> {
    let mut calls = FuturesUnordered::new();
    desk.lock().begin(&first);
    calls.push(call(accessor, proxy, first));
    poll_fn(|context| {
        loop {
            match calls.poll_next_unpin(context) {
                Poll::Ready(Some(done)) => {
                    desk.lock().finish(&done?);
                    continue;
                }
                Poll::Ready(None) | Poll::Pending => {}
            }
            if let Some(job) = next(jobs, desk, context) {
                desk.lock().begin(&job);
                calls.push(call(accessor, proxy, job));
                continue;
            }
            if !calls.is_empty() || accessor.poll_no_interesting_tasks(context).is_pending() {
                return Poll::Pending;
            }
            let is_done = desk.lock().tidy(&service.settings);
            return if is_done { Poll::Ready(Ok(())) } else { Poll::Pending };
        }
    })
    .await
}

/// The next request that was sent, if one was; notes when it is the end of them.
fn next(
    jobs: &mut UnboundedReceiver<Option<Box<Job>>>,
    desk: &Mutex<Desk>,
    context: &mut Context<'_>,
) -> Option<Box<Job>> {
    while let Poll::Ready(Some(sent)) = jobs.poll_recv(context) {
        let mut desk = desk.lock();
        desk.leave_pool();
        match sent {
            Some(job) => return Some(job),
            None => desk.leave(),
        }
    }
    None
}

/// One request, from the call of the guest to its return.
async fn call(
    accessor: &Accessor<ComponentGuest>,
    proxy: &Proxy,
    job: Box<Job>,
) -> wasmtime::Result<Arc<Exchange>> {
    let Job { request, answer, exchange } = *job;
    let prepared = accessor.with(|mut access| {
        Prepared::new(access.as_context_mut(), proxy, request, ComponentGuest::http, answer)
    })?;
    prepared.run(accessor, pending()).await?;
    Ok(exchange)
}
