use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec};

use crate::environment::file_references;
use crate::{PodIdentity, PodUid, RestartPolicy};

/// Kubernetes' default for `terminationGracePeriodSeconds`.
const DEFAULT_GRACE: i64 = 30;

/// What kind of container one is: when it runs, and what its end means for its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Runs to its end before the next one begins.
    Init,
    /// An init container that runs on beside those after it, and ends after them: KEP-753.
    Sidecar,
    /// One of those that the pod is for.
    App,
    /// Added to a pod that runs, to look into it; it runs once.
    Ephemeral,
}

/// What a pod object wishes for, with the defaults of the API.
pub trait Wish {
    /// Who the pod is.
    fn identity(&self) -> PodIdentity;
    /// Its restart policy.
    fn restart_policy(&self) -> RestartPolicy;
    /// The grace its containers get when they are stopped: the pod's own, or the shorter one of its deletion.
    fn grace(&self) -> Duration;
    /// Whether it lives in the node's own network.
    fn uses_host_network(&self) -> bool;
    /// Whether its deletion has been asked for.
    fn is_deleted(&self) -> bool;
    /// Its app containers in order.
    fn containers(&self) -> &[Container];
    /// The names of all its containers with their roles: init containers, app containers, ephemeral ones, each in order.
    fn roles(&self) -> Vec<(Role, &str)>;
    /// One of its containers, of whatever kind.
    fn container(&self, name: &str) -> Option<Cow<'_, Container>>;
    /// The volumes that its containers mount or read variables from: a node makes these and no others.
    fn used_volumes(&self) -> BTreeSet<String>;
    /// Where the pod declares a container, as Events name it: `spec.initContainers{name}`.
    fn field_path(&self, container: &str) -> String;
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
        let policy = self.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
        RestartPolicy::named(policy).unwrap_or(RestartPolicy::Always)
    }

    fn grace(&self) -> Duration {
        let own = self.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
        let seconds = self.metadata.deletion_grace_period_seconds.or(own).unwrap_or(DEFAULT_GRACE);
        Duration::from_secs(u64::try_from(seconds).unwrap_or(0).max(1))
    }

    fn uses_host_network(&self) -> bool {
        self.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or(false)
    }

    fn is_deleted(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    fn containers(&self) -> &[Container] {
        self.spec.as_ref().map_or(&[], |spec: &PodSpec| &spec.containers)
    }

    fn roles(&self) -> Vec<(Role, &str)> {
        let init = init_containers(self).iter().map(|container| (role_in_init(container), &*container.name));
        let apps = self.containers().iter().map(|container| (Role::App, &*container.name));
        let ephemeral = ephemeral_containers(self).iter();
        init.chain(apps).chain(ephemeral.map(|container| (Role::Ephemeral, &*container.name))).collect()
    }

    fn container(&self, name: &str) -> Option<Cow<'_, Container>> {
        let mut declared = init_containers(self).iter().chain(self.containers());
        declared.find(|container| container.name == name).map(Cow::Borrowed).or_else(|| {
            let ephemeral = ephemeral_containers(self).iter().find(|container| container.name == name)?;
            Some(Cow::Owned(as_container(ephemeral)))
        })
    }

    fn used_volumes(&self) -> BTreeSet<String> {
        let declared = self.roles().into_iter().filter_map(|(_, name)| self.container(name));
        declared.flat_map(|container| volumes_of(&container)).collect()
    }

    fn field_path(&self, container: &str) -> String {
        let list = match self.roles().into_iter().find(|(_, name)| *name == container) {
            Some((Role::Init | Role::Sidecar, _)) => "initContainers",
            Some((Role::Ephemeral, _)) => "ephemeralContainers",
            Some((Role::App, _)) | None => "containers",
        };
        format!("spec.{list}{{{container}}}")
    }

    fn has_terminal_phase(&self) -> bool {
        let phase = self.status.as_ref().and_then(|status| status.phase.as_deref());
        matches!(phase, Some("Succeeded" | "Failed"))
    }
}

fn volumes_of(container: &Container) -> Vec<String> {
    let mounted = container.volume_mounts.iter().flatten().map(|mount| mount.name.clone());
    mounted.chain(file_references(container).into_iter().map(|(volume, _)| volume)).collect()
}

fn init_containers(pod: &Pod) -> &[Container] {
    pod.spec.as_ref().and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default()
}

fn ephemeral_containers(pod: &Pod) -> &[EphemeralContainer] {
    pod.spec.as_ref().and_then(|spec| spec.ephemeral_containers.as_deref()).unwrap_or_default()
}

fn role_in_init(container: &Container) -> Role {
    if container.restart_policy.as_deref() == Some("Always") { Role::Sidecar } else { Role::Init }
}

/// An ephemeral container has what a container has; probes, hooks, ports and resources the API does not let it have.
fn as_container(ephemeral: &EphemeralContainer) -> Container {
    Container {
        name: ephemeral.name.clone(),
        image: ephemeral.image.clone(),
        image_pull_policy: ephemeral.image_pull_policy.clone(),
        command: ephemeral.command.clone(),
        args: ephemeral.args.clone(),
        env: ephemeral.env.clone(),
        env_from: ephemeral.env_from.clone(),
        security_context: ephemeral.security_context.clone(),
        stdin: ephemeral.stdin,
        stdin_once: ephemeral.stdin_once,
        termination_message_path: ephemeral.termination_message_path.clone(),
        termination_message_policy: ephemeral.termination_message_policy.clone(),
        tty: ephemeral.tty,
        volume_devices: ephemeral.volume_devices.clone(),
        volume_mounts: ephemeral.volume_mounts.clone(),
        working_dir: ephemeral.working_dir.clone(),
        ..Container::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn volumes_are_used_by_containers_of_any_kind_and_by_variables() {
        let mounts = |name: &str| json!([{"name": name, "mountPath": "/v"}]);
        let file = json!({"fileKeyRef": {"volumeName": "d", "path": "env", "key": "K"}});
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "initContainers": [{"name": "first", "volumeMounts": mounts("a")}],
            "containers": [{"name": "app", "volumeMounts": mounts("b"), "env": [{"name": "K", "valueFrom": file}]}],
            "ephemeralContainers": [{"name": "debug", "volumeMounts": mounts("c")}],
            "volumes": [{"name": "unused"}],
        }}))
        .unwrap();
        assert_eq!(pod.used_volumes().into_iter().collect::<Vec<_>>(), ["a", "b", "c", "d"]);
    }

    #[test]
    fn containers_of_all_kinds_are_found_by_name_in_their_order() {
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "initContainers": [{"name": "first"}, {"name": "proxy", "restartPolicy": "Always"}],
            "containers": [{"name": "app", "image": "a"}],
            "ephemeralContainers": [{"name": "debug", "image": "d", "args": ["x"], "targetContainerName": "app"}],
        }}))
        .unwrap();
        let expected =
            [(Role::Init, "first"), (Role::Sidecar, "proxy"), (Role::App, "app"), (Role::Ephemeral, "debug")];
        assert_eq!(pod.roles(), expected);
        let image = |name: &str| pod.container(name).and_then(|container| container.image.clone());
        assert_eq!([image("app"), image("debug"), image("none")], [Some("a".into()), Some("d".into()), None]);
        assert_eq!(pod.container("debug").unwrap().args, Some(vec!["x".to_owned()]));
        let paths = ["proxy", "app", "debug"].map(|name| pod.field_path(name));
        assert_eq!(
            paths,
            ["spec.initContainers{proxy}", "spec.containers{app}", "spec.ephemeralContainers{debug}"]
        );
    }
}
