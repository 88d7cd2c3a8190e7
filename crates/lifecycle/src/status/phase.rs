use crate::{ContainerRecord, Observed, Role};

/// The phase of a pod.
///
/// <https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-phase>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not all containers have run.
    Pending,
    /// All containers have run, and something runs or will run again.
    Running,
    /// All containers ended with code 0, for good.
    Succeeded,
    /// All containers ended for good, not all with code 0; or the pod never ran.
    Failed,
}

impl Phase {
    /// The phase as the API writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
        }
    }

    /// Whether nothing of the pod runs again.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

pub(super) fn of(observed: &Observed) -> Phase {
    if observed.is_terminal() {
        return if observed.eviction.is_none() && has_succeeded(observed) {
            Phase::Succeeded
        } else {
            Phase::Failed
        };
    }
    // Init containers and sidecars come first: when the app containers have run, so have they.
    let has_run = observed.of_role(Role::App).all(ContainerRecord::has_shown_run);
    if has_run { Phase::Running } else { Phase::Pending }
}

/// Sidecars and what was added to look into the pod decide nothing.
fn has_succeeded(observed: &Observed) -> bool {
    let mut decisive = observed.of_role(Role::App).peekable();
    decisive.peek().is_some()
        && decisive.all(ContainerRecord::has_succeeded)
        && !observed.has_failed_to_begin()
}
