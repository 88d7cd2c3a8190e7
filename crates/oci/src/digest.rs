use std::fmt::Write as _;

use coracle_lifecycle::Digest;
use sha2::{Digest as _, Sha256};
use thiserror::Error;

/// How content differs from what its digest and size promised.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum ContentError {
    #[error("{digest} is longer than the {size} bytes it was declared with")]
    TooLong { digest: Digest, size: u64 },
    #[error("{digest} is truncated: {got} of {size} bytes came")]
    Truncated { digest: Digest, size: u64, got: u64 },
    #[error("{expected} has the wrong digest: what came is {actual}")]
    WrongDigest { expected: Digest, actual: Digest },
}

/// Checks content against its digest and size while it passes.
pub(crate) struct Verifier {
    expected: Digest,
    size: u64,
    seen: u64,
    hasher: Sha256,
    head: [u8; 4],
}

impl Verifier {
    pub(crate) fn new(expected: Digest, size: u64) -> Self {
        Self { expected, size, seen: 0, hasher: Sha256::new(), head: [0; 4] }
    }

    /// Takes the next bytes; refuses the first byte beyond the declared size.
    pub(crate) fn update(&mut self, bytes: &[u8]) -> Result<(), ContentError> {
        let length = bytes.len() as u64;
        if length > self.size - self.seen {
            return Err(ContentError::TooLong { digest: self.expected.clone(), size: self.size });
        }
        for (place, byte) in self.head.iter_mut().skip(usize::try_from(self.seen).unwrap_or(4)).zip(bytes) {
            *place = *byte;
        }
        self.seen += length;
        self.hasher.update(bytes);
        Ok(())
    }

    /// The content's first four bytes, zero where it is shorter, once all of it has been seen and is right.
    pub(crate) fn finish(self) -> Result<[u8; 4], ContentError> {
        if self.seen < self.size {
            return Err(self.truncated());
        }
        let actual = digest(self.hasher);
        if actual != self.expected {
            return Err(ContentError::WrongDigest { expected: self.expected, actual });
        }
        Ok(self.head)
    }

    /// How many bytes have passed.
    pub(crate) fn seen(&self) -> u64 {
        self.seen
    }

    /// The error for content that ends here.
    pub(crate) fn truncated(&self) -> ContentError {
        ContentError::Truncated { digest: self.expected.clone(), size: self.size, got: self.seen }
    }
}

/// The digest of `bytes`.
pub(crate) fn digest_of(bytes: &[u8]) -> Digest {
    digest(Sha256::new_with_prefix(bytes))
}

/// The digest of what a hasher has seen.
pub(crate) fn digest(hasher: Sha256) -> Digest {
    let mut text = String::from("sha256:");
    for byte in hasher.finalize() {
        write!(text, "{byte:02x}").expect("a String takes all that is written to it");
    }
    Digest::parse(&text).expect("a hash of 32 bytes has 64 hexadecimal digits")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verify(declared: u64, content: &[u8], chunks: &[&[u8]]) -> Result<[u8; 4], ContentError> {
        let mut verifier = Verifier::new(digest_of(content), declared);
        chunks.iter().try_for_each(|chunk| verifier.update(chunk))?;
        verifier.finish()
    }

    #[test]
    fn content_is_checked_while_it_passes() {
        assert_eq!(verify(6, b"abcdef", &[b"a", b"", b"bcd", b"ef"]), Ok(*b"abcd"));
        assert_eq!(verify(2, b"ab", &[b"ab"]), Ok([b'a', b'b', 0, 0]));
        assert_eq!(verify(0, b"", &[]), Ok([0; 4]));
        assert!(matches!(verify(5, b"abcde", &[b"abc", b"def"]), Err(ContentError::TooLong { size: 5, .. })));
        assert!(matches!(verify(6, b"abcdef", &[b"abc"]), Err(ContentError::Truncated { got: 3, .. })));
        assert!(matches!(verify(3, b"abc", &[b"abd"]), Err(ContentError::WrongDigest { .. })));
    }

    #[test]
    fn a_digest_is_the_one_everybody_computes() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest_of(b"").as_str(), empty);
    }
}
