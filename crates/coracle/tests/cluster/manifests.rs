//! Manifests, as short as they can be.

use serde_json::{Value, json};

/// A pod with this spec.
pub(crate) fn pod(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
}

/// The spec of a pod with one container, called `app`, that is not restarted.
pub(crate) fn once(image: &str, arguments: &[&str]) -> Value {
    app("Never", image, arguments)
}

/// The spec of a pod with one container, called `app`.
pub(crate) fn app(restart_policy: &str, image: &str, arguments: &[&str]) -> Value {
    of(restart_policy, &json!({"image": image, "args": arguments}))
}

/// The spec of a pod whose one container, called `app`, has these fields.
pub(crate) fn of(restart_policy: &str, container: &Value) -> Value {
    let mut container = container.clone();
    container["name"] = "app".into();
    json!({"restartPolicy": restart_policy, "containers": [container]})
}

/// A pod's spec that the scheduler can only put onto this node, with the toleration that Krustlet's users write.
pub(crate) fn placed(node: &str, mut spec: Value) -> Value {
    spec["nodeSelector"] = json!({"kubernetes.io/hostname": node});
    spec["tolerations"] = json!([{"key": "kubernetes.io/arch", "operator": "Equal", "value": "wasm32-wasi"}]);
    spec
}
