//! Which pods can never run here: those that ask for more than a guest can have.

use std::collections::BTreeMap;

use coracle_lifecycle::Unsupported;
use k8s_openapi::api::core::v1::{
    Capabilities, Container, EphemeralContainer, Pod, SecurityContext, VolumeDevice,
};

use crate::hearing;
use crate::http::{Malformed, Settings};
use crate::outgoing::Rules;

/// Refuses a pod that asks for the node's own processes, devices or powers; fields that ask for less are met anyway.
pub(crate) fn accepts(pod: &Pod) -> Result<(), Unsupported> {
    let annotations = pod.metadata.annotations.as_ref();
    annotations.map_or(Ok(()), annotated).map_err(malformed)?;
    let Some(spec) = &pod.spec else { return Ok(()) };
    refuse_if(spec.host_pid == Some(true), "spec.hostPID", NO_PROCESSES)?;
    refuse_if(spec.host_ipc == Some(true), "spec.hostIPC", NO_PROCESSES)?;
    let windows = spec.security_context.as_ref().is_some_and(|context| context.windows_options.is_some());
    refuse_if(windows, "spec.securityContext.windowsOptions", NOT_WINDOWS)?;
    for (list, containers) in all(spec) {
        for (index, container) in containers.into_iter().enumerate() {
            container.check(&format!("spec.{list}[{index}]"))?;
        }
    }
    Ok(())
}

/// Whether all that the annotations ask for can be done.
fn annotated(annotations: &BTreeMap<String, String>) -> Result<(), Malformed> {
    Settings::of(annotations)?;
    Rules::of(annotations)?;
    hearing::by_input(annotations)?;
    Ok(())
}

fn malformed(Malformed { annotation, why }: Malformed) -> Unsupported {
    Unsupported { field: format!("metadata.annotations[{annotation}]"), why }
}

const NO_PROCESSES: &str = "a WebAssembly guest has no access to the node's processes";
const NOT_WINDOWS: &str = "containers are WebAssembly, not Windows";
const NO_POWERS: &str = "a WebAssembly guest cannot be given powers over the node";
const NO_DEVICES: &str = "a WebAssembly guest has no block devices";

fn all(spec: &k8s_openapi::api::core::v1::PodSpec) -> [(&'static str, Vec<Asked<'_>>); 3] {
    [
        ("initContainers", spec.init_containers.iter().flatten().map(Asked::from).collect()),
        ("containers", spec.containers.iter().map(Asked::from).collect()),
        ("ephemeralContainers", spec.ephemeral_containers.iter().flatten().map(Asked::from).collect()),
    ]
}

/// What a container of any kind asks for.
struct Asked<'a> {
    context: Option<&'a SecurityContext>,
    devices: &'a [VolumeDevice],
}

impl<'a> From<&'a Container> for Asked<'a> {
    fn from(container: &'a Container) -> Self {
        let devices = container.volume_devices.as_deref().unwrap_or_default();
        Self { context: container.security_context.as_ref(), devices }
    }
}

impl<'a> From<&'a EphemeralContainer> for Asked<'a> {
    fn from(container: &'a EphemeralContainer) -> Self {
        let devices = container.volume_devices.as_deref().unwrap_or_default();
        Self { context: container.security_context.as_ref(), devices }
    }
}

impl Asked<'_> {
    fn check(&self, path: &str) -> Result<(), Unsupported> {
        refuse_if(!self.devices.is_empty(), &format!("{path}.volumeDevices"), NO_DEVICES)?;
        let Some(context) = self.context else { return Ok(()) };
        let field = |name: &str| format!("{path}.securityContext.{name}");
        refuse_if(context.privileged == Some(true), &field("privileged"), NO_POWERS)?;
        let added = context.capabilities.as_ref().is_some_and(adds);
        refuse_if(added, &field("capabilities.add"), NO_POWERS)?;
        refuse_if(context.windows_options.is_some(), &field("windowsOptions"), NOT_WINDOWS)
    }
}

fn adds(capabilities: &Capabilities) -> bool {
    capabilities.add.as_ref().is_some_and(|added| !added.is_empty())
}

fn refuse_if(asked: bool, field: &str, why: &str) -> Result<(), Unsupported> {
    if asked { Err(Unsupported { field: field.to_owned(), why: why.to_owned() }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(spec: &serde_json::Value) -> Option<String> {
        let pod = serde_json::from_value(serde_json::json!({ "spec": spec })).unwrap();
        accepts(&pod).err().map(|unsupported| unsupported.field)
    }

    #[test]
    fn asking_for_less_is_accepted() {
        let context = serde_json::json!({
            "runAsNonRoot": true, "runAsUser": 1000, "allowPrivilegeEscalation": true, "privileged": false,
            "capabilities": { "drop": ["ALL"], "add": [] }, "seccompProfile": { "type": "RuntimeDefault" },
        });
        let spec = serde_json::json!({
            "hostPID": false, "hostNetwork": true, "hostUsers": false, "os": { "name": "linux" },
            "containers": [{ "name": "main", "securityContext": context }],
        });
        assert_eq!(verdict(&spec), None);
    }

    #[test]
    fn an_annotation_that_cannot_be_met_is_refused_by_name() {
        let annotations = serde_json::json!({ "coracle.dev/http-concurrency": "none", "other": "none" });
        let pod = serde_json::json!({ "metadata": { "annotations": annotations } });
        let refused = accepts(&serde_json::from_value(pod).unwrap()).unwrap_err();
        assert_eq!(refused.field, "metadata.annotations[coracle.dev/http-concurrency]");
    }

    #[test]
    fn asking_for_more_is_refused_by_the_fields_path() {
        let container = |more: serde_json::Value| {
            let mut container = serde_json::json!({ "name": "main" });
            container.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            container
        };
        let privileged = container(serde_json::json!({ "securityContext": { "privileged": true } }));
        let adds =
            container(serde_json::json!({ "securityContext": { "capabilities": { "add": ["NET_ADMIN"] } } }));
        let plain = container(serde_json::json!({}));
        let devices =
            container(serde_json::json!({ "volumeDevices": [{ "name": "a", "devicePath": "/dev/a" }] }));
        let windows = container(
            serde_json::json!({ "securityContext": { "windowsOptions": { "hostProcess": true } } }),
        );
        for (spec, path) in [
            (serde_json::json!({ "containers": [], "hostPID": true }), "spec.hostPID"),
            (serde_json::json!({ "containers": [], "hostIPC": true }), "spec.hostIPC"),
            (
                serde_json::json!({ "containers": [plain, privileged] }),
                "spec.containers[1].securityContext.privileged",
            ),
            (
                serde_json::json!({ "containers": [], "initContainers": [adds] }),
                "spec.initContainers[0].securityContext.capabilities.add",
            ),
            (
                serde_json::json!({ "containers": [], "ephemeralContainers": [privileged] }),
                "spec.ephemeralContainers[0].securityContext.privileged",
            ),
            (serde_json::json!({ "containers": [devices] }), "spec.containers[0].volumeDevices"),
            (
                serde_json::json!({ "containers": [windows] }),
                "spec.containers[0].securityContext.windowsOptions",
            ),
        ] {
            assert_eq!(verdict(&spec).as_deref(), Some(path));
        }
    }
}
