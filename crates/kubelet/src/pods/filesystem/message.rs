use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use coracle_lifecycle::{ContainerSpec, Exit, Mount, Wish};
use k8s_openapi::api::core::v1::{Container, Pod};

use super::open;
use crate::pods::disk;

/// Where a container leaves its last words when it does not say.
const USUAL_PATH: &str = "/dev/termination-log";
/// The longest message of one container, and of all containers of a pod together, in bytes.
const LONGEST: u64 = 4096;
const LONGEST_OF_POD: u64 = 12 * 1024;
/// What stands for a message where a container wants its log to: so many bytes and lines of its end.
const LOG_BYTES: usize = 2048;
const LOG_LINES: usize = 80;
/// What is read of a log for that: its lines are longer in the file.
const LOG_READ: u64 = 16 * 1024;

/// Where a container leaves the message of its end.
///
/// <https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/>
#[derive(Clone, Debug)]
pub(in crate::pods) struct LastWords {
    root: PathBuf,
    mounts: Vec<Mount>,
    path: String,
    limit: u64,
    /// The log, where its end stands for a message that was not left.
    log: Option<PathBuf>,
}

impl LastWords {
    /// Those of a run of a container.
    pub(in crate::pods) fn of(spec: &ContainerSpec, pod: &Pod, declared: &Container) -> Self {
        let falls_back = declared.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
        let containers = u64::try_from(pod.containers().len()).unwrap_or(1).max(1);
        Self {
            root: spec.root.clone(),
            mounts: spec.mounts.clone(),
            path: path(declared),
            limit: LONGEST.min(LONGEST_OF_POD / containers),
            log: falls_back.then(|| spec.log.path.clone()),
        }
    }

    /// An end with its message: what the container left, the end of its log when it left nothing, failed and wants that,
    /// else what the runtime says.
    pub(in crate::pods) async fn add_to(self, exit: Exit) -> Exit {
        let failed = exit.cause.exit_code() != 0;
        let said = disk::off_thread(move || Ok(self.left().or_else(|| self.logged().filter(|_| failed))));
        match said.await {
            Ok(Some(message)) => Exit { message: Some(message), ..exit },
            _ => exit,
        }
    }

    fn left(&self) -> Option<String> {
        let (directory, path) = open(&self.root, &self.mounts, &self.path).ok()?;
        let content = directory.read(&path, self.limit).ok()?;
        Some(String::from_utf8_lossy(&content).into_owned()).filter(|message| !message.is_empty())
    }

    fn logged(&self) -> Option<String> {
        let end = end_of_log(self.log.as_deref()?).ok()?;
        Some(end).filter(|message| !message.is_empty())
    }
}

/// Where a container leaves its last words.
pub(in crate::pods) fn path(declared: &Container) -> String {
    let given = declared.termination_message_path.clone().filter(|path| !path.is_empty());
    given.unwrap_or_else(|| USUAL_PATH.to_owned())
}

/// The last lines of a log in the CRI format.
fn end_of_log(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let size = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(size.saturating_sub(LOG_READ)))?;
    let mut content = Vec::new();
    file.take(LOG_READ).read_to_end(&mut content)?;
    let text = String::from_utf8_lossy(&content);
    let whole =
        if size > LOG_READ { text.split_once('\n').map_or("", |(_, rest)| rest) } else { text.as_ref() };
    Ok(last(&said(whole)))
}

/// What was said in these lines of a log.
fn said(lines: &str) -> String {
    let mut said = String::new();
    for line in lines.lines() {
        let mut parts = line.splitn(4, ' ').skip(2);
        let (tag, text) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        said.push_str(text);
        if tag.starts_with('F') {
            said.push('\n');
        }
    }
    said
}

fn last(text: &str) -> String {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let text = lines[lines.len().saturating_sub(LOG_LINES)..].concat();
    let mut start = text.len().saturating_sub(LOG_BYTES);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text[start..].to_owned()
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::fs;

    use super::*;

    #[test]
    fn the_end_of_a_log_is_what_was_said_last() {
        let log = "2026-01-01T00:00:00Z stdout F one\n2026-01-01T00:00:00Z stderr P tw\n2026-01-01T00:00:00Z stderr F o x\n";
        assert_eq!(said(log), "one\ntwo x\n");
        let many: String = (0..100).fold(String::new(), |mut text, number| {
            let _ = writeln!(text, "line {number}");
            text
        });
        let end = last(&many);
        assert!(end.starts_with("line 20\n") && end.ends_with("line 99\n"), "{end}");
        assert_eq!(last(&"ü".repeat(3000)).len(), LOG_BYTES);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let whole: String = (0..2000).fold(String::new(), |mut text, number| {
            let _ = writeln!(text, "2026-01-01T00:00:00Z stdout F {number}");
            text
        });
        fs::write(&path, whole).unwrap();
        assert!(end_of_log(&path).unwrap().ends_with("1998\n1999\n"));
    }

    fn words(root: &Path, path: &str, mounts: Vec<Mount>) -> LastWords {
        LastWords { root: root.to_owned(), mounts, path: path.to_owned(), limit: 10, log: None }
    }

    #[test]
    fn a_message_is_read_where_the_container_sees_it_and_nowhere_else() {
        let scene = tempfile::tempdir().unwrap();
        let (root, volume) = (scene.path().join("root"), scene.path().join("volume"));
        fs::create_dir_all(root.join("dev")).unwrap();
        fs::create_dir_all(&volume).unwrap();
        fs::write(scene.path().join("secret"), "secret").unwrap();
        assert_eq!(words(&root, "/dev/termination-log", Vec::new()).left(), None);
        fs::write(root.join("dev/termination-log"), "a long message").unwrap();
        assert_eq!(words(&root, "/dev/termination-log", Vec::new()).left().as_deref(), Some("a long mes"));
        let mount = Mount { source: volume.clone(), target: "/data".to_owned(), read_only: false };
        fs::write(volume.join("words"), "of a volume").unwrap();
        assert_eq!(words(&root, "/data/words", vec![mount]).left().as_deref(), Some("of a volum"));
        std::os::unix::fs::symlink("../../secret", root.join("dev/link")).unwrap();
        assert_eq!(words(&root, "/dev/link", Vec::new()).left(), None);
    }
}
