use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

use crate::{PodIdentity, PodUid};

/// Kubernetes' default for `terminationGracePeriodSeconds`.
const DEFAULT_GRACE: i64 = 30;

/// When a container that ended is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartPolicy {
    /// After every end.
    Always,
    /// After every end with a code other than 0.
    OnFailure,
    /// Not at all.
    Never,
}

impl RestartPolicy {
    /// Whether this policy starts a container again that ended with `exit_code`.
    #[must_use]
    pub fn restarts(self, exit_code: i32) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => exit_code != 0,
            Self::Never => false,
        }
    }
}

/// What a pod object wishes for, with the defaults of the API.
pub trait Wish {
    /// Who the pod is.
    fn identity(&self) -> PodIdentity;
    /// Its restart policy.
    fn restart_policy(&self) -> RestartPolicy;
    /// The grace its containers get when they are stopped: the pod's own, or the shorter one of its deletion.
    fn grace(&self) -> Duration;
    /// Whether its deletion has been asked for.
    fn is_deleted(&self) -> bool;
    /// Its containers in order.
    fn containers(&self) -> &[Container];
    /// One of its containers.
    fn container(&self, name: &str) -> Option<&Container>;
    /// Whether the object already shows that the pod has ended.
    fn has_terminal_phase(&self) -> bool;
}

impl Wish for Pod {
    fn identity(&self) -> PodIdentity {
        PodIdentity {
            namespace: self.metadata.namespace.clone().unwrap_or_default(),
            name: self.metadata.name.clone().unwrap_or_default(),
            uid: PodUid::new(self.metadata.uid.clone().unwrap_or_default()),
        }
    }

    fn restart_policy(&self) -> RestartPolicy {
        match self.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()) {
            Some("Never") => RestartPolicy::Never,
            Some("OnFailure") => RestartPolicy::OnFailure,
            _ => RestartPolicy::Always,
        }
    }

    fn grace(&self) -> Duration {
        let own = self.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
        let seconds = self.metadata.deletion_grace_period_seconds.or(own).unwrap_or(DEFAULT_GRACE);
        Duration::from_secs(u64::try_from(seconds).unwrap_or(0).max(1))
    }

    fn is_deleted(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    fn containers(&self) -> &[Container] {
        self.spec.as_ref().map_or(&[], |spec: &PodSpec| &spec.containers)
    }

    fn container(&self, name: &str) -> Option<&Container> {
        self.containers().iter().find(|container| container.name == name)
    }

    fn has_terminal_phase(&self) -> bool {
        let phase = self.status.as_ref().and_then(|status| status.phase.as_deref());
        matches!(phase, Some("Succeeded" | "Failed"))
    }
}
