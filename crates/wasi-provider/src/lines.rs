//! What a guest writes, as lines of the CRI log format: `<RFC 3339 time> stdout|stderr F|P <text>`.

use jiff::Timestamp;

/// The longest text of one line of the file, as containerd has it; longer lines of a guest come in pieces.
const MAX_TEXT: usize = 16 << 10;

/// Which of a guest's outputs something came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Channel {
    Stdout,
    Stderr,
}

impl Channel {
    const ALL: [Self; 2] = [Self::Stdout, Self::Stderr];

    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Cuts a guest's output into lines. A line waits for its end, but never with more than 16 KiB.
#[derive(Default)]
pub(crate) struct Lines {
    unfinished: [Vec<u8>; 2],
}

impl Lines {
    /// The file's lines for these bytes; any byte may be among them.
    pub(crate) fn of(&mut self, channel: Channel, bytes: &[u8], time: Timestamp) -> Vec<u8> {
        let mut text = Text::new(channel, time);
        let unfinished = &mut self.unfinished[channel as usize];
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            match part.split_last() {
                Some((b'\n', line)) if unfinished.is_empty() => text.add_line(line),
                Some((b'\n', line)) => {
                    unfinished.extend_from_slice(line);
                    text.add_line(&std::mem::take(unfinished));
                }
                _ => {
                    unfinished.extend_from_slice(part);
                    text.add_pieces(unfinished);
                }
            }
        }
        text.lines
    }

    /// The file's lines for the lines that never ended.
    pub(crate) fn finish(&mut self, time: Timestamp) -> Vec<u8> {
        let mut lines = Vec::new();
        for channel in Channel::ALL {
            let unfinished = std::mem::take(&mut self.unfinished[channel as usize]);
            if !unfinished.is_empty() {
                let mut text = Text::new(channel, time);
                text.add("P", &unfinished);
                lines.append(&mut text.lines);
            }
        }
        lines
    }
}

struct Text {
    header: String,
    lines: Vec<u8>,
}

impl Text {
    fn new(channel: Channel, time: Timestamp) -> Self {
        Self { header: format!("{time:.9} {} ", channel.name()), lines: Vec::new() }
    }

    fn add(&mut self, tag: &str, text: &[u8]) {
        for part in [self.header.as_bytes(), tag.as_bytes(), b" ", text, b"\n"] {
            self.lines.extend_from_slice(part);
        }
    }

    fn add_line(&mut self, line: &[u8]) {
        let mut rest = line;
        while rest.len() > MAX_TEXT {
            let (piece, after) = rest.split_at(MAX_TEXT);
            self.add("P", piece);
            rest = after;
        }
        self.add("F", rest);
    }

    /// Moves what is too long to wait out of `unfinished`.
    fn add_pieces(&mut self, unfinished: &mut Vec<u8>) {
        let pieces = unfinished.len().saturating_sub(1) / MAX_TEXT * MAX_TEXT;
        for piece in unfinished.drain(..pieces).as_slice().chunks(MAX_TEXT) {
            self.add("P", piece);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: &str = "2026-11-21T09:00:00.120000000Z";

    fn write(lines: &mut Lines, channel: Channel, bytes: &[u8]) -> Vec<String> {
        readable(&lines.of(channel, bytes, TIME.parse().unwrap()))
    }

    fn readable(lines: &[u8]) -> Vec<String> {
        let text: String = lines.iter().map(|byte| char::from(*byte)).collect();
        text.split_terminator('\n').map(|line| line.strip_prefix(TIME).unwrap()[1..].to_owned()).collect()
    }

    #[test]
    fn the_format_is_that_of_cri() {
        let lines = Lines::default().of(Channel::Stdout, b"hello\n", TIME.parse().unwrap());
        assert_eq!(lines, format!("{TIME} stdout F hello\n").into_bytes());
    }

    #[test]
    fn a_line_waits_for_its_end_and_channels_do_not_mix() {
        let mut lines = Lines::default();
        assert!(write(&mut lines, Channel::Stdout, b"be").is_empty());
        assert_eq!(write(&mut lines, Channel::Stderr, b"oh\n\n"), ["stderr F oh", "stderr F "]);
        assert_eq!(write(&mut lines, Channel::Stdout, b"gun\nnext"), ["stdout F begun"]);
        assert_eq!(readable(&lines.finish(TIME.parse().unwrap())), ["stdout P next"]);
        assert!(lines.finish(TIME.parse().unwrap()).is_empty());
    }

    #[test]
    fn bytes_that_are_not_text_pass_as_they_are() {
        assert_eq!(
            write(&mut Lines::default(), Channel::Stdout, b"\xff\0\xfe\r\n"),
            ["stdout F \u{ff}\0\u{fe}\r"]
        );
    }

    #[test]
    fn long_lines_come_in_pieces_however_they_are_written() {
        let long = vec![b'x'; 2 * MAX_TEXT + 5];
        let lengths = |lines: &[String]| {
            lines.iter().map(|line| (line.as_bytes()[7], line.len() - 9)).collect::<Vec<_>>()
        };
        let pieces = [(b'P', MAX_TEXT), (b'P', MAX_TEXT), (b'F', 5)];
        let at_once = write(&mut Lines::default(), Channel::Stdout, &[&long[..], b"\n"].concat());
        assert_eq!(lengths(&at_once), pieces);
        let mut lines = Lines::default();
        let mut in_parts = Vec::new();
        for part in long.chunks(4096) {
            in_parts.extend(write(&mut lines, Channel::Stdout, part));
        }
        in_parts.extend(write(&mut lines, Channel::Stdout, b"\n"));
        assert_eq!(lengths(&in_parts), pieces);
        let exact = write(&mut Lines::default(), Channel::Stdout, &[&long[..MAX_TEXT], b"\n"].concat());
        assert_eq!(lengths(&exact), [(b'F', MAX_TEXT)]);
    }
}
