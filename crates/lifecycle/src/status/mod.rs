//! What a pod's status says: computed whole from what is known, never edited.

mod conditions;
mod containers;
mod phase;

use jiff::{RoundMode, Timestamp, TimestampRound, Unit};
use k8s_openapi::api::core::v1::{HostIP, PodIP, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::{Admission, Observed, Volumes, Wish};

pub use phase::Phase;

/// The status of a pod. `before` is the status it had until `now`: a condition keeps its transition time while its
/// status stays the same. Conditions of others are not part of it.
///
/// A terminal phase that the object shows already is never left.
#[must_use]
pub fn status(observed: &Observed, before: &PodStatus, now: Timestamp) -> PodStatus {
    if observed.pod.has_terminal_phase() {
        return observed.pod.status.clone().unwrap_or_default();
    }
    let phase = phase::of(observed);
    let refusal = match &observed.admission {
        Admission::Refused { reason, message } => Some((reason, message)),
        _ => None,
    };
    PodStatus {
        phase: Some(phase.as_str().to_owned()),
        reason: refusal.map(|(reason, _)| reason.clone()),
        message: refusal.map(|(_, message)| format!("Pod was rejected: {message}")),
        qos_class: before.qos_class.clone(),
        start_time: observed.started_at.map(time),
        observed_generation: observed.pod.metadata.generation,
        conditions: Some(conditions::of(observed, phase, before, now)),
        container_statuses: refusal.is_none().then(|| containers::of(observed)),
        ..addresses(observed)
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

fn addresses(observed: &Observed) -> PodStatus {
    let addresses = || observed.host.addresses.iter().map(ToString::to_string);
    let mut status = PodStatus {
        host_ip: addresses().next(),
        host_ips: Some(addresses().map(|ip| HostIP { ip }).collect()),
        ..PodStatus::default()
    };
    if matches!(observed.volumes, Volumes::Mounted | Volumes::Unmounting | Volumes::Gone) {
        status.pod_ip = addresses().next();
        status.pod_ips = Some(addresses().map(|ip| PodIP { ip }).collect());
    }
    status
}
