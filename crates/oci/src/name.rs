use std::fmt;

use coracle_lifecycle::{Digest, ImageError};
use oci_client::{ParseError, Reference};

/// A parsed image reference, with registry, repository, and tag or digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ImageName {
    reference: Reference,
    digest: Option<Digest>,
}

impl ImageName {
    /// Parses `text` as docker does: without a registry it is docker.io, without tag and digest it is `latest`.
    pub(crate) fn parse(text: &str) -> Result<Self, ImageError> {
        let reference = parse_reference(text).map_err(|cause| invalid(text, &cause))?;
        match reference.digest() {
            Some(digest) if !digest.starts_with("sha256:") => Err(ImageError::Unsupported(format!(
                "image {text:?}: digests other than sha256 are not supported"
            ))),
            Some(digest) => match Digest::parse(digest) {
                Ok(digest) => Ok(Self { reference, digest: Some(digest) }),
                Err(_) => Err(invalid(text, "invalid reference format: invalid checksum digest format")),
            },
            None => Ok(Self { reference, digest: None }),
        }
    }

    /// The registry's host and port as the reference names it.
    pub(crate) fn registry(&self) -> &str {
        self.reference.registry()
    }

    /// The host and port that requests go to.
    pub(crate) fn host(&self) -> &str {
        self.reference.resolve_registry()
    }

    /// The repository's path within its registry.
    pub(crate) fn path(&self) -> &str {
        self.reference.repository()
    }

    /// The digest that the reference insists on.
    pub(crate) fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The last part of a manifest's address: the digest, else the tag.
    pub(crate) fn target(&self) -> &str {
        self.reference.digest().or(self.reference.tag()).unwrap_or("latest")
    }

    /// `registry/repository@digest`.
    pub(crate) fn at(&self, digest: &Digest) -> String {
        format!("{}/{}@{digest}", self.registry(), self.path())
    }

    /// What the image is kept under: the full reference, without a tag that a digest overrules.
    pub(crate) fn key(&self) -> String {
        self.digest.as_ref().map_or_else(|| self.to_string(), |digest| self.at(digest))
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reference.fmt(formatter)
    }
}

fn invalid(text: &str, cause: &str) -> ImageError {
    ImageError::InvalidName(format!("couldn't parse image name {text:?}: {cause}"))
}

fn parse_reference(text: &str) -> Result<Reference, String> {
    // The grammar of references is ASCII; the parser's `\w` is not.
    if !text.is_ascii() {
        return Err(format_error(&ParseError::ReferenceInvalidFormat));
    }
    Reference::try_from(text).map(with_host).map_err(|error| match Reference::try_from(text.to_lowercase()) {
        Ok(lower) if error == ParseError::ReferenceInvalidFormat => {
            format!("invalid reference format: repository name ({}) must be lowercase", lower.repository())
        }
        _ => format_error(&error),
    })
}

/// Only a host can have capitals: a first part that has some is one, as docker reads it, though it has no dot.
fn with_host(reference: Reference) -> Reference {
    let Some((host, path)) = reference.repository().split_once('/') else { return reference };
    if !host.contains(|letter: char| letter.is_ascii_uppercase()) {
        return reference;
    }
    let (host, path, tag) = (host.to_owned(), path.to_owned(), reference.tag().map(str::to_owned));
    match (tag, reference.digest().map(str::to_owned)) {
        (Some(tag), Some(digest)) => Reference::with_tag_and_digest(host, path, tag, digest),
        (None, Some(digest)) => Reference::with_digest(host, path, digest),
        (tag, None) => Reference::with_tag(host, path, tag.unwrap_or_else(|| "latest".to_owned())),
    }
}

fn format_error(error: &ParseError) -> String {
    match error {
        ParseError::ReferenceInvalidFormat => error.to_string(),
        ParseError::NameEmpty => "invalid reference format".to_owned(),
        other => format!("invalid reference format: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn check(text: &str, full: &str, host: &str, key: &str) {
        let name = ImageName::parse(text).unwrap();
        assert_eq!(
            (name.to_string().as_str(), name.host(), name.key().as_str()),
            (full, host, key),
            "{text}"
        );
    }

    #[test]
    fn references_are_completed_as_docker_does() {
        let hello = "docker.io/library/hello:latest";
        check("hello", hello, "index.docker.io", hello);
        check("index.docker.io/hello", hello, "index.docker.io", hello);
        check("me/hello:1", "docker.io/me/hello:1", "index.docker.io", "docker.io/me/hello:1");
        check("localhost/a", "localhost/a:latest", "localhost", "localhost/a:latest");
        check("127.0.0.1:5000/a/b:t", "127.0.0.1:5000/a/b:t", "127.0.0.1:5000", "127.0.0.1:5000/a/b:t");
        check("Host/a/b", "Host/a/b:latest", "Host", "Host/a/b:latest");
        let by_digest = format!("r.example/a@sha256:{HEX}");
        check(&by_digest, &by_digest, "r.example", &by_digest);
        let both = format!("r.example/a:t@sha256:{HEX}");
        check(&both, &both, "r.example", &by_digest);
        let on_host = format!("Host/a:t@sha256:{HEX}");
        check(&on_host, &on_host, "Host", &format!("Host/a@sha256:{HEX}"));
    }

    fn check_invalid(text: &str, cause: &str) {
        let expected = ImageError::InvalidName(format!("couldn't parse image name {text:?}: {cause}"));
        assert_eq!(ImageName::parse(text), Err(expected));
    }

    #[test]
    fn invalid_names_are_refused_in_the_kubelets_words() {
        for text in [
            "",
            " ",
            "a b",
            "hello:",
            "/hello",
            "hello@sha256:12",
            "../../etc",
            "héllo",
            "a:té",
            "http://a/b",
        ] {
            check_invalid(text, "invalid reference format");
        }
        check_invalid("Hello", "invalid reference format: repository name (library/hello) must be lowercase");
        check_invalid(
            &format!("hello@sha256:{}", HEX.to_uppercase()),
            "invalid reference format: invalid checksum digest format",
        );
        let sha512 = ImageName::parse(&format!("hello@sha512:{HEX}{HEX}"));
        assert!(matches!(sha512, Err(ImageError::Unsupported(_))), "{sha512:?}");
    }
}
