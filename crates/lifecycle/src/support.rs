use k8s_openapi::api::core::v1::{Container, Pod};

/// Names the first field of a pod that asks for what this version of the node does not do yet.
pub(crate) fn unsupported(pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    if spec.init_containers.as_ref().is_some_and(|containers| !containers.is_empty()) {
        return Some(missing("spec.initContainers"));
    }
    spec.containers.iter().enumerate().find_map(|(index, container)| {
        unsupported_field(container).map(|field| missing(&format!("spec.containers[{index}].{field}")))
    })
}

fn missing(field: &str) -> String {
    format!("{field}: not supported by this node yet")
}

fn unsupported_field(container: &Container) -> Option<String> {
    let field = |present: bool, name: &str| present.then(|| name.to_owned());
    field(container.startup_probe.is_some(), "startupProbe")
        .or_else(|| field(container.liveness_probe.is_some(), "livenessProbe"))
        .or_else(|| field(container.readiness_probe.is_some(), "readinessProbe"))
        .or_else(|| field(container.lifecycle.is_some(), "lifecycle"))
        .or_else(|| field(container.restart_policy.is_some(), "restartPolicy"))
        .or_else(|| field(container.restart_policy_rules.is_some(), "restartPolicyRules"))
        .or_else(|| field(container.env_from.as_ref().is_some_and(|from| !from.is_empty()), "envFrom"))
        .or_else(|| unsupported_variable(container))
        .or_else(|| unsupported_mount(container))
}

fn unsupported_variable(container: &Container) -> Option<String> {
    let variables = container.env.iter().flatten();
    variables
        .enumerate()
        .find(|(_, variable)| variable.value_from.is_some())
        .map(|(index, _)| format!("env[{index}].valueFrom"))
}

fn unsupported_mount(container: &Container) -> Option<String> {
    container.volume_mounts.iter().flatten().enumerate().find_map(|(index, mount)| {
        let field = if mount.sub_path.as_ref().is_some_and(|path| !path.is_empty()) {
            "subPath"
        } else if mount.sub_path_expr.is_some() {
            "subPathExpr"
        } else {
            return None;
        };
        Some(format!("volumeMounts[{index}].{field}"))
    })
}
