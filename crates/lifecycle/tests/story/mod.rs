//! A pod's life read from YAML, gone through as a worker goes through it, and written down.

mod input;
mod output;

use std::sync::Arc;

use coracle_lifecycle::{
    Action, Checkpoint, Event, Host, Observed, Wish, apply, checkpoint, notices, plan, recover, status,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::PodStatus;

use input::{Happening, Step, Story};
use output::Turn;

/// The times of a story are seconds after this one: 2026-01-01T00:00:00Z.
const START: Timestamp = Timestamp::constant(1_767_225_600, 0);

/// What the node does, tells and shows in the story told by `yaml`.
pub(crate) fn tell(yaml: &str, name: &str) -> String {
    let story: Story = serde_saphyr::from_str(yaml).unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut teller = Teller::new(story.pod());
    let turns: Vec<Turn> = story.steps.iter().map(|step| teller.turn(step)).collect();
    let mut text = String::new();
    for turn in &turns {
        text.push_str(&turn.to_string());
    }
    if story.full {
        text.push_str("---\n");
        text.push_str(&serde_saphyr::to_string(&teller.shown).unwrap());
    }
    text
}

fn host() -> Arc<Host> {
    Arc::new(Host { runtime: "wasmtime".to_owned(), addresses: vec!["192.0.2.7".parse().unwrap()] })
}

struct Teller {
    observed: Observed,
    saved: Option<Checkpoint>,
    shown: PodStatus,
}

impl Teller {
    fn new(pod: k8s_openapi::api::core::v1::Pod) -> Self {
        let shown = pod.status.clone().unwrap_or_default();
        Self { observed: Observed::new(Arc::new(pod), host()), saved: None, shown }
    }

    fn turn(&mut self, step: &Step) -> Turn {
        let now = START + SignedDuration::from_secs_f64(step.at);
        let mut told = Vec::new();
        match &step.event {
            Happening::Recover { lose_checkpoint } => self.recover(*lose_checkpoint, now),
            event => {
                for event in event.to_events(&self.observed, &self.shown, now) {
                    self.happen(&event, now, &mut told);
                }
            }
        }
        let (actions, wake) = self.plan(now, &mut told);
        let shown = status(&self.observed, &self.shown, now);
        let is_new = shown != self.shown;
        self.shown = shown;
        Turn {
            at: step.at,
            event: step.event.to_string(),
            actions,
            told,
            wake: wake.map(|wake| wake.duration_since(START)),
            shown: is_new.then(|| self.shown.clone()),
        }
    }

    fn happen(&mut self, event: &Event, now: Timestamp, told: &mut Vec<String>) {
        apply(&mut self.observed, event.clone(), now);
        told.extend(notices(&self.observed, event).iter().map(output::notice));
    }

    fn plan(&mut self, now: Timestamp, told: &mut Vec<String>) -> (Vec<String>, Option<Timestamp>) {
        let mut lines = Vec::new();
        for _ in 0..20 {
            let plan = plan(&self.observed, now);
            for action in &plan.actions {
                lines.push(output::action(action));
                self.happen(&Event::Began(action.clone()), now, told);
            }
            self.saved = Some(checkpoint(&self.observed));
            if plan.actions.is_empty() || plan.actions.contains(&Action::Forget) {
                return (lines, plan.wake);
            }
        }
        panic!("the plan has no end: {lines:?}");
    }

    /// The agent ended without a word and is back: what it shows is what the API server last heard.
    fn recover(&mut self, lose_checkpoint: bool, now: Timestamp) {
        let mut pod = (*self.observed.pod).clone();
        if !self.observed.pod.has_terminal_phase() {
            pod.status = Some(self.shown.clone());
        }
        let saved = self.saved.take().filter(|_| !lose_checkpoint);
        self.observed = recover(Arc::new(pod), host(), saved.as_ref(), &[], now);
    }
}
