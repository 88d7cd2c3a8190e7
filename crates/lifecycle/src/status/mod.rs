//! What a pod's status says: computed whole from what is known, never edited.

mod conditions;
mod containers;
mod phase;

use jiff::{RoundMode, Timestamp, TimestampRound, Unit};
use k8s_openapi::api::core::v1::{ContainerStatus, HostIP, PodIP, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::{Admission, ContainerRecord, ContainerState, Observed, Role, Volumes, Wish, qos};

pub use phase::Phase;

/// The status of a pod. `before` is the status it had until `now`: a condition keeps its transition time while its
/// status stays the same, and an address once given stays. Conditions of others are not part of it.
///
/// A terminal phase that the object shows already, by whomever, is never left: only what ran here and has not been
/// told yet still changes.
#[must_use]
pub fn status(observed: &Observed, before: &PodStatus, now: Timestamp) -> PodStatus {
    let Some(shown) = observed.pod.status.as_ref().filter(|_| observed.pod.has_terminal_phase()) else {
        return computed(observed, phase::of(observed), before, now);
    };
    if is_final(observed, shown) && containers(shown).all(has_ended) {
        return shown.clone();
    }
    let phase = if shown.phase.as_deref() == Some("Succeeded") { Phase::Succeeded } else { Phase::Failed };
    PodStatus {
        reason: shown.reason.clone(),
        message: shown.message.clone(),
        ..computed(observed, phase, before, now)
    }
}

/// Whether `shown`, whoever wrote it, is the last that there is to say of a pod: that it has ended, and how everything
/// ended that ran here.
#[must_use]
pub fn is_final(observed: &Observed, shown: &PodStatus) -> bool {
    let is_terminal = matches!(shown.phase.as_deref(), Some("Succeeded" | "Failed"));
    let is_told = |container: &ContainerRecord| match container.state {
        ContainerState::Waiting if container.last.is_none() => true,
        ContainerState::Waiting | ContainerState::Terminated(_) => containers(shown).any(|status| {
            let count = u32::try_from(status.restart_count);
            status.name == container.name && count == Ok(container.restart_count()) && has_ended(status)
        }),
        _ => false,
    };
    is_terminal && observed.containers.iter().all(is_told)
}

fn containers(status: &PodStatus) -> impl Iterator<Item = &ContainerStatus> {
    let init = status.init_container_statuses.iter().flatten();
    init.chain(status.container_statuses.iter().flatten())
        .chain(status.ephemeral_container_statuses.iter().flatten())
}

fn has_ended(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|state| state.terminated.is_some())
}

fn computed(observed: &Observed, phase: Phase, before: &PodStatus, now: Timestamp) -> PodStatus {
    let refusal = match &observed.admission {
        Admission::Refused { reason, message } => Some((reason, message)),
        _ => None,
    };
    let eviction = observed.eviction.as_ref().filter(|_| phase.is_terminal());
    let evicted = || eviction.map(|eviction| eviction.message.clone());
    PodStatus {
        phase: Some(phase.as_str().to_owned()),
        reason: refusal.map(|(reason, _)| reason).or(eviction.map(|eviction| &eviction.reason)).cloned(),
        message: refusal.map(|(_, message)| format!("Pod was rejected: {message}")).or_else(evicted),
        qos_class: Some(qos::class(&observed.pod)),
        start_time: observed.started_at.map(time).or_else(|| before.start_time.clone()),
        observed_generation: observed.pod.metadata.generation,
        conditions: Some(conditions::of(observed, phase, before, now)),
        ..with_containers(observed, addresses(observed, before))
    }
}

/// A pod that was refused has no containers.
fn with_containers(observed: &Observed, status: PodStatus) -> PodStatus {
    if matches!(observed.admission, Admission::Refused { .. }) {
        return status;
    }
    let listed = |roles: &[Role]| Some(containers::of(observed, roles)).filter(|list| !list.is_empty());
    PodStatus {
        init_container_statuses: listed(&[Role::Init, Role::Sidecar]),
        container_statuses: Some(containers::of(observed, &[Role::App])),
        ephemeral_container_statuses: listed(&[Role::Ephemeral]),
        ..status
    }
}

