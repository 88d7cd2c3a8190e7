//! One instance at work: it answers requests until it has answered as many as it may, has failed, or is not needed.

use std::future::{pending, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt as _};
use parking_lot::Mutex;
use thiserror::Error;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{Instant, sleep_until};
use wasmtime::AsContextMut as _;
use wasmtime::component::Accessor;
use wasmtime_wasi_http::WasiHttpView as _;
use wasmtime_wasi_http::handler::{Prepared, Proxy};

use super::exchange::Exchange;
use super::job::Job;
use super::pool::Inbox;
use super::service::Service;
use crate::end::message;
use crate::guest::ComponentGuest;
use crate::program::Instance;

/// An instance is ended this much later than the client is told that it took too long.
const AFTERWARDS: Duration = Duration::from_millis(250);

#[derive(Debug, Error)]
#[error("an instance was ended because it did not go on")]
struct Stuck;

/// One instance's work. Whatever ends it, requests that it has not begun go to another one.
pub(super) struct Worker {
    service: Arc<Service>,
    inbox: Inbox,
    jobs: UnboundedReceiver<Option<Box<Job>>>,
    desk: Mutex<Desk>,
}

/// What is known of the requests of one instance.
struct Desk {
    at_work: Vec<Arc<Exchange>>,
    /// The last one that was answered: what the guest does afterwards is its.
    last: Option<Arc<Exchange>>,
    began: usize,
    /// How many places in the pool it has.
    waits: usize,
    is_leaving: bool,
}

impl Worker {
    pub(super) fn new(service: Arc<Service>) -> Self {
        let (inbox, jobs) = unbounded_channel();
        let desk = Desk { at_work: Vec::new(), last: None, began: 0, waits: 0, is_leaving: false };
        Self { service, inbox, jobs, desk: Mutex::new(desk) }
    }

    /// Makes the instance and works until it ends.
    pub(super) async fn run(mut self, first: Box<Job>) {
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
        let mut alarm = pin!(sleep_until(Instant::now() + service.settings.patience));
        poll_fn(|context| {
            if let Poll::Ready(done) = within.as_mut().poll(context) {
                return Poll::Ready(done.flatten());
            }
            // It waits for something: for others it is free.
            desk.lock().wait_in_pool(service, inbox);
            while alarm.as_mut().poll(context).is_ready() {
                let Some(next) = desk.lock().deadline(service.settings.patience) else {
                    return Poll::Ready(Err(Stuck.into()));
                };
                alarm.as_mut().reset(next);
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
                self.service.dispatch(job);
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
            let mut desk = desk.lock();
            desk.last = None;
            return if desk.is_done(service) { Poll::Ready(Ok(())) } else { Poll::Pending };
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
        desk.waits -= 1;
        match sent {
            Some(job) => return Some(job),
            None => desk.is_leaving = true,
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

impl Desk {
    fn begin(&mut self, job: &Job) {
        self.began += 1;
        self.at_work.push(Arc::clone(&job.exchange));
    }

    fn finish(&mut self, done: &Arc<Exchange>) {
        self.at_work.retain(|exchange| !Arc::ptr_eq(exchange, done));
        self.last = Some(Arc::clone(done));
    }

    /// Whether it takes no more requests.
    fn is_done(&self, service: &Service) -> bool {
        let is_late = |exchange: &Arc<Exchange>| exchange.deadline() <= Instant::now();
        self.is_leaving
            || self.began >= service.settings.instance_requests
            || self.at_work.iter().any(is_late)
    }

    /// Takes a place in the pool when one more request could be taken.
    fn wait_in_pool(&mut self, service: &Service, inbox: &Inbox) {
        let room = self.at_work.len() + self.waits < service.settings.instance_concurrency
            && self.began + self.waits < service.settings.instance_requests;
        // One place at a time: the next one after the next request waits for something too.
        if room && self.waits == 0 && !self.is_done(service) {
            self.waits = 1;
            service.pool.add(inbox.clone());
        }
    }

    /// When to look again whether the requests go on; `None` when none of them does.
    fn deadline(&self, patience: Duration) -> Option<Instant> {
        let now = Instant::now();
        let mut exchanges = self.at_work.iter().chain(&self.last).peekable();
        if exchanges.peek().is_none() {
            return Some(now + patience);
        }
        exchanges.map(|exchange| exchange.deadline() + AFTERWARDS).filter(|deadline| *deadline > now).min()
    }
}
