use std::time::Duration;

use coracle_lifecycle::reasons::Waiting;
use coracle_lifecycle::{
    Action, Cause, ContainerState, Digest, Event, Exit, Hook, ImageContent, ImageKind, ImageModule,
    LocalImage, ProbeKind,
};

use super::World;

/// Something that was begun and has not ended.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Flight {
    Mount,
    Refresh,
    Unmount,
    Delete,
    Fetch(String),
    Start(String, u32),
    Run {
        container: String,
        attempt: u32,
        stopping: bool,
    },
    Hook {
        container: String,
        attempt: u32,
        hook: Hook,
    },
    /// It goes on until it is ended.
    Probe {
        container: String,
        attempt: u32,
        kind: ProbeKind,
    },
}

impl Flight {
    /// The run that is, or may be, under way.
    pub(super) fn run_of(&self) -> Option<(&str, u32)> {
        match self {
            Self::Start(container, attempt) | Self::Run { container, attempt, .. } => {
                Some((container, *attempt))
            }
            _ => None,
        }
    }
}

impl Flight {
    /// The run that a hook or a probe is of.
    pub(super) fn of_run(&self) -> Option<(&str, u32)> {
        match self {
            Self::Hook { container, attempt, .. } | Self::Probe { container, attempt, .. } => {
                Some((container, *attempt))
            }
            _ => None,
        }
    }
}

impl World {
    pub(super) fn begin(&mut self, action: Action) {
        let flight = match action {
            Action::Mount => Flight::Mount,
            Action::Refresh => Flight::Refresh,
            Action::Unmount => {
                self.flights.retain(|flight| *flight != Flight::Refresh);
                Flight::Unmount
            }
            Action::Delete => {
                self.check_that_all_is_told();
                Flight::Delete
            }
            Action::Fetch { container } => Flight::Fetch(container),
            Action::Start { container, attempt } => {
                self.check_start(&container, attempt);
                self.check_order_of_starts(&container);
                self.starts += 1;
                Flight::Start(container, attempt)
            }
            Action::Expire => return,
            Action::RunHook { container, attempt, hook } => {
                self.check_that_it_runs(&container, attempt);
                Flight::Hook { container, attempt, hook }
            }
            Action::Probe { container, attempt, kind } => {
                self.check_that_it_runs(&container, attempt);
                Flight::Probe { container, attempt, kind }
            }
            other => panic!("{other:?} does not fly"),
        };
        assert!(!self.flights.contains(&flight), "{flight:?} is under way already");
        self.flights.push(flight);
    }

    pub(super) fn stop(&mut self, wanted: &str, grace: Duration) {
        let before = self.graces.insert(wanted.to_owned(), grace);
        assert!(before.is_none_or(|before| grace < before), "the grace grew from {before:?} to {grace:?}");
        let stopped = self.flights.iter_mut().any(|flight| match flight {
            Flight::Run { container, stopping, .. } if container == wanted => {
                *stopping = true;
                true
            }
            _ => false,
        });
        assert!(stopped, "{wanted} was stopped and does not run");
        self.check_order_of_stops(wanted);
        self.flights
            .retain(|flight| !matches!(flight, Flight::Hook { container, .. } if container == wanted));
    }

    /// A start that is given up leaves nothing.
    pub(super) fn give_up(&mut self, container: &str, attempt: u32) {
        let flight = Flight::Start(container.to_owned(), attempt);
        let position = self.flights.iter().position(|under_way| *under_way == flight);
        self.flights.remove(position.expect("no start to give up"));
    }

