use jiff::Timestamp;

use super::options::LogOptions;

/// Turns lines of a log file into what the client asked to see of them.
pub(super) struct Selection {
    since: Option<Timestamp>,
    timestamps: bool,
    left: u64,
    at_line_start: bool,
}

/// One line of a log file in the CRI format, `<time> <stream> <F|P> <text>`.
struct LogLine<'a> {
    time: &'a str,
    is_whole: bool,
    text: &'a [u8],
}

impl Selection {
    pub(super) fn new(options: &LogOptions) -> Self {
        Self {
            since: options.since,
            timestamps: options.timestamps,
            left: options.limit.unwrap_or(u64::MAX),
            at_line_start: true,
        }
    }

    /// Appends what is to be seen of one line, given without its line feed. A line that is not in the format, or too
    /// old, is passed over.
    pub(super) fn append(&mut self, line: &[u8], output: &mut Vec<u8>) {
        let Some(line) = parse(line) else { return };
        let Some(prefix) = self.prefix(line.time) else { return };
        if self.at_line_start {
            self.take(prefix.as_bytes(), output);
        }
        self.take(line.text, output);
        if line.is_whole {
            self.take(b"\n", output);
        }
        self.at_line_start = line.is_whole;
    }

    /// Whether nothing more will be seen.
    pub(super) fn is_full(&self) -> bool {
        self.left == 0
    }

    /// What stands before the line; `None` when the line is not to be seen.
    fn prefix(&self, time: &str) -> Option<String> {
        if self.since.is_none() && !self.timestamps {
            return Some(String::new());
        }
        let time: Timestamp = time.parse().ok()?;
        let is_seen = self.since.is_none_or(|since| time >= since);
        let prefix = if self.timestamps {
            time.strftime("%Y-%m-%dT%H:%M:%S.%9fZ ").to_string()
        } else {
            String::new()
        };
        is_seen.then_some(prefix)
    }

    fn take(&mut self, bytes: &[u8], output: &mut Vec<u8>) {
        let count = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        output.extend_from_slice(&bytes[..count]);
        self.left -= count as u64;
    }
}

fn parse(line: &[u8]) -> Option<LogLine<'_>> {
    let mut parts = line.splitn(4, |&byte| byte == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    if !matches!(parts.next()?, b"stdout" | b"stderr") {
        return None;
    }
    let is_partial = parts.next()?.split(|&byte| byte == b':').any(|tag| tag == b"P");
    Some(LogLine { time, is_whole: !is_partial, text: parts.next().unwrap_or_default() })
}

/// The longest line that is looked at: a runtime cuts its guests' lines far below this.
const LONGEST: usize = 1 << 20;

/// Cuts what is read into lines, however the reads fall.
#[derive(Default)]
pub(super) struct Lines {
    begun: Vec<u8>,
    is_too_long: bool,
}

impl Lines {
    /// Calls `each` with every line that `bytes` completes, without its line feed. What is longer than a mebibyte is
    /// dropped.
    pub(super) fn push(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8])) {
        let mut parts = bytes.split(|&byte| byte == b'\n');
        let rest = parts.next_back().unwrap_or_default();
        for part in parts {
            self.extend(part);
            if !self.is_too_long {
                each(&self.begun);
            }
            self.clear();
        }
        self.extend(rest);
    }

    /// Forgets a line that was begun and will not be completed.
    pub(super) fn clear(&mut self) {
        self.begun.clear();
        self.is_too_long = false;
    }

    fn extend(&mut self, part: &[u8]) {
        self.is_too_long |= self.begun.len() + part.len() > LONGEST;
        if self.is_too_long {
            self.begun = Vec::new();
        } else {
            self.begun.extend_from_slice(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "2026-11-21T10:00:00Z stdout F one\n\
        2026-11-21T10:00:01.5Z stderr P two, \n\
        2026-11-21T10:00:02.000000001Z stderr F and half\n\
        2026-11-21T10:00:03+01:00 stdout F \n";

    #[track_caller]
    fn check(options: &LogOptions, log: &[u8], expected: &[u8]) {
        for step in [1, 7, log.len().max(1)] {
            let (mut lines, mut selection, mut output) =
                (Lines::default(), Selection::new(options), Vec::new());
            for bytes in log.chunks(step) {
                lines.push(bytes, |line| selection.append(line, &mut output));
            }
            assert_eq!(
                String::from_utf8_lossy(&output),
                String::from_utf8_lossy(expected),
                "read by {step} bytes"
            );
        }
    }

    #[test]
    fn parts_of_a_line_are_joined() {
        check(&LogOptions::default(), LOG.as_bytes(), b"one\ntwo, and half\n\n");
    }

    #[test]
    fn each_line_begins_with_its_time_once() {
        let options = LogOptions { timestamps: true, ..LogOptions::default() };
        let expected = "2026-11-21T10:00:00.000000000Z one\n\
            2026-11-21T10:00:01.500000000Z two, and half\n\
            2026-11-21T09:00:03.000000000Z \n";
        check(&options, LOG.as_bytes(), expected.as_bytes());
    }

    #[test]
    fn what_is_older_is_left_out() {
        let since = |time: &str| LogOptions { since: Some(time.parse().unwrap()), ..LogOptions::default() };
        check(&since("2026-11-21T10:00:02Z"), LOG.as_bytes(), b"and half\n");
        check(&since("2026-11-21T11:00:00Z"), LOG.as_bytes(), b"");
    }

    #[test]
    fn the_limit_counts_what_is_sent() {
        let limit =
            |limit, timestamps| LogOptions { limit: Some(limit), timestamps, ..LogOptions::default() };
        check(&limit(6, false), LOG.as_bytes(), b"one\ntw");
        check(&limit(1, false), LOG.as_bytes(), b"o");
        check(&limit(32, true), LOG.as_bytes(), b"2026-11-21T10:00:00.000000000Z o");
    }

    #[test]
    fn bytes_that_are_no_text_pass_and_foreign_lines_do_not() {
        let log = b"2026-11-21T10:00:00Z stdout F \xff\xfe\nnonsense\n\n2026 other F x\n";
        check(&LogOptions::default(), log, b"\xff\xfe\n");
        check(&LogOptions::default(), b"2026-11-21T10:00:00Z stdout F not ended", b"");
    }

    #[test]
    fn a_line_without_end_takes_no_memory() {
        let mut lines = Lines::default();
        let mut seen = Vec::new();
        for _ in 0..40 {
            lines.push(&vec![b'x'; 1 << 16], |line| seen.push(line.len()));
            assert!(lines.begun.capacity() <= 2 * LONGEST);
        }
        lines.push(b"\nnext\n", |line| seen.push(line.len()));
        assert_eq!(seen, [4]);
    }
}
