use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// How much of a file is read at a time.
const BLOCK: usize = 64 << 10;

/// The files that one run's log lies in, the oldest first: `<n>.log.<time>` as it was rotated, then `<n>.log`.
#[derive(Clone, Debug)]
pub(super) struct LogFiles {
    current: PathBuf,
}

/// A place in a log: an open file, positioned.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) file: File,
    inode: u64,
}

impl LogFiles {
    pub(super) fn new(current: PathBuf) -> Self {
        Self { current }
    }

    /// The directory in which files grow, come and go.
    pub(super) fn directory(&self) -> &Path {
        self.current.parent().unwrap_or(Path::new("."))
    }

    /// The place to start reading at: the beginning, or `tail` lines before the end. `None` when there is no log yet.
    pub(super) fn start(&self, tail: Option<u64>) -> io::Result<Option<Place>> {
        let mut places = self.open_all()?;
        let Some(mut lines) = tail else { return Ok(places.drain(..).next()) };
        let mut start = None;
        while let Some(mut place) = places.pop() {
            lines -= seek_back(&mut place.file, lines)?;
            start = Some(place);
            if lines == 0 {
                break;
            }
        }
        Ok(start)
    }

    /// The file after the one at `place`, from its beginning; the oldest when that one is gone. `None` at the newest.
    pub(super) fn after(&self, place: Option<&Place>) -> io::Result<Option<Place>> {
        let places = self.open_all()?;
        let known = place.and_then(|place| places.iter().position(|other| other.inode == place.inode));
        let next = known.map_or(0, |index| index + 1);
        Ok(places.into_iter().nth(next))
    }

    fn open_all(&self) -> io::Result<Vec<Place>> {
        let mut paths = self.rotated()?;
        paths.sort();
        paths.push(self.current.clone());
        let mut places: Vec<Place> = Vec::with_capacity(paths.len());
        for path in paths {
            // A file that is gone was rotated between listing and opening: the next look finds it.
            match File::open(&path) {
                Ok(file) => {
                    let inode = file.metadata()?.ino();
                    places.push(Place { file, inode });
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(places)
    }

    fn rotated(&self) -> io::Result<Vec<PathBuf>> {
        let Some(name) = self.current.file_name().and_then(|name| name.to_str()) else {
            return Ok(Vec::new());
        };
        let is_rotated = |file: &str| {
            let time = file.strip_prefix(name).and_then(|rest| rest.strip_prefix('.'));
            time.is_some_and(|time| time.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-'))
        };
        let entries = match fs::read_dir(self.directory()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.filter(|file| is_rotated(file)).map(|file| self.directory().join(file)).collect())
    }
}

/// Moves to `lines` whole lines before the end of the file, or to its beginning when it has fewer; says how many
/// lines lie between there and the end. Reads from the end, a block at a time.
fn seek_back(file: &mut (impl Read + Seek), lines: u64) -> io::Result<u64> {
    let mut end = file.seek(SeekFrom::End(0))?;
    let mut found = 0;
    let mut block = vec![0; BLOCK];
    while end > 0 {
        let length = BLOCK.min(usize::try_from(end).unwrap_or(BLOCK));
        let begin = end - length as u64;
        file.seek(SeekFrom::Start(begin))?;
        file.read_exact(&mut block[..length])?;
        for index in (0..length).rev().filter(|&index| block[index] == b'\n') {
            if found == lines {
                file.seek(SeekFrom::Start(begin + index as u64 + 1))?;
                return Ok(found);
            }
            found += 1;
        }
        end = begin;
    }
    file.seek(SeekFrom::Start(0))?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[track_caller]
    fn check(content: &[u8], lines: u64, expected: (u64, u64)) {
        let mut file = Cursor::new(content);
        let found = seek_back(&mut file, lines).unwrap();
        assert_eq!((file.position(), found), expected, "{lines} lines");
    }

    #[test]
    fn lines_are_counted_from_the_end() {
        let content = b"1\n22\n333\n";
        check(content, 0, (9, 0));
        check(content, 1, (5, 1));
        check(content, 2, (2, 2));
        check(content, 3, (0, 3));
        check(content, u64::MAX, (0, 3));
        check(b"", 5, (0, 0));
        check(b"1\n22\nbegun", 1, (2, 1));
    }

    #[test]
    fn blocks_are_crossed() {
        let line = [b"x".repeat(100), b"\n".to_vec()].concat();
        let content = line.repeat(2000);
        for lines in [1, 648, 649, 1500, 1999] {
            check(&content, lines, (101 * (2000 - lines), lines));
        }
    }

    fn read(place: Option<Place>) -> Option<String> {
        place.map(|mut place| {
            let mut text = String::new();
            place.file.read_to_string(&mut text).unwrap();
            text
        })
    }

    #[test]
    fn rotated_files_come_first_in_the_order_of_their_times() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let files = LogFiles::new(path("0.log"));
        assert!(files.start(None).unwrap().is_none());
        for (name, text) in [
            ("0.log", "5\n6\n"),
            ("0.log.20261121-100000", "1\n2\n"),
            ("0.log.20261121-100001", "3\n4\n"),
            ("0.log.20261121-100001.gz", "not a log"),
            ("1.log", "another run\n"),
        ] {
            fs::write(path(name), text).unwrap();
        }
        assert_eq!(read(files.start(None).unwrap()).unwrap(), "1\n2\n");
        assert_eq!(read(files.start(Some(3)).unwrap()).unwrap(), "4\n");
        assert_eq!(read(files.start(Some(2)).unwrap()).unwrap(), "5\n6\n");
        assert_eq!(read(files.start(Some(0)).unwrap()).unwrap(), "");
        assert_eq!(read(files.start(Some(99)).unwrap()).unwrap(), "1\n2\n");
        let first = files.start(None).unwrap();
        let second = files.after(first.as_ref()).unwrap();
        let third = files.after(second.as_ref()).unwrap();
        assert!(files.after(third.as_ref()).unwrap().is_none());
        assert_eq!((read(second).unwrap(), read(third).unwrap()), ("3\n4\n".into(), "5\n6\n".into()));
    }

    #[test]
    fn a_reader_whose_file_was_removed_goes_on_with_the_oldest() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        fs::write(&path, "old\n").unwrap();
        let files = LogFiles::new(path.clone());
        let place = files.start(None).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "new\n").unwrap();
        assert_eq!(read(files.after(place.as_ref()).unwrap()).unwrap(), "new\n");
    }
}