    /// Ends a flight: well when `how` is even.
    pub(super) fn finish(&mut self, which: usize, how: u8) {
        if self.flights.is_empty() {
            return;
        }
        let flight = self.flights.remove(which % self.flights.len());
        let well = how.is_multiple_of(2);
        match flight {
            Flight::Mount if well => self.happen(Event::Mounted),
            Flight::Mount if how % 4 == 1 => {
                self.happen(Event::SandboxFailed { message: "unknown".to_owned() });
            }
            Flight::Mount => self.happen(Event::MountFailed { message: "missing".to_owned() }),
            Flight::Refresh if well => self.happen(Event::Refreshed),
            Flight::Refresh => self.happen(Event::RefreshFailed { message: "missing".to_owned() }),
            Flight::Unmount => self.happen(Event::Unmounted),
            Flight::Delete if well => {
                self.happen(Event::Deleted);
                self.exists = false;
                self.happen(Event::Removed);
            }
            Flight::Delete => self.happen(Event::DeleteFailed),
            Flight::Fetch(container) => self.fetched(container, how),
            Flight::Start(container, attempt) => self.start_ended(container, attempt, how),
            Flight::Run { container, attempt, stopping } => self.ran_out(container, attempt, stopping, how),
            Flight::Hook { container, attempt, hook } => {
                self.happen(Event::HookEnded { container, attempt, hook, succeeded: how % 4 != 1 });
            }
            Flight::Probe { container, attempt, kind } => {
                let is_final = kind == ProbeKind::Startup || kind == ProbeKind::Liveness && how % 4 == 1;
                if !is_final {
                    self.flights.push(Flight::Probe { container: container.clone(), attempt, kind });
                }
                self.happen(Event::Probed { container, attempt, kind, healthy: how % 4 != 1 });
            }
        }
    }

    fn fetched(&mut self, container: String, how: u8) {
        let reasons = [
            Waiting::ErrImagePull,
            Waiting::RegistryUnavailable,
            Waiting::CreateContainerError,
            Waiting::InvalidImageName,
            Waiting::ErrImageNeverPull,
        ];
        self.happen(if how.is_multiple_of(2) {
            Event::Fetched { container, image: Box::new(image()), kind: ImageKind(String::new()) }
        } else {
            let reason = reasons[usize::from(how / 2) % reasons.len()];
            Event::FetchFailed { container, reason, message: "no".to_owned() }
        });
    }

    fn start_ended(&mut self, container: String, attempt: u32, how: u8) {
        if how % 4 == 1 {
            let message = "no".to_owned();
            self.happen(Event::StartFailed { container, reason: Waiting::RunContainerError, message });
            return;
        }
        if how % 8 == 3 {
            self.ran.insert((container.clone(), attempt));
            let exit = Exit::unstarted("no".to_owned(), self.now);
            self.happen(Event::Exited { container, attempt, exit });
            return;
        }
        self.ran.insert((container.clone(), attempt));
        self.graces.remove(&container);
        self.flights.push(Flight::Run { container: container.clone(), attempt, stopping: false });
        self.happen(Event::Started { container });
    }

    fn ran_out(&mut self, container: String, attempt: u32, stopping: bool, how: u8) {
        let started_at = match self.observed.container(&container).map(|record| record.state.clone()) {
            Some(ContainerState::Running { started_at } | ContainerState::Stopping { started_at, .. }) => {
                started_at
            }
            state => panic!("{container} ends while it is {state:?}"),
        };
        let cause = match how % 8 {
            1 => Cause::Exited(1),
            3 => Cause::Trapped(134),
            5 => Cause::OutOfMemory,
            7 => Cause::Lost,
            2 if stopping => Cause::Killed,
            0 | 4 if stopping => Cause::Stopped,
            _ => Cause::Exited(0),
        };
        self.leave_alone(&container);
        if cause == Cause::Exited(0) {
            self.succeeded.insert(container.clone());
        }
        let exit = Exit { cause, message: None, started_at, finished_at: self.now };
        self.happen(Event::Exited { container, attempt, exit });
    }
}

impl World {
    /// With the end of a run its hooks and probes end.
    fn leave_alone(&mut self, ended: &str) {
        self.flights.retain(|flight| match flight {
            Flight::Hook { container, .. } | Flight::Probe { container, .. } => container != ended,
            _ => true,
        });
    }
}

fn image() -> LocalImage {
    let digest = Digest::parse(&format!("sha256:{}", "0".repeat(64))).unwrap();
    let module = ImageModule { digest: digest.clone(), path: "/m".into(), name: "m".to_owned() };
    LocalImage {
        digest,
        reference: "r/app:1".to_owned(),
        repo_digest: "r/app@0".to_owned(),
        content: ImageContent::Program(module),
        size: 1,
    }
}
