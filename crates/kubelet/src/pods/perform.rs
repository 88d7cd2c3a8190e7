use std::io;
use std::sync::Arc;
use std::time::Duration;

use coracle_lifecycle::reasons::Waiting;
use coracle_lifecycle::{Action, ContainerId, Event, ImageState};
use k8s_openapi::api::core::v1::Pod;
use tokio::task::AbortHandle;
use tracing::warn;

use super::fetch::fetch;
use super::start::{Run, start};
use super::worker::{Message, Work, Worker};
use super::{Context, disk, volumes};

impl Worker {
    /// Begins one action. What it comes to reaches the worker as an event. No run begins where what must survive the agent is
    /// `unsaved`, for that reason.
    pub(super) fn perform(&mut self, action: Action, unsaved: Option<&io::Error>) {
        let pod = Arc::clone(&self.observed.pod);
        match action {
            Action::Mount => self.mount(pod),
            Action::Refresh => self.refresh(pod),
            Action::AbandonMount => self.give_up(&Work::Mount),
            Action::Fetch { container } => self.fetch(pod, container),
            Action::Abandon { container } => self.give_up(&Work::Fetch(container)),
            Action::Start { container, attempt } => match unsaved {
                None => self.start(pod, container, attempt),
                Some(error) => self.happen(Event::StartFailed {
                    container,
                    reason: Waiting::CreateContainerError,
                    message: format!("cannot write the pod's checkpoint: {error}"),
                }),
            },
            Action::GiveUp { container, attempt } => self.give_up_start(container, attempt),
            Action::Stop { container, grace } => self.stop(&container, grace),
            Action::Unmount => self.unmount(),
            Action::Delete => self.delete(),
            Action::Forget => self.forgotten = true,
            Action::RunHook { container, attempt, hook } => self.run_hook(container, attempt, hook),
            Action::Probe { container, attempt, kind } => self.probe(&container, attempt, kind),
            Action::StopProbing { container, kind } => self.give_up(&Work::Probe(container, kind)),
            // Decisions, with which nothing begins yet.
            Action::Expire | Action::End { .. } | Action::Reset => {}
        }
    }

    /// Runs `work` beside the worker; it ends with an event.
    pub(super) fn spawn<F>(&mut self, work: impl FnOnce(Arc<Context>) -> F) -> AbortHandle
    where
        F: Future<Output = Event> + Send + 'static,
    {
        let (work, outbox) = (work(Arc::clone(&self.context)), self.outbox.clone());
        self.tasks.spawn(async move {
            let _ = outbox.send(Message::Event(work.await));
        })
    }

    fn mount(&mut self, pod: Arc<Pod>) {
        self.keep_supplied(&pod);
        let task = self.spawn(|context| async move {
            if let Err(error) = volumes::mount(&context, &pod).await {
                return Event::MountFailed { message: error.to_string() };
            }
            match context.runtime_classes.handler(&pod).await {
                Ok(_) => Event::Mounted,
                Err(error) => Event::SandboxFailed { message: error.to_string() },
            }
        });
        self.works.insert(Work::Mount, task);
    }

    fn refresh(&mut self, pod: Arc<Pod>) {
        let task = self.spawn(|context| async move {
            match volumes::refresh(&context, &pod).await {
                Ok(()) => Event::Refreshed,
                Err(error) => Event::RefreshFailed { message: error.to_string() },
            }
        });
        self.refresher = Some(task);
    }

    /// Sees to it, from the first mount on, that the pod follows what it refers to and puts no more in its volumes than it
    /// may.
    fn keep_supplied(&mut self, pod: &Arc<Pod>) {
        if self.keeper.is_some() {
            return;
        }
        let (context, pod, outbox) = (Arc::clone(&self.context), Arc::clone(pod), self.outbox.clone());
        let supply = self.context.supplies.of(&self.identity);
        self.keeper = Some(self.tasks.spawn(async move {
            tokio::select! {
                () = supply.keep(&outbox) => {}
                eviction = volumes::exceeded(&context, pod) => {
                    let _ = outbox.send(Message::Event(Event::Evicted(eviction)));
                }
            }
        }));
    }

    fn fetch(&mut self, pod: Arc<Pod>, container: String) {
        let (outbox, name) = (self.outbox.clone(), container.clone());
        let handle = self.spawn(|context| async move { fetch(&context, &pod, &name, &outbox).await });
        self.works.insert(Work::Fetch(container), handle);
    }

    fn start(&mut self, pod: Arc<Pod>, container: String, attempt: u32) {
        let image = self.observed.container(&container).and_then(|record| match &record.image {
            ImageState::Ready(image) => Some(image.as_ref().clone()),
            _ => None,
        });
        let Some(image) = image else { return };
        let (context, outbox) = (Arc::clone(&self.context), self.outbox.clone());
        let work = Work::Start(container.clone());
        let addresses = self.observed.addresses.clone();
        let run = Run { container, attempt, image, addresses };
        let task = self.tasks.spawn(async move { start(&context, pod, run, outbox).await });
        self.works.insert(work, task);
    }

    /// The runtime may have begun the run and not said so yet: what it has of it goes.
    fn give_up_start(&mut self, container: String, attempt: u32) {
        let id = ContainerId::of(&self.identity.uid, &container, attempt);
        self.give_up(&Work::Start(container));
        self.context.provider.remove(&id);
    }

    fn stop(&mut self, container: &str, grace: Duration) {
        self.give_up(&Work::Hook(container.to_owned()));
        if let Some(handle) = self.handles.get(container) {
            handle.stop(grace);
        }
    }

    fn unmount(&mut self) {
        let (layout, uid) = (self.context.layout.clone(), self.identity.uid.clone());
        self.context.provider.remove_pod(&uid);
        let supply = self.context.supplies.end(&uid);
        [self.keeper.take(), self.refresher.take()].into_iter().flatten().for_each(|task| task.abort());
        self.spawn(|_| async move {
            let removed = disk::off_thread(move || {
                supply.inspect(|supply| supply.close());
                disk::remove_runs(&layout, &uid)
            });
            let removed = removed.await;
            if let Err(error) = removed {
                warn!(%error, "what a pod left behind cannot be removed");
            }
            Event::Unmounted
        });
    }

    fn delete(&mut self) {
        let pod = self.identity.clone();
        self.spawn(|context| async move {
            match context.api.delete(&pod).await {
                Ok(_) => Event::Deleted,
                Err(error) => {
                    warn!(pod = %pod.name, namespace = %pod.namespace, %error, "a pod could not be deleted");
                    Event::DeleteFailed
                }
            }
        });
    }
}
