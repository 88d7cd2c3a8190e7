//! A container's log file, written and rotated by the thread on which the guest writes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coracle_lifecycle::LogFile;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use tracing::warn;

use crate::clock::now;
use crate::lines::{Channel, Lines};

/// A container's log. Writing never fails: what cannot be written, on a full disk, is dropped, counted and said once.
#[derive(Clone)]
pub(crate) struct Log(Arc<Mutex<Writer>>);

impl Log {
    /// Opens the log, made with its directory when missing; new lines follow what it holds.
    pub(crate) fn open(settings: LogFile) -> io::Result<Self> {
        if let Some(directory) = settings.path.parent() {
            fs::create_dir_all(directory)?;
        }
        let file = open(&settings.path)?;
        let size = file.metadata()?.len();
        Ok(Self(Arc::new(Mutex::new(Writer {
            settings,
            file,
            size,
            lines: Lines::default(),
            rotated_at: Timestamp::UNIX_EPOCH,
            dropped: 0,
        }))))
    }

    pub(crate) fn write(&self, channel: Channel, bytes: &[u8]) {
        let mut writer = self.0.lock();
        let lines = writer.lines.of(channel, bytes, now());
        writer.append(&lines);
    }

    /// Writes the lines that never ended.
    pub(crate) fn finish(&self) {
        let mut writer = self.0.lock();
        let lines = writer.lines.finish(now());
        writer.append(&lines);
        if writer.dropped > 0 {
            warn!(path = %writer.settings.path.display(), bytes = writer.dropped, "output of a container was dropped");
        }
    }
}

struct Writer {
    settings: LogFile,
    file: File,
    size: u64,
    lines: Lines,
    /// The time in the name of the newest rotated log.
    rotated_at: Timestamp,
    /// Bytes that could not be written.
    dropped: u64,
}

impl Writer {
    fn append(&mut self, lines: &[u8]) {
        if lines.is_empty() {
            return;
        }
        match self.file.write_all(lines) {
            Ok(()) => self.size += lines.len() as u64,
            Err(error) => self.drop_lines(lines.len(), &error),
        }
        if self.settings.max_size > 0 && self.size >= self.settings.max_size {
            self.rotate();
        }
    }

    fn drop_lines(&mut self, bytes: usize, error: &io::Error) {
        if self.dropped == 0 {
            let path = self.settings.path.display();
            warn!(%path, %error, "a container's log cannot be written: its output is being dropped");
        }
        self.dropped += bytes as u64;
        // Half a line would spoil the next one.
        let _ = self.file.set_len(self.size);
    }

    fn rotate(&mut self) {
        let path = &self.settings.path;
        let (name, time) = free_name(path, now().max(next_second(self.rotated_at)));
        self.rotated_at = time;
        let reopened = fs::rename(path, name).and_then(|()| open(path));
        match reopened {
            Ok(file) => (self.file, self.size) = (file, 0),
            Err(error) => warn!(path = %path.display(), %error, "a container's log cannot be rotated"),
        }
        prune(path, self.settings.max_files.saturating_sub(1) as usize);
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

/// The name of a rotated log as the kubelet gives it, `<log>.<YYYYMMDD-HHMMSS>`, of the first second that has no log
/// yet: names are in the order of time.
fn free_name(path: &Path, mut time: Timestamp) -> (PathBuf, Timestamp) {
    loop {
        let mut name = path.as_os_str().to_owned();
        name.push(time.strftime(".%Y%m%d-%H%M%S").to_string());
        let name = PathBuf::from(name);
        if !name.exists() {
            return (name, time);
        }
        time = next_second(time);
    }
}

fn next_second(time: Timestamp) -> Timestamp {
    time.saturating_add(SignedDuration::from_secs(1)).unwrap_or(time)
}

/// Removes the oldest rotated logs beyond the number to keep.
fn prune(path: &Path, keep: usize) {
    let mut rotated = rotated(path);
    rotated.sort();
    let excess = rotated.len().saturating_sub(keep);
    for old in rotated.into_iter().take(excess) {
        if let Err(error) = fs::remove_file(&old) {
            warn!(path = %old.display(), %error, "an old log cannot be removed");
        }
    }
}

/// The rotated logs of this log, whatever was done to them since.
fn rotated(path: &Path) -> Vec<PathBuf> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return Vec::new() };
    let prefix = [name.as_encoded_bytes(), b"."].concat();
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(&prefix))
        .map(|entry| entry.path())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(path: PathBuf, max_size: u64, max_files: u32) -> LogFile {
        LogFile { path, max_size, max_files }
    }

    fn texts(path: &Path) -> Vec<String> {
        let content = fs::read_to_string(path).unwrap();
        content.lines().map(|line| line.splitn(4, ' ').nth(3).unwrap().to_owned()).collect()
    }

    #[test]
    fn a_log_is_made_with_its_directory_and_appended_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pod/container/0.log");
        for text in ["one\n", "two\n"] {
            let log = Log::open(settings(path.clone(), 1 << 20, 2)).unwrap();
            log.write(Channel::Stdout, text.as_bytes());
        }
        assert_eq!(texts(&path), ["one", "two"]);
    }

    #[test]
    fn a_log_is_rotated_by_size_and_the_oldest_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        let log = Log::open(settings(path.clone(), 100, 3)).unwrap();
        for number in 0..10 {
            log.write(Channel::Stdout, format!("{number}{}\n", "x".repeat(100)).as_bytes());
        }
        log.write(Channel::Stdout, b"last\n");
        let mut kept = rotated(&path);
        kept.sort();
        let firsts: Vec<_> = kept.iter().map(|path| texts(path)[0].chars().next().unwrap()).collect();
        assert_eq!(firsts, ['8', '9']);
        assert_eq!(texts(&path), ["last"]);
        let name = kept[0].file_name().unwrap().to_str().unwrap();
        assert!(name.starts_with("0.log.20") && name.len() == "0.log.20261121-090000".len(), "{name}");
    }

    #[test]
    fn what_a_full_disk_refuses_is_dropped_and_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        let log = Log::open(settings(path.clone(), 1 << 20, 2)).unwrap();
        log.0.lock().file = OpenOptions::new().write(true).open("/dev/full").unwrap();
        log.write(Channel::Stderr, b"lost\n");
        assert!(log.0.lock().dropped > 5);
        log.0.lock().file = open(&path).unwrap();
        log.write(Channel::Stderr, b"kept\n");
        assert_eq!(texts(&path), ["kept"]);
    }

    #[test]
    fn the_last_line_is_written_when_it_never_ended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        let log = Log::open(settings(path.clone(), 1 << 20, 2)).unwrap();
        log.write(Channel::Stdout, b"no end");
        assert_eq!(fs::read(&path).unwrap(), b"");
        log.finish();
        assert!(fs::read_to_string(&path).unwrap().ends_with(" stdout P no end\n"));
    }
}
