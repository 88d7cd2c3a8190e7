use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use coracle_lifecycle::Digest;
use flate2::bufread::MultiGzDecoder;
use sha2::{Digest as _, Sha256};

use crate::digest::digest;

const BUFFER: usize = 128 * 1024;
/// How many pieces of an archive, each as long as the buffer, are unpacked before they are read.
const AHEAD: usize = 8;
const GZIP: &[u8] = b"\x1f\x8b";
const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd";
/// Frames that are no data begin with one of sixteen bytes and these.
const ZSTD_SKIPPED: &[u8] = b"\x2a\x4d\x18";
/// The largest window that a zstd stream may ask for, as a power of two: what it asks for is allocated. No level short of
/// `--long` asks for more than 8 MiB.
const ZSTD_WINDOW: u32 = 24;
/// The same in bytes.
pub(crate) const WINDOW: u64 = 1 << ZSTD_WINDOW;
/// So much may be unpacked of any layer, however small.
const FREE: u64 = 256 * 1024 * 1024;
/// Beyond that, so many times what it has compressed. Programs and data come to ten times.
const RATIO: u64 = 200;

/// The archive in a layer, and its digest. Another thread unpacks it, a little ahead of who reads it.
pub(crate) struct Archive {
    pieces: Receiver<io::Result<Vec<u8>>>,
    piece: Cursor<Vec<u8>>,
    decoder: JoinHandle<End>,
    limit: u64,
}

/// What is known of an archive when it is read no more.
pub(crate) struct End {
    /// The digest of what came out of it.
    pub(crate) digest: Digest,
    /// Whether more came out of it than may.
    pub(crate) is_too_large: bool,
    /// Whether it asked for a larger window than it may have.
    pub(crate) is_beyond_window: bool,
}

impl Archive {
    /// The archive in `file`, which is compressed with gzip, zstd or not at all. No more than `limit` bytes come out of it.
    pub(crate) fn open(file: File, limit: u64) -> io::Result<Self> {
        let limit = limit.min(file.metadata()?.len().saturating_mul(RATIO).max(FREE));
        let stream = decompressed(file)?;
        let (sender, pieces) = sync_channel(AHEAD);
        let decoder = Decoder { stream, hasher: Sha256::new(), seen: 0, limit, pieces: sender };
        let decoder = thread::Builder::new().name("layer".to_owned()).spawn(move || decoder.run())?;
        Ok(Self { pieces, piece: Cursor::default(), decoder, limit })
    }

    /// The most that may come out of it, in bytes.
    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// Ends the unpacking, at the archive's end or before it.
    pub(crate) fn finish(self) -> io::Result<End> {
        drop(self.pieces);
        self.decoder.join().map_err(|_| io::Error::other("the layer's decoder failed"))
    }
}

impl Read for Archive {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.piece.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            match self.pieces.recv() {
                Ok(piece) => self.piece = Cursor::new(piece?),
                Err(_) => return Ok(0),
            }
        }
    }
}

fn decompressed(file: File) -> io::Result<Box<dyn Read + Send>> {
    let mut source = BufReader::with_capacity(BUFFER, file);
    let head = source.fill_buf()?;
    let is_zstd = head.starts_with(ZSTD) || head.get(1..4) == Some(ZSTD_SKIPPED) && head[0] & 0xf0 == 0x50;
    if head.starts_with(GZIP) {
        return Ok(Box::new(MultiGzDecoder::new(source)));
    }
    if !is_zstd {
        return Ok(Box::new(source));
    }
    let mut decoder = zstd::Decoder::with_buffer(source)?;
    decoder.window_log_max(ZSTD_WINDOW)?;
    Ok(Box::new(decoder))
}

/// Whether a stream ended because it asks for a larger window than it may have.
fn is_beyond_window(error: &io::Error) -> bool {
    // The library has words for it and no more.
    error.raw_os_error().is_none() && error.to_string().contains("requires too much memory")
}

/// The thread's side of an archive.
struct Decoder {
    stream: Box<dyn Read + Send>,
    hasher: Sha256,
    seen: u64,
    limit: u64,
    pieces: SyncSender<io::Result<Vec<u8>>>,
}

