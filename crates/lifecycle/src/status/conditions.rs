use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PodCondition, PodStatus};

use crate::status::{Phase, time};
use crate::{Admission, Cause, ContainerRecord, ContainerState, Observed, Role, Volumes, Wish};

/// What a condition says, without its times.
struct Statement {
    kind: &'static str,
    holds: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

impl Statement {
    fn plain(kind: &'static str, holds: bool) -> Self {
        Self { kind, holds, reason: None, message: None }
    }
}

pub(super) fn of(observed: &Observed, phase: Phase, before: &PodStatus, now: Timestamp) -> Vec<PodCondition> {
    let mut statements = vec![Statement::plain("PodScheduled", true)];
    if !matches!(observed.admission, Admission::Refused { .. }) {
        statements.extend(disruption_target(observed, phase));
        statements.push(Statement::plain("PodReadyToStartContainers", is_ready_to_start(observed)));
        statements.push(initialized(observed, phase, before));
        statements.push(ready(observed, phase));
        statements.push(containers_ready("ContainersReady", observed, phase));
        statements.extend(all_restarting(observed, phase));
    }
    statements.into_iter().map(|statement| condition(statement, observed, before, now)).collect()
}

fn condition(statement: Statement, observed: &Observed, before: &PodStatus, now: Timestamp) -> PodCondition {
    let status = if statement.holds { "True" } else { "False" };
    let earlier = before.conditions.iter().flatten().find(|condition| condition.type_ == statement.kind);
    let unchanged_since = earlier
        .filter(|condition| condition.status == status)
        .and_then(|condition| condition.last_transition_time.clone());
    PodCondition {
        type_: statement.kind.to_owned(),
        status: status.to_owned(),
        reason: statement.reason.map(ToOwned::to_owned),
        message: statement.message,
        last_transition_time: Some(unchanged_since.unwrap_or_else(|| time(now))),
        last_probe_time: None,
        observed_generation: observed.pod.metadata.generation,
    }
}

fn is_ready_to_start(observed: &Observed) -> bool {
    observed.volumes == Volumes::Mounted && !observed.is_terminal()
}

/// Without init containers a pod is initialized from the start; with some, when each is done, or started if it is a
/// sidecar. Once initialized it stays so.
fn initialized(observed: &Observed, phase: Phase, before: &PodStatus) -> Statement {
    let is_incomplete = |container: &&ContainerRecord| match container.role {
        Role::Init => !container.has_succeeded(),
        Role::Sidecar => !container.is_started(),
        Role::App | Role::Ephemeral => false,
    };
    let mut conditions = before.conditions.iter().flatten();
    let was = conditions.any(|condition| condition.type_ == "Initialized" && condition.status == "True");
    let incomplete: Vec<&str> =
        observed.containers.iter().filter(is_incomplete).map(|container| container.name.as_str()).collect();
    let is_initialized = was || observed.of_role(Role::App).any(ContainerRecord::has_run);
    if phase != Phase::Succeeded && !incomplete.is_empty() && !is_initialized {
        return Statement {
            kind: "Initialized",
            holds: false,
            reason: Some("ContainersNotInitialized"),
            message: Some(format!("containers with incomplete status: [{}]", incomplete.join(" "))),
        };
    }
    let reason = (phase == Phase::Succeeded).then_some("PodCompleted");
    Statement { reason, ..Statement::plain("Initialized", true) }
}

/// Said of pods whose rules can make all containers begin anew, and of no others.
fn all_restarting(observed: &Observed, phase: Phase) -> Option<Statement> {
    let spec = observed.pod.spec.as_ref()?;
    let mut containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let can = containers.any(|container| {
        container.restart_policy_rules.iter().flatten().any(|rule| rule.action == "RestartAllContainers")
    });
    let plain = Statement::plain("AllContainersRestarting", false);
    can.then(|| match phase {
        Phase::Succeeded => Statement { reason: Some("PodCompleted"), ..plain },
        Phase::Failed => Statement { reason: Some("PodFailed"), ..plain },
        _ if observed.restarts_all() => Statement {
            holds: true,
            reason: Some("RestartAllContainersStarted"),
            message: Some("container exited with restart policy rule".to_owned()),
            ..plain
        },
        _ => plain,
    })
}

fn ready(observed: &Observed, phase: Phase) -> Statement {
    let containers = containers_ready("Ready", observed, phase);
    let unmet = unmet_gates(observed);
    if !containers.holds || unmet.is_empty() {
        return containers;
    }
    Statement {
        holds: false,
        reason: Some("ReadinessGatesNotReady"),
        message: Some(unmet.join(", ")),
        ..containers
    }
}

fn unmet_gates(observed: &Observed) -> Vec<String> {
    let conditions = || observed.pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let gates = observed.pod.spec.iter().flat_map(|spec| spec.readiness_gates.iter().flatten());
    let unmet = |kind: &str| match conditions().find(|condition| condition.type_ == kind) {
        None => Some(format!("corresponding condition of pod readiness gate {kind:?} does not exist.")),
        Some(condition) if condition.status != "True" => Some(format!(
            "the status of pod readiness gate {kind:?} is not \"True\", but {}",
            condition.status
        )),
        Some(_) => None,
    };
    gates.filter_map(|gate| unmet(&gate.condition_type)).collect()
}

fn containers_ready(kind: &'static str, observed: &Observed, phase: Phase) -> Statement {
    let not_ready = |reason, message| Statement { kind, holds: false, reason: Some(reason), message };
    match phase {
        Phase::Succeeded => return not_ready("PodCompleted", None),
        Phase::Failed => return not_ready("PodFailed", None),
        Phase::Pending | Phase::Running => {}
    }
    let unready: Vec<&str> = observed
        .containers
        .iter()
        .filter(|container| matches!(container.role, Role::Sidecar | Role::App) && !container.is_ready())
        .map(|container| container.name.as_str())
        .collect();
    if unready.is_empty() {
        Statement::plain(kind, true)
    } else {
        let message = format!("containers with unready status: [{}]", unready.join(" "));
        not_ready("ContainersNotReady", Some(message))
    }
}

/// What the agent interrupted and may not start again was not the program's fault: a Job's `podFailurePolicy` can
/// ignore it.
///
/// Nor is it what the node ended for others' sake. Both are told with the end only.
fn disruption_target(observed: &Observed, phase: Phase) -> Option<Statement> {
    let disruption = |message: String| Statement {
        kind: "DisruptionTarget",
        holds: true,
        reason: Some("TerminationByKubelet"),
        message: Some(message),
    };
    let evicted = observed.eviction.as_ref().filter(|_| phase.is_terminal());
    if let Some(message) = evicted.and_then(|eviction| eviction.disruption.clone()) {
        return Some(disruption(message));
    }
    let is_interrupted = |container: &ContainerRecord| match &container.state {
        ContainerState::Terminated(exit) => exit.cause == Cause::Lost && !observed.restarts(container, exit),
        _ => false,
    };
    let mut decisive =
        observed.containers.iter().filter(|container| matches!(container.role, Role::Init | Role::App));
    let is_deleted = observed.removed || observed.pod.is_deleted();
    let is_final_loss = phase == Phase::Failed && !is_deleted && observed.eviction.is_none();
    (is_final_loss && decisive.any(is_interrupted))
        .then(|| disruption("The node agent ended while the pod was running".to_owned()))
}
