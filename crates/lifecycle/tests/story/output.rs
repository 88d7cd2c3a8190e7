use std::fmt;

use coracle_lifecycle::{Action, Notice};
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus, PodStatus};

/// What one event led to.
pub(super) struct Turn {
    pub(super) at: f64,
    pub(super) event: String,
    pub(super) actions: Vec<String>,
    pub(super) told: Vec<String>,
    pub(super) wake: Option<SignedDuration>,
    /// The status, when it is another than before.
    pub(super) shown: Option<PodStatus>,
}

impl fmt::Display for Turn {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "- event: {}", quoted(&format!("{} s: {}", self.at, self.event)))?;
        list(formatter, "actions", &self.actions)?;
        list(formatter, "notices", &self.told)?;
        if let Some(wake) = self.wake {
            writeln!(formatter, "  wake: {} s", wake.as_secs_f64())?;
        }
        self.shown.as_ref().map_or(Ok(()), |status| show(formatter, status))
    }
}

fn show(formatter: &mut fmt::Formatter<'_>, status: &PodStatus) -> fmt::Result {
    writeln!(formatter, "  phase: {}", phase(status))?;
    list(formatter, "conditions", &conditions(status))?;
    let lines = |statuses: &Option<Vec<ContainerStatus>>| -> Vec<String> {
        statuses.iter().flatten().map(container).collect()
    };
    list(formatter, "init", &lines(&status.init_container_statuses))?;
    list(formatter, "containers", &lines(&status.container_statuses))?;
    list(formatter, "ephemeral", &lines(&status.ephemeral_container_statuses))
}

fn list(formatter: &mut fmt::Formatter<'_>, name: &str, lines: &[String]) -> fmt::Result {
    if !lines.is_empty() {
        writeln!(formatter, "  {name}:")?;
    }
    lines.iter().try_for_each(|line| writeln!(formatter, "    - {}", quoted(line)))
}

fn quoted(line: &str) -> String {
    format!("'{}'", line.replace('\'', "''"))
}

pub(super) fn action(action: &Action) -> String {
    match action {
        Action::Fetch { container } => format!("Fetch {container}"),
        Action::Abandon { container } => format!("Abandon {container}"),
        Action::Start { container, attempt } => format!("Start {container} {attempt}"),
        Action::GiveUp { container, attempt } => format!("GiveUp {container} {attempt}"),
        Action::RunHook { container, hook, .. } => format!("{hook:?} {container}"),
        Action::Probe { container, kind, .. } => format!("Probe {container} {kind:?}"),
        Action::StopProbing { container, kind } => format!("StopProbing {container} {kind:?}"),
        Action::End { container, why, grace } => format!("End {container} within {grace:?}: {why:?}"),
        Action::Stop { container, grace } => format!("Stop {container} within {grace:?}"),
        plain => format!("{plain:?}"),
    }
}

pub(super) fn notice(notice: &Notice) -> String {
    let kind = if notice.is_warning { "Warning" } else { "Normal" };
    let about = notice.container.as_deref().map(|name| format!(" ({name})")).unwrap_or_default();
    format!("{kind} {}{about}: {}", notice.reason, notice.message)
}

fn phase(status: &PodStatus) -> String {
    let parts = [&status.phase, &status.reason, &status.message];
    parts.into_iter().flatten().cloned().collect::<Vec<_>>().join(" ")
}

/// All conditions but the one that always says the same.
fn conditions(status: &PodStatus) -> Vec<String> {
    let conditions = status.conditions.iter().flatten();
    conditions
        .filter(|condition| !(condition.type_ == "PodScheduled" && condition.status == "True"))
        .map(|condition| {
            let since =
                condition.last_transition_time.as_ref().map(|time| time.0.strftime("%M:%S").to_string());
            let mut text =
                format!("{}={} since {}", condition.type_, condition.status, since.unwrap_or_default());
            for more in [&condition.reason, &condition.message].into_iter().flatten() {
                text.push(' ');
                text.push_str(more);
            }
            text
        })
        .collect()
}

fn container(status: &ContainerStatus) -> String {
    let mut text = format!("{}: {}", status.name, state(status.state.as_ref()));
    let last = status.last_state.as_ref().map(|last| format!("; last {}", state(Some(last))));
    text.push_str(&last.unwrap_or_default());
    let ready = if status.ready { "ready" } else { "unready" };
    let id = status.container_id.as_deref().unwrap_or("no id");
    format!("{text}; {ready}, {} restarts, {id}", status.restart_count)
}

fn state(state: Option<&ContainerState>) -> String {
    let Some(state) = state else { return "nothing".to_owned() };
    if let Some(waiting) = &state.waiting {
        let message = waiting.message.as_deref().map(|text| format!(" ({text})")).unwrap_or_default();
        return format!("waiting {}{message}", waiting.reason.as_deref().unwrap_or_default());
    }
    if let Some(running) = &state.running {
        let since = running.started_at.as_ref().map(|time| time.0.strftime("%M:%S").to_string());
        return format!("running since {}", since.unwrap_or_default());
    }
    state.terminated.as_ref().map_or_else(|| "nothing".to_owned(), terminated)
}

fn terminated(terminated: &ContainerStateTerminated) -> String {
    let message = terminated.message.as_deref().map(|text| format!(" ({text})")).unwrap_or_default();
    let finished = terminated.finished_at.as_ref().map(|time| time.0.strftime(" at %M:%S").to_string());
    let reason = terminated.reason.as_deref().unwrap_or_default();
    format!("terminated {reason} {}{}{message}", terminated.exit_code, finished.unwrap_or_default())
}
