use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use coracle_lifecycle::{ContainerSpec, Exit, Mount, Wish};
use k8s_openapi::api::core::v1::{Container, Pod};

use super::beneath::Beneath;
use super::{normal, open, place, relative};
use crate::pods::disk;

/// Where a container leaves its last words when it does not say.
const USUAL_PATH: &str = "/dev/termination-log";
/// The longest message of one container, and of all containers of a pod together, in bytes.
const LONGEST: u64 = 4096;
const LONGEST_OF_POD: usize = 12 * 1024;
/// What stands for a message where a container wants its log to: so many bytes and lines of its end.
const LOG_BYTES: usize = 2048;
const LOG_LINES: usize = 80;
/// What is read of a log for that: its lines are longer in the file.
const LOG_READ: u64 = 64 * 1024;

/// Where a container leaves the message of its end.
///
/// <https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/>
#[derive(Clone, Debug)]
pub(in crate::pods) struct LastWords {
    root: PathBuf,
    mounts: Vec<Mount>,
    /// As the container sees it.
    path: String,
    limit: usize,
    /// The log, where its end stands for a message that was not left.
    log: Option<PathBuf>,
    /// What was there before the container started.
    before: Option<Stamp>,
}

/// What tells a file, and what is in it, from others.
type Stamp = (u64, i64, i64);

impl LastWords {
    /// Those of a run of a container.
    pub(in crate::pods) fn of(spec: &ContainerSpec, pod: &Pod, declared: &Container) -> Self {
        let falls_back = declared.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
        let given = declared.termination_message_path.as_deref().filter(|path| !path.is_empty());
        Self {
            root: spec.root.clone(),
            mounts: spec.mounts.clone(),
            path: normal(given.unwrap_or(USUAL_PATH)),
            limit: usize::try_from(LONGEST)
                .unwrap_or(usize::MAX)
                .min(LONGEST_OF_POD / pod.containers().len().max(1)),
            log: falls_back.then(|| spec.log.path.clone()),
            before: None,
        }
    }

    /// Makes the empty file in the root of the container, and sees to it that the container can write to it where it cannot
    /// write to its root. In a volume nothing is made: what is there already is no message.
    pub(in crate::pods) async fn prepare(&mut self, spec: &mut ContainerSpec) -> io::Result<()> {
        let words = self.clone();
        let is_read_only = spec.read_only_root;
        let prepared = disk::off_thread(move || {
            if place(&words.mounts, &words.path).is_some() {
                let found = words.open().and_then(|file| stamp(&file)).ok();
                return Ok((found, None));
            }
            let root = Beneath::root(&words.root)?;
            let path = relative(&words.path);
            root.write(path, b"", 0o666)?;
            let above = path.parent().filter(|above| is_read_only && !above.as_os_str().is_empty());
            Ok((None, above.map(|above| writable(&root, above)).transpose()?))
        });
        let (before, mount) = prepared.await?;
        spec.mounts.extend(mount);
        self.before = before;
        Ok(())
    }

    /// An end with its message: what the runtime says, and what the container left, or the end of its log when it left
    /// nothing, failed and wants that.
    pub(in crate::pods) async fn add_to(self, exit: Exit) -> Exit {
        let (failed, limit) = (exit.cause.exit_code() != 0, self.limit);
        let left = disk::off_thread(move || Ok(self.left(failed))).await.unwrap_or_default();
        let message = match (exit.message, left.is_empty()) {
            (said, true) => said,
            (None, false) => Some(left),
            (Some(said), false) => Some(format!("{said}: {left}")),
        };
        let message = message.map(|mut message| {
            message.truncate(message.floor_char_boundary(limit));
            message
        });
        Exit { message, ..exit }
    }

    fn left(&self, failed: bool) -> String {
        match self.read() {
            Ok(bytes) if bytes.is_empty() && failed => {
                self.log.as_deref().and_then(|log| end_of_log(log).ok()).unwrap_or_default()
            }
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) => format!("Error on reading termination log {}: {error}", self.path),
        }
    }

    fn read(&self) -> io::Result<Vec<u8>> {
        let file = match self.open() {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(Vec::new());
            }
            file => file?,
        };
        if self.before.is_some() && self.before == stamp(&file).ok() {
            return Ok(Vec::new());
        }
        end(file, LONGEST)
    }

    fn open(&self) -> io::Result<File> {
        let (directory, path) = open(&self.root, &self.mounts, &self.path)?;
        directory.open_file(&path)
    }
}

fn stamp(file: &File) -> io::Result<Stamp> {
    let metadata = file.metadata()?;
    Ok((metadata.ino(), metadata.ctime(), metadata.ctime_nsec()))
}

/// A directory of a container's root as a mount that can be written to.
fn writable(root: &Beneath, directory: &Path) -> io::Result<Mount> {
    let target = Path::new("/").join(directory).display().to_string();
    Ok(Mount { source: root.find(directory)?.path()?, target, read_only: false })
}

/// The last bytes of a file.
fn end(mut file: File, most: u64) -> io::Result<Vec<u8>> {
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(most)))?;
    let mut content = Vec::new();
    file.take(most).read_to_end(&mut content)?;
    Ok(content)
}

