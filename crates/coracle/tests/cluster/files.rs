//! What a guest does with files, and what comes of it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::scene::Scene;
use crate::{guests, manifests, states};

/// A spec of one container that does these things, with these volumes and mounts.
pub(crate) async fn spec(volumes: Value, mounts: Value, commands: &[&str]) -> Value {
    let image = guests::image("disk-rust").await.unwrap();
    let container = json!({"image": image, "args": commands, "volumeMounts": mounts});
    let mut spec = manifests::of("Never", &container);
    spec["volumes"] = volumes;
    spec
}

/// What came of each command of a pod.
pub(crate) async fn outcomes(scene: &Scene<'_>, pod: &str) -> BTreeMap<String, String> {
    let log = scene.logs(pod, &[]).await.unwrap();
    let pairs = log.lines().filter_map(|line| line.split_once(": "));
    pairs.map(|(command, outcome)| (command.to_owned(), outcome.to_owned())).collect()
}

/// The same, once all have been tried.
pub(crate) async fn ran(scene: &Scene<'_>, pod: &str, spec: Value) -> BTreeMap<String, String> {
    let ended = scene.run_until(pod, spec, states::has_ended).await.unwrap();
    assert_eq!(states::exit(&ended), Some((0, "Completed")), "{pod}");
    outcomes(scene, pod).await
}
