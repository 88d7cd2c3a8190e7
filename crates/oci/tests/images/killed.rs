//! A process that is killed at any point of a pull leaves nothing half-made that is ever used.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use coracle_lifecycle::{Images, LocalImage};

use crate::fixture::Fixture;
use crate::layers::{Layer, Layered};

const KILLS: u32 = 200;

fn begin(fixture: &Fixture) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coracle-pull"));
    command.arg(fixture.directory.path()).arg(fixture.server.host()).arg(fixture.reference("app:1"));
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Waits off the threads that serve the registry.
async fn ended(mut child: Child) -> bool {
    tokio::task::spawn_blocking(move || child.wait().unwrap().success()).await.unwrap()
}

/// The files below a directory with what they hold.
fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut ahead = vec![directory.to_owned()];
    while let Some(directory) = ahead.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                ahead.push(path);
            } else {
                all.insert(path.clone(), fs::read(path).unwrap());
            }
        }
    }
    all
}

fn image() -> Layered {
    let names: Vec<String> = (0..60).map(|number| format!("data/{}/{number}", number % 10)).collect();
    let layer = |mark: u8| {
        let content: Vec<u8> = (0..2000_u32).map(|byte| u8::try_from(byte % 251).unwrap() ^ mark).collect();
        let all: Vec<(&str, &[u8])> = names.iter().map(|name| (&**name, &*content)).collect();
        Layer::new(&all)
    };
    Layered::new([layer(1), layer(2), Layer::new(&[("data/.wh.3", b""), ("app.wasm", b"\0asm")])])
}

/// Lets a pull come to its end and says how long that took.
async fn whole(fixture: &Fixture) -> Duration {
    let began = Instant::now();
    assert!(ended(begin(fixture)).await);
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_times() {
    let mut fixture = Fixture::start().await;
    let image = image();
    image.push(&fixture.server, "app", "1");
    let mut length = whole(&fixture).await;
    fixture = fixture.reopen();
    let pulled = fixture.find("app:1").await.unwrap();
    let expected = files(&pulled.files().unwrap().directory);
    let (mut before, mut after) = (0, 0);
    for kill in 0..KILLS {
        fixture.store.remove(&pulled.digest).await.unwrap();
        // How quick this machine is changes with what else it does.
        if kill % 20 == 10 {
            length = whole(&fixture).await;
            fixture = fixture.reopen();
            fixture.store.remove(&pulled.digest).await.unwrap();
        }
        let mut child = begin(&fixture);
        tokio::time::sleep(length.mul_f64(1.2) * kill / KILLS).await;
        // It may have ended.
        let _ = child.kill();
        ended(child).await;
        fixture = fixture.reopen();
        assert_eq!(fixture.files("unfinished"), Vec::<String>::new());
        match fixture.find("app:1").await {
            None => before += 1,
            Some(found) => {
                after += 1;
                check(&found, &pulled, &expected);
            }
        }
    }
    // Else nothing was there to be killed.
    assert!(before > KILLS / 10, "{before} before the end, {after} after it");
    assert_eq!(&fixture.pull("app:1").await.unwrap(), &pulled);
    check(&pulled, &pulled, &expected);
}

fn check(found: &LocalImage, pulled: &LocalImage, expected: &BTreeMap<PathBuf, Vec<u8>>) {
    assert_eq!(found, pulled);
    assert!(files(&found.files().unwrap().directory) == *expected, "not all files are whole");
}
