use std::sync::Arc;
use std::time::Duration;

use coracle_lifecycle::{Cause, ContainerSpec, PrepareError, StartError};

use super::commands::check_commands;
use super::network::check_network;
use super::{Bench, Programs, exit_of, is_running, stop};

/// Checks everything a provider must do; it leaves no container running.
///
/// # Panics
/// The provider does not do it.
pub async fn check_all(bench: &Bench<'_>, programs: &Programs) {
    check_description(bench);
    check_output_and_codes(bench, programs).await;
    check_failures(bench, programs).await;
    check_memory_limit(bench, programs).await;
    check_stop(bench, programs).await;
    check_exits_are_shared(bench, programs).await;
    check_bookkeeping(bench, programs).await;
    check_removal_ends_a_run(bench, programs).await;
    check_refusals(bench, programs).await;
    check_commands(bench, programs).await;
    if let Some(servers) = &programs.servers {
        check_network(bench, servers).await;
    }
}

fn check_description(bench: &Bench<'_>) {
    let info = bench.provider.describe();
    for text in [&info.name, &info.version, &info.architecture, &info.operating_system] {
        assert!(!text.is_empty(), "{info:?}");
    }
    assert!(info.max_containers > 0);
}

async fn check_output_and_codes(bench: &Bench<'_>, programs: &Programs) {
    let (exit, text) = bench.run(bench.spec(&programs.hello, &[])).await;
    assert_eq!((exit.cause, exit.message.as_deref()), (Cause::Exited(0), None));
    assert_eq!(text, "hello from a guest\n");
    assert!(exit.started_at <= exit.finished_at);
    for code in [0, 1, 42, 126, 137, 255] {
        let (exit, _) = bench.run(bench.spec(&programs.exit_code, &[&code.to_string()])).await;
        assert_eq!(exit.cause, Cause::Exited(code));
    }
}

async fn check_failures(bench: &Bench<'_>, programs: &Programs) {
    let (exit, _) = bench.run(bench.spec(&programs.trap, &[])).await;
    assert!(matches!(exit.cause, Cause::Trapped(code) if code > 128), "{exit:?}");
    assert!(exit.message.is_some_and(|message| !message.is_empty()));
}

async fn check_memory_limit(bench: &Bench<'_>, programs: &Programs) {
    let mut spec = bench.spec(&programs.grow_memory, &[]);
    spec.limits.memory = Some(4 << 20);
    assert_eq!(bench.run(spec).await.0.cause, Cause::OutOfMemory);
    let mut spec = bench.spec(&programs.grow_memory, &[]);
    spec.pod_limits.memory = Some(4 << 20);
    assert_eq!(bench.run(spec).await.0.cause, Cause::OutOfMemory);
}

async fn check_stop(bench: &Bench<'_>, programs: &Programs) {
    for image in [&programs.sleep, &programs.spin] {
        for (grace, cause) in [(Duration::from_secs(30), Cause::Stopped), (Duration::ZERO, Cause::Killed)] {
            let container = bench.start(bench.spec(image, &[])).await;
            assert!(is_running(&*container));
            let exit = stop(&*container, grace).await;
            assert_eq!((exit.cause, &exit.message), (cause, &None));
            container.stop(Duration::ZERO);
            assert_eq!(exit_of(&*container).await, exit, "a second stop changes nothing");
        }
    }
    let container = bench.start(bench.spec(&programs.exit_code, &["3"])).await;
    let exit = exit_of(&*container).await;
    container.stop(Duration::from_secs(30));
    assert_eq!(exit_of(&*container).await, exit, "a stop after the end changes nothing");
    assert_eq!(exit.cause, Cause::Exited(3));
}

async fn check_exits_are_shared(bench: &Bench<'_>, programs: &Programs) {
    let container = bench.start(bench.spec(&programs.sleep, &[])).await;
    drop(container.exited());
    let (one, other) = (Arc::clone(&container), Arc::clone(&container));
    let waiting = futures::future::join(exit_of(&*one), exit_of(&*other));
    container.stop(Duration::from_secs(1));
    let (one, other) = waiting.await;
    assert_eq!(one, other);
}

async fn check_bookkeeping(bench: &Bench<'_>, programs: &Programs) {
    let (ended, running) = (bench.spec(&programs.hello, &[]), bench.spec(&programs.sleep, &[]));
    exit_of(&*bench.start(ended.clone()).await).await;
    let container = bench.start(running.clone()).await;
    let known = bench.provider.containers().await;
    let find = |spec: &ContainerSpec| known.iter().find(|known| known.spec == *spec).expect("it is known");
    assert_eq!(find(&ended).exit.as_ref().map(|exit| exit.cause), Some(Cause::Exited(0)));
    let found = find(&running);
    assert!(found.exit.is_none());
    let exit = stop(&*found.container, Duration::from_secs(1)).await;
    assert_eq!(exit.started_at, found.started_at);
    assert!(!is_running(&*container), "a known container is the same container");
    for spec in [&ended, &running] {
        bench.provider.remove(&spec.id);
        bench.provider.remove(&spec.id);
        bench.provider.remove_pod(&spec.pod.uid);
    }
    let known = bench.provider.containers().await;
    assert!(!known.iter().any(|known| known.spec.id == ended.id || known.spec.id == running.id));
}

async fn check_removal_ends_a_run(bench: &Bench<'_>, programs: &Programs) {
    let spec = bench.spec(&programs.spin, &[]);
    let container = bench.start(spec.clone()).await;
    bench.provider.remove(&spec.id);
    assert_eq!(exit_of(&*container).await.cause, Cause::Killed, "a removed container does not run on");
}

async fn check_refusals(bench: &Bench<'_>, programs: &Programs) {
    let refused = bench.provider.prepare(&programs.garbage).await;
    assert!(matches!(refused, Err(PrepareError::Invalid(_))), "{refused:?}");
    let mut spec = bench.spec(&programs.hello, &[]);
    spec.root = bench.folder.join("does-not-exist");
    bench.provider.prepare(&spec.image).await.expect("the image can be prepared");
    assert!(matches!(bench.provider.start(spec).await, Err(StartError::Invalid(_))));
}
