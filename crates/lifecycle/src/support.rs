use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, VolumeMount};

use crate::sysctls;

/// Names the first field of a pod that asks for what this version of the node does not do yet. Ephemeral containers, which
/// come later, are none of its own fields.
pub(crate) fn unsupported(pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let init = spec.init_containers.as_deref().unwrap_or_default();
    unsupported_in_spec(spec)
        .or_else(|| unsupported_in_list("initContainers", init))
        .or_else(|| unsupported_in_list("containers", &spec.containers))
        .map(|field| message(&field))
}

/// Names the first field of an ephemeral container that asks for what this version of the node does not do yet.
pub(crate) fn unsupported_ephemeral(container: &Container) -> Option<String> {
    unsupported_in_container(container)
        .map(|field| message(&format!("ephemeralContainers{{{}}}.{field}", container.name)))
}

fn message(field: &str) -> String {
    format!("spec.{field}: not supported by this node yet")
}

fn unsupported_in_list(list: &str, containers: &[Container]) -> Option<String> {
    containers.iter().enumerate().find_map(|(index, container)| {
        unsupported_in_container(container).map(|field| format!("{list}[{index}].{field}"))
    })
}

fn unsupported_in_spec(spec: &PodSpec) -> Option<String> {
    let claims = is_filled(spec.resource_claims.as_ref()).then(|| "resourceClaims".to_owned());
    claims.or_else(|| sysctls::unset(spec).map(|name| format!("securityContext.sysctls{{{name}}}")))
}

fn unsupported_in_container(container: &Container) -> Option<String> {
    let claims = container.resources.as_ref().and_then(|resources| resources.claims.as_ref());
    first(&[
        (is_filled(container.volume_devices.as_ref()), "volumeDevices"),
        (is_filled(claims), "resources.claims"),
    ])
    .map(str::to_owned)
    .or_else(|| unsupported_mount(container))
}

fn first(fields: &[(bool, &'static str)]) -> Option<&'static str> {
    fields.iter().find(|(is_present, _)| *is_present).map(|(_, field)| *field)
}

fn is_filled<T>(list: Option<&Vec<T>>) -> bool {
    list.is_some_and(|list| !list.is_empty())
}

fn unsupported_mount(container: &Container) -> Option<String> {
    container.volume_mounts.iter().flatten().enumerate().find_map(|(index, mount)| {
        unsupported_in_mount(mount).map(|field| format!("volumeMounts[{index}].{field}"))
    })
}

fn unsupported_in_mount(mount: &VolumeMount) -> Option<&'static str> {
    (mount.mount_propagation.as_deref() == Some("Bidirectional")).then_some("mountPropagation")
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::VolumeDevice;
    use serde_json::{Value, json};

    use super::*;

    fn of_spec(spec: &Value) -> Option<String> {
        unsupported(&serde_json::from_value(json!({ "spec": spec })).unwrap())
    }

    fn of_container(mut container: Value) -> Option<String> {
        container["name"] = "app".into();
        of_spec(&json!({ "containers": [{"name": "first"}, container] }))
    }

    #[test]
    fn fields_of_the_pod_are_named() {
        let check = |field: &str, value: Value| {
            let expected = format!("spec.{field}: not supported by this node yet");
            assert_eq!(of_spec(&json!({"containers": [], field: value})), Some(expected));
        };
        check("resourceClaims", json!([{"name": "gpu"}]));
        let sysctls =
            json!({"containers": [], "securityContext": {"sysctls": [{"name": "a/b", "value": "1"}]}});
        let expected = "spec.securityContext.sysctls{a.b}: not supported by this node yet";
        assert_eq!(of_spec(&sysctls).as_deref(), Some(expected));
    }

    #[test]
    fn fields_of_a_container_are_named() {
        let check = |container: Value, field: &str| {
            let expected = format!("spec.containers[1].{field}: not supported by this node yet");
            assert_eq!(of_container(container), Some(expected));
        };
        check(json!({"volumeDevices": [{"name": "v", "devicePath": "/dev/v"}]}), "volumeDevices");
        check(json!({"resources": {"claims": [{"name": "gpu"}]}}), "resources.claims");
        let mount =
            |key: &str, value: &str| json!({"volumeMounts": [{"name": "v", "mountPath": "/v", key: value}]});
        check(mount("mountPropagation", "Bidirectional"), "volumeMounts[0].mountPropagation");
    }

    #[test]
    fn fields_of_other_containers_are_named_too() {
        let spec = json!({"containers": [], "initContainers": [{"name": "a"}, {"name": "b", "volumeDevices": [{"name": "v", "devicePath": "/dev/v"}]}]});
        let expected = "spec.initContainers[1].volumeDevices: not supported by this node yet";
        assert_eq!(of_spec(&spec).as_deref(), Some(expected));
        let debug = Container {
            volume_devices: Some(vec![VolumeDevice::default()]),
            name: "d".to_owned(),
            ..Container::default()
        };
        let expected = "spec.ephemeralContainers{d}.volumeDevices: not supported by this node yet";
        assert_eq!(unsupported_ephemeral(&debug).as_deref(), Some(expected));
    }

    #[test]
    fn an_ordinary_pod_is_supported() {
        let spec = json!({
            "hostNetwork": true, "hostUsers": false, "initContainers": [{"name": "i"}], "ephemeralContainers": [{"name": "debug"}],
            "terminationGracePeriodSeconds": 5, "tolerations": [], "enableServiceLinks": true,
            "containers": [{
                "name": "app", "startupProbe": {}, "livenessProbe": {}, "readinessProbe": {}, "lifecycle": {}, "env": [{"name": "A", "valueFrom": {}}], "envFrom": [{"prefix": "A"}],
                "ports": [{"containerPort": 80, "hostPort": 80}], "terminationMessagePolicy": "File",
                "volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": "a", "mountPropagation": "HostToContainer"}],
            }],
        });
        assert_eq!(of_spec(&spec), None);
    }
}
