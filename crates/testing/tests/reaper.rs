//! What a killed process had started is gone soon after it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(20);

fn process_exists(id: &str) -> bool {
    Path::new("/proc").join(id).exists()
}

#[tokio::test]
async fn a_killed_process_leaves_neither_processes_nor_folders() {
    let mut child =
        Command::new(env!("CARGO_BIN_EXE_coracle-testing-owner")).stdout(Stdio::piped()).spawn().unwrap();
    let lines: Vec<String> = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap)
        .take_while(|line| line != "complete")
        .collect();
    let of = |word: &str| -> Vec<String> {
        lines.iter().filter_map(|line| line.strip_prefix(word)).map(|rest| rest.trim().to_owned()).collect()
    };
    let (processes, folders) = (of("process"), of("folder"));
    assert_eq!((processes.len(), folders.len()), (5, 2), "{lines:?}");
    assert!(processes.iter().all(|id| process_exists(id)), "{processes:?}");
    assert!(folders.iter().all(|folder| Path::new(folder).is_dir()), "{folders:?}");

    // Who may not mount has left nothing mounted.
    let place = Path::new(&folders[0]).join("place");
    std::fs::create_dir(&place).unwrap();
    let _ = rustix::mount::mount("tmpfs", &place, "tmpfs", rustix::mount::MountFlags::empty(), None);
    std::fs::write(place.join("file"), "").unwrap();

    child.kill().unwrap();
    child.wait().unwrap();

    let gone = async {
        let mut tick = tokio::time::interval(Duration::from_millis(50));
        while processes.iter().any(|id| process_exists(id)) || folders.iter().any(|it| Path::new(it).exists())
        {
            tick.tick().await;
        }
    };
    let gone = tokio::time::timeout(LIMIT, gone).await;
    assert!(gone.is_ok(), "left after {LIMIT:?}: {processes:?} {folders:?}");
}
