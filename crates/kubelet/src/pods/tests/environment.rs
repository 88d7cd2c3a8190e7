use serde_json::{Value, json};

use crate::pods::testing::{Scene, container, pod};

const SETTINGS: &str = "/api/v1/namespaces/default/configmaps/settings";
const KEYS: &str = "/api/v1/namespaces/default/secrets/keys";

/// A pod whose container has these variables.
fn with_variables(env: Value) -> Value {
    let mut pod = pod("Always", "app");
    pod["spec"]["containers"][0]["env"] = env;
    pod
}

fn key(kind: &str, name: &str) -> Value {
    json!([{ "name": "V", "valueFrom": { kind: { "name": name, "key": "k" } } }])
}

fn value<'a>(env: &'a [(String, String)], name: &str) -> Option<&'a str> {
    env.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
}

#[tokio::test(start_paused = true)]
async fn variables_come_from_objects_services_and_the_pod_itself() {
    let scene = Scene::new().await;
    scene.api.put(SETTINGS, json!({ "data": { "k": "from the map" } }));
    let port = json!({ "clusterIP": "10.0.0.1", "ports": [{ "port": 443 }] });
    scene.api.put(
        "/api/v1/namespaces/default/services/kubernetes",
        json!({
            "metadata": { "namespace": "default" }, "spec": port
        }),
    );
    let mut env = key("configMapKeyRef", "settings");
    let more = json!([
        { "name": "IP", "valueFrom": { "fieldRef": { "fieldPath": "status.hostIP" } } },
        { "name": "CPU", "valueFrom": { "resourceFieldRef": { "resource": "limits.cpu" } } },
        { "name": "API", "value": "$(KUBERNETES_SERVICE_HOST) $(HOSTNAME)" },
    ]);
    env.as_array_mut().unwrap().extend(more.as_array().unwrap().clone());
    scene.create("p", with_variables(env));
    let env = scene.run("p", 0).await.spec.env;
    assert_eq!(value(&env, "V"), Some("from the map"));
    assert_eq!(value(&env, "IP"), Some("192.0.2.7"));
    assert_eq!(value(&env, "CPU"), Some("2"));
    assert_eq!(value(&env, "API"), Some("10.0.0.1 $(HOSTNAME)"));
    assert_eq!(value(&env, "HOSTNAME"), Some("p"));
    assert_eq!(value(&env, "KUBERNETES_SERVICE_PORT"), Some("443"));
}

#[tokio::test(start_paused = true)]
async fn a_container_waits_for_what_it_needs_and_starts_at_once_when_that_appears() {
    let scene = Scene::new().await;
    scene.create("p", with_variables(key("secretKeyRef", "keys")));
    let pod = scene.waits("p", "CreateContainerConfigError").await;
    assert_eq!(container(&pod)["state"]["waiting"]["message"], "secret \"keys\" not found");
    assert_eq!(scene.event("Failed").await, "Error: secret \"keys\" not found");
    scene.api.put(KEYS, json!({ "data": { "other": "" } }));
    let message = "couldn't find key k in Secret default/keys";
    scene.pod("p", message, |pod| container(pod)["state"]["waiting"]["message"] == message).await;
    let before = tokio::time::Instant::now();
    scene.api.put(KEYS, json!({ "data": { "k": "aHVudGVyMg==" } }));
    scene.phase("p", "Running").await;
    assert!(before.elapsed() < std::time::Duration::from_secs(1), "{:?}", before.elapsed());
    assert_eq!(value(&scene.run("p", 0).await.spec.env, "V"), Some("hunter2"));
}

#[tokio::test(start_paused = true)]
async fn an_object_is_let_go_when_the_pod_has_ended() {
    let scene = Scene::new().await;
    scene.api.put(SETTINGS, json!({ "data": { "k": "v" } }));
    let mut ends = with_variables(key("configMapKeyRef", "settings"));
    ends["spec"]["restartPolicy"] = json!("Never");
    scene.create("p", ends);
    scene.run("p", 0).await;
    let watches = |number: usize| {
        move |state: &crate::pods::testing::State| {
            let watches = state.watches.iter().filter(|watch| watch.contains("/configmaps?")).count();
            (watches == number).then_some(())
        }
    };
    scene.api_shows("a watch", watches(1)).await;
    scene.runtime.exit("p", coracle_lifecycle::Cause::Exited(0));
    scene.api_shows("no watch", watches(0)).await;
}
