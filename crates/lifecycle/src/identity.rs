use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

macro_rules! text_identity {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Takes the text as it is.
            pub fn new(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            /// The text of this identity.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    };
}

text_identity! {
    /// The UID the API server gave a pod: unlike its name it is never used twice.
    PodUid
}

text_identity! {
    /// One run of one container: every restart has an id of its own. It is safe as a file name.
    ContainerId
}

impl ContainerId {
    /// The id of a container's `attempt`-th run (from 0), the same after a restart of the agent.
    #[must_use]
    pub fn of(pod: &PodUid, container: &str, attempt: u32) -> Self {
        Self(format!("{pod}_{container}_{attempt}"))
    }

    /// Which run of its container this is, from 0: the number of its log file.
    #[must_use]
    pub fn attempt(&self) -> Option<u32> {
        self.0.rsplit_once('_')?.1.parse().ok()
    }
}

/// A content digest in OCI's form, `sha256:` and 64 lower-case hexadecimal digits.
///
/// It is checked where it enters, so it is safe as part of a file name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

/// A text that is no `sha256` digest.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is not a digest of the form sha256:<64 hexadecimal digits>")]
pub struct InvalidDigest(String);

const ALGORITHM: &str = "sha256:";

impl Digest {
    /// The digest that stands in `text`.
    ///
    /// # Errors
    /// When `text` is not `sha256:` followed by 64 lower-case hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self, InvalidDigest> {
        let is_hex = |digits: &str| {
            digits.len() == 64 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        match text.strip_prefix(ALGORITHM) {
            Some(digits) if is_hex(digits) => Ok(Self(text.to_owned())),
            _ => Err(InvalidDigest(text.chars().take(100).collect())),
        }
    }

    /// The whole text, with its algorithm.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The 64 hexadecimal digits alone.
    #[must_use]
    pub fn hex(&self) -> &str {
        &self.0[ALGORITHM.len()..]
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl TryFrom<String> for Digest {
    type Error = InvalidDigest;

    fn try_from(text: String) -> Result<Self, InvalidDigest> {
        Self::parse(&text)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_checked_where_they_enter() {
        let hex = "0123456789abcdef".repeat(4);
        assert_eq!(Digest::parse(&format!("sha256:{hex}")).unwrap().hex(), hex);
        for bad in
            ["", "sha256:", "sha512:00", &hex, &format!("sha256:{}", hex.to_uppercase()), "sha256:../../x"]
        {
            assert!(Digest::parse(bad).is_err(), "{bad}");
        }
    }
}