/// The last lines of a log in the CRI format. One that is cut at its begin is left out.
fn end_of_log(path: &Path) -> io::Result<String> {
    let content = end(File::open(path)?, LOG_READ)?;
    let text = String::from_utf8_lossy(&content);
    let is_cut = u64::try_from(content.len()).is_ok_and(|length| length == LOG_READ);
    let lines: Vec<&str> = text.lines().skip(usize::from(is_cut)).collect();
    let mut said = said(&lines[lines.len().saturating_sub(LOG_LINES)..]);
    let start = said.ceil_char_boundary(said.len().saturating_sub(LOG_BYTES));
    Ok(said.split_off(start))
}

/// What was said in these lines of a log.
fn said(lines: &[&str]) -> String {
    let mut said = String::new();
    for line in lines {
        let mut parts = line.splitn(4, ' ').skip(2);
        let (tag, text) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        said.push_str(text);
        if tag != "P" {
            said.push('\n');
        }
    }
    said
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use coracle_lifecycle::Cause;
    use jiff::Timestamp;
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    struct Scene {
        folder: tempfile::TempDir,
        words: LastWords,
    }

    fn scene(path: &str, log: Option<&str>) -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().canonicalize().unwrap();
        for name in ["root/dev", "volume"] {
            fs::create_dir_all(real.join(name)).unwrap();
        }
        fs::write(real.join("secret"), "secret").unwrap();
        fs::write(real.join("0.log"), log.unwrap_or_default()).unwrap();
        let volume = Mount { source: real.join("volume"), target: "/data".to_owned(), read_only: false };
        let words = LastWords {
            root: real.join("root"),
            mounts: vec![volume],
            path: path.to_owned(),
            limit: LONGEST_OF_POD,
            log: log.map(|_| real.join("0.log")),
            before: None,
        };
        Scene { folder, words }
    }

    impl Scene {
        fn file(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        async fn message(&self, cause: Cause, said: Option<&str>) -> Option<String> {
            let time = Timestamp::UNIX_EPOCH;
            let message = said.map(ToOwned::to_owned);
            let exit = Exit { cause, message, started_at: time, finished_at: time };
            self.words.clone().add_to(exit).await.message
        }

        async fn left(&self) -> Option<String> {
            self.message(Cause::Exited(1), None).await
        }
    }

    const USUAL: &str = "root/dev/termination-log";

    #[tokio::test]
    async fn the_end_of_the_file_follows_what_the_runtime_says() {
        let mut scene = scene(USUAL_PATH, None);
        assert_eq!(scene.left().await, None);
        fs::write(scene.file(USUAL), format!("{}end", "x".repeat(5000))).unwrap();
        let message = scene.left().await.unwrap();
        assert!(message.len() == 4096 && message.ends_with("xend"));
        fs::write(scene.file(USUAL), "left").unwrap();
        assert_eq!(scene.message(Cause::Trapped(134), Some("said")).await.unwrap(), "said: left");
        scene.words.limit = 3;
        assert_eq!(scene.left().await.unwrap(), "lef");
    }

    #[tokio::test]
    async fn a_message_is_read_where_the_container_sees_it_and_nowhere_else() {
        let of_volume = scene("/data/words", None);
        fs::write(of_volume.file("volume/words"), "of a volume").unwrap();
        assert_eq!(of_volume.left().await.unwrap(), "of a volume");
        for (path, link) in [(USUAL_PATH, USUAL), ("/data/words", "volume/words")] {
            let scene = scene(path, None);
            symlink(scene.file("secret"), scene.file(link)).unwrap();
            let message = scene.left().await.unwrap_or_default();
            assert!(!message.contains("secret") || message.starts_with("Error on reading"), "{message}");
            fs::remove_file(scene.file(link)).unwrap();
            mknodat(CWD, scene.file(link), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
            let message = scene.left().await.unwrap();
            assert!(message.starts_with(&format!("Error on reading termination log {path}: ")), "{message}");
        }
    }

    #[tokio::test]
    async fn the_log_stands_in_for_a_failed_run_that_left_nothing() {
        let log = "2026-01-01T00:00:00Z stdout P half \nt stdout F whole\nt stderr F last\n";
        let short = scene(USUAL_PATH, Some(log));
        assert_eq!(short.left().await.as_deref(), Some("half whole\nlast\n"));
        assert_eq!(short.message(Cause::Exited(0), None).await, None);
        fs::write(short.file(USUAL), "left").unwrap();
        assert_eq!(short.left().await.as_deref(), Some("left"));
        let lines = |text: &str| {
            let lines: Vec<String> = (0..2000).map(|number| format!("t stdout F {text}{number}\n")).collect();
            lines.concat()
        };
        let many = scene(USUAL_PATH, Some(&lines(""))).left().await.unwrap();
        assert!(many.starts_with("1920\n") && many.ends_with("1999\n"), "{many}");
        let bounded = scene(USUAL_PATH, Some(&lines(&"ä".repeat(50)))).left().await.unwrap();
        assert!(bounded.len() <= LOG_BYTES && bounded.ends_with("ä1999\n"), "{bounded}");
    }
}
