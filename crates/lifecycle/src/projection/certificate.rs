use std::fmt::{self, Debug, Formatter};

use super::trust::certificates;

/// A private key, and the certificate that a signer of the cluster issued to it for a pod (KEP-4317).
#[derive(Clone, PartialEq, Eq)]
pub struct PodCertificate {
    /// The key, as PEM of PKCS #8.
    pub(super) key: String,
    /// The certificate and those between it and its authority, as PEM.
    pub(super) chain: String,
}

impl PodCertificate {
    /// A key and the chain as the signer gave it. What stands between its certificates is left out, and so are headers.
    #[must_use]
    pub fn new(key: String, chain: &str) -> Self {
        Self { key, chain: certificates(chain) }
    }

    /// Key and chain as one text, so that who reads it has two that belong together.
    pub(super) fn bundle(&self) -> String {
        format!("{}{}", self.key, self.chain)
    }
}

/// The key is never shown.
impl Debug for PodCertificate {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str("PodCertificate")
    }
}
