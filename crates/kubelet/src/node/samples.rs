//! Values the tests of this module share.

use coracle_lifecycle::RuntimeInfo;
use jiff::Timestamp;

use super::{Facts, NodeSettings, Room, Thresholds, default_taints};

pub(super) fn runtime() -> RuntimeInfo {
    RuntimeInfo {
        name: "wasmtime".to_owned(),
        version: "48.0.0".to_owned(),
        architecture: "wasm32-wasi".to_owned(),
        operating_system: "wasm32-wasi".to_owned(),
        handlers: vec!["wasmtime".to_owned()],
        max_containers: 500,
    }
}

pub(super) fn settings() -> NodeSettings {
    NodeSettings {
        name: "n1".to_owned(),
        addresses: vec!["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()],
        port: 10250,
        labels: [("zone".to_owned(), "a".to_owned())].into(),
        shutdown_grace: crate::ShutdownGrace::default(),
        taints: default_taints("wasm32-wasi"),
        max_pods: None,
        thresholds: Thresholds::default(),
        root_dir: "/".into(),
        allowed_host_paths: Vec::new(),
        cluster_dns: Vec::new(),
        cluster_domain: String::new(),
        runtime: runtime(),
        kubelet_version: "v1.36.0+coracle.0.1.0".to_owned(),
    }
}

pub(super) fn facts() -> Facts {
    let room = |total| Room { total, available: total / 2 };
    Facts {
        cores: 2,
        memory: room(8 << 30),
        disk: room(100 << 30),
        inodes: room(1 << 20),
        ..Facts::default()
    }
}

pub(super) fn time(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}
