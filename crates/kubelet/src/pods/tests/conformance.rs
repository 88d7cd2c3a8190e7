//! The runtime in memory does what any provider must do, so that what the node does with it is true of the others.

use coracle_testing::conformance::{Bench, Programs, check_all};

use crate::pods::testing::{FakeRuntime, image};

#[tokio::test]
async fn the_runtime_in_memory_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let programs = Programs {
        hello: image("hello"),
        exit_code: image("exit-code"),
        trap: image("trap"),
        sleep: image("sleep"),
        spin: image("spin"),
        grow_memory: image("grow-memory"),
        tools: image("tools"),
        garbage: image("garbage"),
        servers: None,
    };
    check_all(&Bench::new(&FakeRuntime::new(), folder.path()), &programs).await;
}
