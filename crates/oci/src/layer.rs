use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

use coracle_lifecycle::Digest;
use flate2::bufread::MultiGzDecoder;
use sha2::{Digest as _, Sha256};

use crate::digest::digest;

const BUFFER: usize = 128 * 1024;
const GZIP: &[u8] = b"\x1f\x8b";
const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd";
/// Frames that are no data begin with one of sixteen bytes and these.
const ZSTD_SKIPPED: &[u8] = b"\x2a\x4d\x18";
/// The largest window that a zstd stream may ask for, as a power of two: what it asks for is allocated. No level short of
/// `--long` asks for more than 8 MiB.
const ZSTD_WINDOW: u32 = 24;
/// So much may be unpacked of any layer, however small.
const FREE: u64 = 256 * 1024 * 1024;
/// Beyond that, so many times what it has compressed. Programs and data come to ten times.
const RATIO: u64 = 200;

/// The archive in a layer, unpacked while it is read, and its digest.
pub(crate) struct Archive {
    stream: Box<dyn Read + Send>,
    hasher: Sha256,
    seen: u64,
    limit: u64,
}

impl Archive {
    /// The archive in `file`, which is compressed with gzip, zstd or not at all. No more than `limit` bytes come out of it.
    pub(crate) fn open(file: File, limit: u64) -> io::Result<Self> {
        let compressed = file.metadata()?.len();
        let mut source = BufReader::with_capacity(BUFFER, file);
        let head = source.fill_buf()?;
        let is_zstd =
            head.starts_with(ZSTD) || head.get(1..4) == Some(ZSTD_SKIPPED) && head[0] & 0xf0 == 0x50;
        let stream: Box<dyn Read + Send> = if head.starts_with(GZIP) {
            Box::new(MultiGzDecoder::new(source))
        } else if is_zstd {
            let mut decoder = zstd::Decoder::with_buffer(source)?;
            decoder.window_log_max(ZSTD_WINDOW)?;
            Box::new(decoder)
        } else {
            Box::new(source)
        };
        let limit = limit.min(compressed.saturating_mul(RATIO).max(FREE));
        Ok(Self { stream, hasher: Sha256::new(), seen: 0, limit })
    }

    /// Whether more came out of it than may.
    pub(crate) fn is_too_large(&self) -> bool {
        self.seen > self.limit
    }

    /// The most that may come out of it, in bytes.
    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// The digest of what came out of it.
    pub(crate) fn digest(self) -> Digest {
        digest(self.hasher)
    }
}

impl Read for Archive {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.read(buffer)?;
        self.seen += count as u64;
        if self.is_too_large() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is too large"));
        }
        self.hasher.update(&buffer[..count]);
        Ok(count)
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
        assert_eq!((all.as_slice(), archive.digest()), (expected, digest_of(expected)));
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
        assert!(archive.is_too_large());
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        for _ in 0..=256 {
            encoder.write_all(&zeros).unwrap();
        }
        let mut archive = Archive::open(file(&encoder.finish().unwrap()), u64::MAX).unwrap();
        io::copy(&mut archive, &mut io::sink()).unwrap_err();
        assert_eq!((archive.is_too_large(), archive.limit()), (true, FREE));
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