/// A time as the API stores it, in whole seconds.
fn time(timestamp: Timestamp) -> Time {
    Time(
        timestamp
            .round(TimestampRound::new().smallest(Unit::Second).mode(RoundMode::Floor))
            .unwrap_or(timestamp),
    )
}

/// A pod that was refused gets no addresses. Any other has its own from the time its volumes are there, and keeps what it had
/// when it has ended.
fn addresses(observed: &Observed, before: &PodStatus) -> PodStatus {
    let host = || observed.host.addresses.iter().map(ToString::to_string);
    let mut status = PodStatus {
        host_ip: before.host_ip.clone(),
        host_ips: before.host_ips.clone(),
        pod_ip: before.pod_ip.clone(),
        pod_ips: before.pod_ips.clone(),
        ..PodStatus::default()
    };
    if matches!(observed.admission, Admission::Refused { .. }) {
        return status;
    }
    status.host_ip = host().next();
    status.host_ips = Some(host().map(|ip| HostIP { ip }).collect());
    let has_begun = observed.volumes == Volumes::Mounted
        || observed.containers.iter().any(|container| container.state != ContainerState::Waiting);
    if has_begun && (status.pod_ip.is_none() || !observed.is_terminal()) {
        let own = || observed.reached_at().iter().map(ToString::to_string);
        status.pod_ip = own().next();
        status.pod_ips = Some(own().map(|ip| PodIP { ip }).collect());
    }
    status
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::{Cause, Exit, Host};

    const NOW: Timestamp = Timestamp::constant(1_767_225_600, 0);

    fn observed(state: ContainerState, last: Option<Exit>) -> Observed {
        let pod = json!({"metadata": {"uid": "u"}, "spec": {"containers": [{"name": "app"}]}});
        let host = Host { runtime: "test".to_owned(), addresses: vec!["192.0.2.7".parse().unwrap()] };
        let mut observed = Observed::new(Arc::new(serde_json::from_value(pod).unwrap()), Arc::new(host));
        observed.admission = Admission::Admitted;
        observed.volumes = Volumes::Mounted;
        let container = &mut observed.containers[0];
        (container.attempt, container.state, container.last) = (1, state, last);
        observed
    }

    fn exit() -> Exit {
        Exit { cause: Cause::Exited(1), message: None, started_at: NOW, finished_at: NOW }
    }

    fn shown(containers: &Value) -> PodStatus {
        serde_json::from_value(json!({"phase": "Failed", "containerStatuses": containers})).unwrap()
    }

    #[test]
    fn the_last_status_tells_of_the_latest_run_of_each_container() {
        let told = |name: &str, count: i32| {
            json!([{
                "name": name, "restartCount": count, "image": "", "imageID": "", "ready": false,
                "state": {"terminated": {"exitCode": 1}},
            }])
        };
        let ended = observed(ContainerState::Terminated(exit()), None);
        assert!(is_final(&ended, &shown(&told("app", 1))));
        assert!(!is_final(&ended, &shown(&told("app", 0))));
        assert!(!is_final(&ended, &shown(&told("other", 1))));
        assert!(!is_final(&observed(ContainerState::Waiting, Some(exit())), &shown(&json!([]))));
        assert!(is_final(&observed(ContainerState::Waiting, None), &shown(&json!([]))));
    }

    #[test]
    fn a_pod_shows_the_address_it_has_and_at_its_end_the_one_it_had() {
        let before = PodStatus { pod_ip: Some("192.0.2.1".to_owned()), ..PodStatus::default() };
        let mut observed = observed(ContainerState::Waiting, None);
        let address = |observed: &Observed| status(observed, &before, NOW).pod_ip;
        assert_eq!(address(&observed).as_deref(), Some("192.0.2.7"));
        observed.removed = true;
        assert_eq!(address(&observed).as_deref(), Some("192.0.2.1"));
    }

    #[test]
    fn a_pod_that_was_refused_has_no_addresses() {
        let mut observed = observed(ContainerState::Waiting, None);
        let hosts = |observed: &Observed| status(observed, &PodStatus::default(), NOW).host_ip;
        assert_eq!(hosts(&observed).as_deref(), Some("192.0.2.7"));
        observed.admission = Admission::Refused { reason: "OutOfcpu".to_owned(), message: String::new() };
        assert_eq!(hosts(&observed), None);
    }
}
