use std::cell::Cell;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;

use super::*;

fn files(entries: &[(&str, &str)]) -> Files {
    let file = |text: &str| File { content: text.as_bytes().to_vec(), mode: 0o600 };
    entries.iter().map(|(path, text)| ((*path).to_owned(), file(text))).collect()
}

fn old() -> Files {
    files(&[("same", "1"), ("changes", "old"), ("goes", "x"), ("deep/changes", "old"), ("was-file", "x")])
}

fn new() -> Files {
    files(&[
        ("same", "1"),
        ("changes", "new"),
        ("comes", "y"),
        ("deep/changes", "new"),
        ("was-file/now", "x"),
    ])
}

fn write(volume: &Path, files: &Files) -> io::Result<()> {
    Writer::new(volume, None).write(files)
}

/// What one who opens the volume's files now reads.
fn seen(volume: &Path) -> BTreeMap<String, String> {
    let mut seen = BTreeMap::new();
    let Ok(payload) = fs::canonicalize(volume.join(CURRENT)) else { return seen };
    for path in old().keys().chain(new().keys()) {
        if let Ok(content) = fs::read_to_string(payload.join(path)) {
            seen.insert(path.clone(), content);
        }
    }
    seen
}

fn texts(files: &Files) -> BTreeMap<String, String> {
    let text = |file: &File| String::from_utf8(file.content.clone()).unwrap();
    files.iter().map(|(path, file)| (path.clone(), text(file))).collect()
}

#[test]
fn a_volume_is_seen_through_one_link_and_swapped_whole() {
    let root = tempfile::tempdir().unwrap();
    let volume = root.path();
    write(volume, &files(&[("token", "one"), ("deep/er/file", "x")])).unwrap();
    assert_eq!(fs::read_to_string(volume.join("token")).unwrap(), "one");
    assert_eq!(fs::read_to_string(volume.join("deep/er/file")).unwrap(), "x");
    assert_eq!(fs::read_link(volume.join("token")).unwrap(), Path::new("..data/token"));
    write(volume, &files(&[("token", "two")])).unwrap();
    assert_eq!(fs::read_to_string(volume.join("token")).unwrap(), "two");
    let names = names(volume).unwrap();
    assert_eq!(names.len(), 3, "one payload, the link to it, and what is seen: {names:?}");
    assert_eq!(fs::metadata(volume.join("token")).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn what_is_the_same_is_not_written_again() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), &old()).unwrap();
    let payload = fs::read_link(root.path().join(CURRENT)).unwrap();
    write(root.path(), &old()).unwrap();
    assert_eq!(fs::read_link(root.path().join(CURRENT)).unwrap(), payload);
    let mut other_mode = old();
    other_mode.get_mut("same").unwrap().mode = 0o400;
    write(root.path(), &other_mode).unwrap();
    assert_ne!(fs::read_link(root.path().join(CURRENT)).unwrap(), payload);
    let mut fewer = old();
    fewer.remove("goes");
    write(root.path(), &fewer).unwrap();
    assert!(!root.path().join("goes").exists());
}

/// Ends the write after so many system calls, as a kill does: nothing is tidied up. `None` when there are not as many.
fn killed_after(volume: &Path, calls: usize, files: &Files) -> Option<()> {
    let left = Cell::new(calls);
    let before_each = || {
        let next = left.get().checked_sub(1).ok_or(ErrorKind::Interrupted)?;
        left.set(next);
        Ok(())
    };
    Writer { directory: volume, group: None, before_each: &before_each }.write(files).err().map(drop)
}

#[test]
fn whenever_the_writer_is_killed_the_old_or_the_new_is_there_and_never_a_mix() {
    let (mut saw_old, mut saw_new) = (0, 0);
    for calls in 0.. {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), &old()).unwrap();
        let was_killed = killed_after(root.path(), calls, &new()).is_some();
        let seen = seen(root.path());
        assert!(seen == texts(&old()) || seen == texts(&new()), "after {calls} calls: {seen:?}");
        saw_old += usize::from(seen == texts(&old()));
        saw_new += usize::from(seen == texts(&new()));
        for (next, files) in [new(), old()].iter().enumerate() {
            write(root.path(), files).unwrap();
            assert_eq!(self::seen(root.path()), texts(files), "after {calls} calls and {next} more writes");
            let visible = visible_names(files).len();
            assert_eq!(names(root.path()).unwrap().len(), visible + 2, "after {calls} calls");
        }
        if !was_killed {
            break;
        }
    }
    assert!(saw_old > 10 && saw_new > 2, "{saw_old} old, {saw_new} new");
}

#[test]
fn a_first_write_that_is_killed_leaves_nothing_to_be_seen() {
    let root = tempfile::tempdir().unwrap();
    for calls in 0..12 {
        killed_after(root.path(), calls, &old()).unwrap();
        let seen = seen(root.path());
        assert!(seen.is_empty() || seen == texts(&old()), "after {calls} calls: {seen:?}");
    }
    write(root.path(), &old()).unwrap();
    assert_eq!(seen(root.path()), texts(&old()));
}

#[test]
fn a_write_that_fails_leaves_what_was_there() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), &old()).unwrap();
    let too_long = "x".repeat(300);
    write(root.path(), &files(&[("a", "new"), (&too_long, "y")])).unwrap_err();
    assert_eq!(seen(root.path()), texts(&old()));
    write(root.path(), &new()).unwrap();
    assert_eq!(names(root.path()).unwrap().len(), visible_names(&new()).len() + 2);
}

/// Whatever call finds the disk full, who reads sees the old or the new, and nothing else takes up room.
#[test]
fn a_full_disk_is_named_and_leaves_what_was_there() {
    for calls in 0.. {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), &old()).unwrap();
        let left = Cell::new(Some(calls));
        let before_each = || match left.take() {
            Some(0) => Err(ErrorKind::StorageFull.into()),
            rest => {
                left.set(rest.map(|rest| rest - 1));
                Ok(())
            }
        };
        let writer = Writer { directory: root.path(), group: None, before_each: &before_each };
        let written = writer.write(&new());
        let seen = seen(root.path());
        let Err(error) = written else {
            assert_eq!(seen, texts(&new()));
            break;
        };
        assert_eq!(error.kind(), ErrorKind::StorageFull, "after {calls} calls");
        assert!(seen == texts(&old()) || seen == texts(&new()), "after {calls} calls: {seen:?}");
        let payloads = names(root.path()).unwrap();
        let payloads =
            payloads.iter().filter(|name| root.path().join(name).symlink_metadata().unwrap().is_dir());
        assert!(payloads.count() <= 2, "after {calls} calls");
        write(root.path(), &new()).unwrap();
        assert_eq!(names(root.path()).unwrap().len(), visible_names(&new()).len() + 2);
    }
}

#[test]
fn what_is_written_belongs_to_the_group() {
    let root = tempfile::tempdir().unwrap();
    let own = fs::metadata(root.path()).unwrap().gid();
    Writer::new(root.path(), Some(own)).write(&old()).unwrap();
    assert_eq!(fs::metadata(root.path().join("deep/changes")).unwrap().gid(), own);
    assert_eq!(fs::metadata(root.path().join("deep")).unwrap().mode() & 0o777, 0o700);
}