impl Decoder {
    /// Unpacks until the end, an error, or until nobody reads any more.
    fn run(mut self) -> End {
        let mut is_beyond_window = false;
        while let Some(piece) = self.next().transpose() {
            let is_last = piece.is_err();
            is_beyond_window = piece.as_ref().err().is_some_and(self::is_beyond_window);
            if self.pieces.send(piece).is_err() || is_last {
                break;
            }
        }
        End { digest: digest(self.hasher), is_too_large: self.seen > self.limit, is_beyond_window }
    }

    fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut piece = Vec::with_capacity(BUFFER);
        self.stream.by_ref().take(BUFFER as u64).read_to_end(&mut piece)?;
        self.seen += piece.len() as u64;
        if self.seen > self.limit {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is too large"));
        }
        self.hasher.update(&piece);
        Ok(Some(piece).filter(|piece| !piece.is_empty()))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;
    use crate::digest::digest_of;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        file
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn check(bytes: &[u8], expected: &[u8]) {
        let mut archive = Archive::open(file(bytes), u64::MAX).unwrap();
        let mut all = Vec::new();
        archive.read_to_end(&mut all).unwrap();
        assert_eq!((all.as_slice(), archive.finish().unwrap().digest), (expected, digest_of(expected)));
    }

    #[test]
    fn compression_is_told_from_the_bytes() {
        check(b"plain", b"plain");
        check(b"", b"");
        check(&gzip(b"zipped"), b"zipped");
        check(&zstd::encode_all(&b"zipped"[..], 3).unwrap(), b"zipped");
    }

    #[test]
    fn streams_of_several_members_are_read_to_their_end() {
        check(&[gzip(b"one"), gzip(b" two")].concat(), b"one two");
        let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 3).unwrap();
        let skipped = b"\x5e\x2a\x4d\x18\x03\0\0\0abc".to_vec();
        check(&[zstd(b"one"), skipped.clone(), zstd(b" two")].concat(), b"one two");
        check(&[skipped, zstd(b"one")].concat(), b"one");
    }

    #[test]
    fn what_is_damaged_or_cut_off_is_an_error() {
        let whole = gzip(&[b'x'; 1000]);
        for damaged in [&whole[..whole.len() - 4], b"\x1f\x8bxxxxxxxxxxxxx", b"\x28\xb5\x2f\xfdxxxxxxxx"] {
            let mut archive = Archive::open(file(damaged), u64::MAX).unwrap();
            archive.read_to_end(&mut Vec::new()).unwrap_err();
        }
    }

    #[test]
    fn bombs_are_stopped() {
        let zeros = vec![0; 1 << 20];
        let bomb = gzip(&zeros);
        let mut archive = Archive::open(file(&bomb), 1000).unwrap();
        archive.read_to_end(&mut Vec::new()).unwrap_err();
        assert!(archive.finish().unwrap().is_too_large);
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        for _ in 0..=256 {
            encoder.write_all(&zeros).unwrap();
        }
        let mut archive = Archive::open(file(&encoder.finish().unwrap()), u64::MAX).unwrap();
        io::copy(&mut archive, &mut io::sink()).unwrap_err();
        assert_eq!(archive.limit(), FREE);
        assert!(archive.finish().unwrap().is_too_large);
    }

    #[test]
    fn who_stops_reading_stops_the_unpacking() {
        let file = file(&gzip(&vec![0; 1 << 24]));
        let mut archive = Archive::open(file, u64::MAX).unwrap();
        archive.read_exact(&mut [0; 10]).unwrap();
        let end = archive.finish().unwrap();
        assert_ne!(end.digest, digest_of(&vec![0; 1 << 24]));
    }

    #[test]
    fn a_window_of_a_gigabyte_is_not_allocated() {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(30).unwrap();
        encoder.write_all(b"small").unwrap();
        let bytes = encoder.finish().unwrap();
        let mut archive = Archive::open(file(&bytes), u64::MAX).unwrap();
        archive.read_to_end(&mut Vec::new()).unwrap_err();
    }
}
