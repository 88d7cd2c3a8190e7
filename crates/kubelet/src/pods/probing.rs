//! The probing of one run of a container, for one purpose.

use std::time::Duration;

use coracle_lifecycle::{Event, ProbeKind, ProbeTrouble, Schedule, Tally};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::Context;
use super::handlers::{Handle, Outcome, Trial};
use super::worker::Message;

/// Tries begin at multiples of this, counted from the beginning of the agent, so that one turn of the agent serves many of them.
const GRID: Duration = Duration::from_millis(20);

/// A try that could not be made is made anew at once, so often in all.
const TRIES: usize = 3;

/// A probe of one run.
pub(super) struct Probing {
    pub(super) container: String,
    pub(super) attempt: u32,
    pub(super) kind: ProbeKind,
    pub(super) schedule: Schedule,
    pub(super) trial: Trial,
    pub(super) handle: Handle,
    /// When it may be tried for the first time.
    pub(super) due: Instant,
    /// It waited for a startup probe, and waits for nothing else.
    pub(super) follows: bool,
    /// What is known of the run's readiness so far.
    pub(super) ready: bool,
}

impl Probing {
    /// Probes until there is nothing more to say, and tells whenever what is known of the container changes.
    pub(super) async fn run(self, context: &Context, events: &UnboundedSender<Message>) {
        let mut tally = Tally::new(self.kind, &self.schedule, self.ready);
        let mut ticks = interval_at(self.first(context.handlers.began), self.schedule.period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            let Some(is_good) = self.probe(context, events).await else { continue };
            if let Some(healthy) = tally.count(is_good) {
                let (container, attempt, kind) = (self.container.clone(), self.attempt, self.kind);
                let _ = events.send(Message::Event(Event::Probed { container, attempt, kind, healthy }));
                if tally.is_final(healthy) {
                    return;
                }
            }
        }
    }

    /// When the first try is. All pods of an agent that has just begun are probed from now on: these begin spread over
    /// the period, but for what a startup probe has held up.
    fn first(&self, began: Instant) -> Instant {
        let is_early = !self.follows && began.elapsed() < self.schedule.period;
        let spread = if is_early { self.schedule.period.mul_f64(fastrand::f64()) } else { Duration::ZERO };
        on_grid(self.due + spread, began)
    }

    /// Tries once, and tells people of what is not as it should be. `None` when nothing was found out.
    async fn probe(&self, context: &Context, events: &UnboundedSender<Message>) -> Option<bool> {
        let (is_good, trouble) = match self.outcome(context).await {
            Outcome::Good => (Some(true), None),
            Outcome::Warned(text) => (Some(true), Some(ProbeTrouble::Warned(text))),
            Outcome::Bad(text) => (Some(false), Some(ProbeTrouble::Failed(text))),
            Outcome::Impossible(text) => (None, Some(ProbeTrouble::Impossible(text))),
        };
        if let Some(trouble) = trouble {
            let (container, kind) = (self.container.clone(), self.kind);
            let _ = events.send(Message::Event(Event::ProbeTold { container, kind, trouble }));
        }
        is_good
    }

    async fn outcome(&self, context: &Context) -> Outcome {
        let limit = self.schedule.timeout;
        for _ in 1..TRIES {
            let outcome = context.handlers.probe(&self.trial, &self.handle, limit).await;
            if !matches!(outcome, Outcome::Impossible(_)) {
                return outcome;
            }
        }
        context.handlers.probe(&self.trial, &self.handle, limit).await
    }
}

/// The next time at which tries may begin.
fn on_grid(time: Instant, began: Instant) -> Instant {
    let steps = time.saturating_duration_since(began).as_nanos().div_ceil(GRID.as_nanos());
    began + GRID.saturating_mul(u32::try_from(steps).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_wait_for_the_next_common_time() {
        let began = Instant::now();
        let check = |after: u64, expected: u64| {
            let first = on_grid(began + Duration::from_millis(after), began);
            assert_eq!(first - began, Duration::from_millis(expected));
        };
        check(0, 0);
        check(1, 20);
        check(20, 20);
        check(86_400_001, 86_400_020);
        assert_eq!(on_grid(began.checked_sub(GRID).unwrap_or(began), began), began);
    }
}
