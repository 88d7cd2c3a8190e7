use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

/// Who makes a request, as the API server would know them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct User {
    /// The certificate's common name.
    pub(super) name: String,
    /// Its organisations, and the group of all who are known.
    pub(super) groups: Vec<String>,
}

impl User {
    /// The user that a verified certificate stands for; `None` when it names nobody.
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        Self::named(certificate.subject())
    }

    fn named(subject: &X509Name<'_>) -> Option<Self> {
        let name = subject.iter_common_name().last()?.as_str().ok()?;
        let organisations = subject.iter_organization().filter_map(|part| part.as_str().ok());
        let groups = organisations.chain(["system:authenticated"]).map(str::to_owned).collect();
        (!name.is_empty()).then(|| Self { name: name.to_owned(), groups })
    }
}
