//! The provider does what any provider must do, with modules and with components of WASI 0.2 and 0.3.

use std::path::Path;

use coracle_lifecycle::LocalImage;
use coracle_testing::conformance::{Bench, Programs, Servers, check_all};

use crate::machine;

fn programs(folder: &Path, make: impl Fn(&Path, &str) -> LocalImage) -> Programs {
    Programs {
        hello: make(folder, "hello"),
        exit_code: make(folder, "exit-code"),
        trap: make(folder, "trap"),
        sleep: make(folder, "sleep"),
        spin: make(folder, "spin"),
        grow_memory: make(folder, "grow-memory"),
        tools: machine::built(folder, "tools-rust"),
        garbage: machine::image(folder, "garbage", b"#!/bin/sh\nexit 0\n"),
        servers: Some(servers(folder, "net-rust", "http-test-rust")),
    }
}

fn servers(folder: &Path, echo: &str, http: &str) -> Servers {
    Servers { echo: machine::built(folder, echo), http: machine::built(folder, http) }
}

#[tokio::test]
async fn modules_conform() {
    let folder = tempfile::tempdir().unwrap();
    let provider = machine::provider(folder.path());
    let programs = programs(folder.path(), machine::guest);
    check_all(&Bench::new(&provider, folder.path()), &programs).await;
}

#[tokio::test]
async fn components_conform() {
    let folder = tempfile::tempdir().unwrap();
    let provider = machine::provider(folder.path());
    // The adapter passes on 0 and "not 0" only, so this one says its code itself.
    let mut programs = programs(folder.path(), machine::component);
    programs.exit_code = machine::guest(folder.path(), "exit-code");
    programs.servers = Some(servers(folder.path(), "net-rust-p2", "http-test-rust"));
    check_all(&Bench::new(&provider, folder.path()), &programs).await;
}

#[tokio::test]
async fn concurrent_components_conform() {
    let folder = tempfile::tempdir().unwrap();
    let provider = machine::provider(folder.path());
    let bytes = coracle_testing::fixtures::built("command-concurrent-rust").unwrap();
    // It has the name of what it is to do.
    let mut programs = programs(folder.path(), |folder, name| machine::image(folder, name, &bytes));
    programs.tools = machine::image(folder.path(), "tools", &bytes);
    programs.servers = Some(servers(folder.path(), "command-concurrent-rust", "http-concurrent-rust"));
    check_all(&Bench::new(&provider, folder.path()), &programs).await;
}
