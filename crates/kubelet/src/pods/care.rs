use std::net::IpAddr;
use std::sync::Arc;

use coracle_lifecycle::{Event, Handler, Hook, ProbeKind, Schedule, Wish};
use k8s_openapi::api::core::v1::{Container, LifecycleHandler};
use tracing::info;

use super::probing::Probing;
use super::worker::{Message, Work, Worker, instant};

/// What a worker does for containers that run: their probes and hooks.
impl Worker {
    /// Probes a run until that ends or the probe is given up.
    pub(super) fn probe(&mut self, container: &str, attempt: u32, kind: ProbeKind) {
        let Some(probing) = self.probing(container, attempt, kind) else { return };
        let (context, outbox) = (Arc::clone(&self.context), self.outbox.clone());
        let prober = probing.trial.is_by_network().then(|| self.context.prober.runtime());
        let probing = async move { probing.run(&context, &outbox).await };
        let task = match prober {
            Some(prober) => self.tasks.spawn_on(probing, prober),
            None => self.tasks.spawn(probing),
        };
        self.works.insert(Work::Probe(container.to_owned(), kind), task);
    }

    fn probing(&self, name: &str, attempt: u32, kind: ProbeKind) -> Option<Probing> {
        let declared = self.observed.pod.container(name)?;
        let probe = kind.of(&declared)?;
        let record = self.observed.container(name)?;
        let schedule = Schedule::of(probe);
        let due = record.state.running_since()?.saturating_add(schedule.initial_delay).ok()?;
        Some(Probing {
            container: name.to_owned(),
            attempt,
            kind,
            schedule,
            trial: Handler::of_probe(probe, &declared, self.address()).into(),
            handle: self.handles.get(name).cloned(),
            due: instant(due),
            follows: kind != ProbeKind::Startup && declared.startup_probe.is_some(),
            ready: record.course.ready,
        })
    }

    /// Runs a hook, in place of one that still runs.
    pub(super) fn run_hook(&mut self, container: String, attempt: u32, hook: Hook) {
        let work = Work::Hook(container.clone());
        self.give_up(&work);
        let pod = Arc::clone(&self.observed.pod);
        let declared = pod.container(&container);
        let handler = declared.as_ref().and_then(|declared| {
            let hook = declared_hook(declared, hook)?;
            Some(Handler::of_hook(hook, declared, self.address()))
        });
        let Some(handler) = handler else { return };
        let (handle, outbox) = (self.handles.get(&container).cloned(), self.outbox.clone());
        let pod = self.identity.clone();
        let task = self.spawn(move |context| async move {
            let done = match handler {
                Ok(handler) => context.handlers.hook(&handler, &handle).await,
                Err(error) => Err(error.into()),
            };
            if let Ok(Some(server)) = &done {
                let _ = outbox.send(Message::Event(Event::HookFellBack { host: server.to_string() }));
            }
            if let Err(error) = &done {
                info!(pod = %pod.name, namespace = %pod.namespace, container, ?hook, %error, "a hook failed");
            }
            Event::HookEnded { container, attempt, hook, succeeded: done.is_ok() }
        });
        self.works.insert(work, task);
    }

    /// The pod's address, once it has one.
    fn address(&self) -> Option<IpAddr> {
        self.statuses.borrow().pod_ip.as_ref()?.parse().ok()
    }
}

fn declared_hook(declared: &Container, hook: Hook) -> Option<&LifecycleHandler> {
    let hooks = declared.lifecycle.as_ref()?;
    match hook {
        Hook::PostStart => hooks.post_start.as_ref(),
        Hook::PreStop => hooks.pre_stop.as_ref(),
    }
}
