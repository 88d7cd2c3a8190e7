use coracle_lifecycle::Credential;
use http_auth::ChallengeParser;
use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Client, StatusCode, Url};
use serde::Deserialize;

use crate::registry::{RegistryError, network, read_body, refused};

/// Tokens are a few KiB; nothing near this is one.
const TOKEN_LIMIT: u64 = 1024 * 1024;

/// What a registry asks for with its 401.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// The user's name and password with each request.
    Basic,
    /// A token, had from `realm` (<https://distribution.github.io/distribution/spec/auth/token/>).
    Bearer { realm: String, service: Option<String> },
}

impl Challenge {
    /// The challenge in a response's headers; a bearer token goes before basic authentication.
    pub(crate) fn find(headers: &HeaderMap) -> Option<Self> {
        let texts = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let mut all: Vec<Self> = texts.flat_map(challenges).collect();
        let bearer = all.iter().position(|challenge| *challenge != Self::Basic);
        if all.is_empty() { None } else { Some(all.swap_remove(bearer.unwrap_or(0))) }
    }
}

fn challenges(header: &str) -> Vec<Challenge> {
    ChallengeParser::new(header)
        .map_while(Result::ok)
        .filter_map(|challenge| {
            let parameter = |name: &str| {
                let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
                found.map(|(_, value)| value.to_unescaped())
            };
            if challenge.scheme.eq_ignore_ascii_case("basic") {
                return Some(Challenge::Basic);
            }
            let is_bearer = challenge.scheme.eq_ignore_ascii_case("bearer");
            let realm = parameter("realm").filter(|_| is_bearer)?;
            Some(Challenge::Bearer { realm, service: parameter("service") })
        })
        .collect()
}

/// Whom a registry is asked as.
pub(crate) struct Applicant<'a> {
    pub(crate) http: &'a Client,
    pub(crate) credential: Option<&'a Credential>,
    /// Whether the registry itself is spoken to without TLS.
    pub(crate) plain: bool,
    /// The repository to be read.
    pub(crate) repository: &'a str,
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl Applicant<'_> {
    /// The `Authorization` header that answers `challenge`.
    pub(crate) async fn answer(&self, challenge: &Challenge) -> Result<HeaderValue, RegistryError> {
        match challenge {
            Challenge::Basic => self.basic(),
            Challenge::Bearer { realm, service } => self.bearer(realm, service.as_deref()).await,
        }
    }

    fn basic(&self) -> Result<HeaderValue, RegistryError> {
        let Credential { username, password, .. } = self.credential.ok_or(RegistryError::Denied)?;
        // A request is made only for its header: there is then one encoder of basic authentication, reqwest's.
        let request = self.http.get("http://localhost").basic_auth(username, Some(password)).build();
        let headers = request.map_err(|error| network(&error))?;
        headers.headers().get(reqwest::header::AUTHORIZATION).cloned().ok_or(RegistryError::Denied)
    }

    async fn bearer(&self, realm: &str, service: Option<&str>) -> Result<HeaderValue, RegistryError> {
        let mut request = self.http.get(self.token_address(realm, service)?);
        if let Some(Credential { username, password, .. }) = self.credential {
            request = request.basic_auth(username, Some(password));
        }
        let response = request.send().await.map_err(|error| network(&error))?;
        match response.status() {
            StatusCode::OK => header(&read_body(response, TOKEN_LIMIT).await?),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(RegistryError::Denied),
            _ => Err(refused(response).await.at("the token server")),
        }
    }

    /// Where the token is asked for. A registry behind TLS cannot have credentials sent in the clear.
    fn token_address(&self, realm: &str, service: Option<&str>) -> Result<Url, RegistryError> {
        let mut url =
            Url::parse(realm).map_err(|_| malformed("the token server's address cannot be parsed"))?;
        if url.scheme() != "https" && !(self.plain && url.scheme() == "http") {
            return Err(malformed("the token server's address is not https"));
        }
        let scope = format!("repository:{}:pull", self.repository);
        url.query_pairs_mut().append_pair("scope", &scope);
        if let Some(service) = service {
            url.query_pairs_mut().append_pair("service", service);
        }
        Ok(url)
    }
}

fn header(body: &[u8]) -> Result<HeaderValue, RegistryError> {
    // The parser's error could repeat a part of a token.
    let token: Token =
        serde_json::from_slice(body).map_err(|_| malformed("the token server sent no token"))?;
    let token = token.token.filter(|token| !token.is_empty()).or(token.access_token);
    let token = token.ok_or_else(|| malformed("the token server sent no token"))?;
    let mut value = HeaderValue::try_from(format!("Bearer {token}"))
        .map_err(|_| malformed("the token server sent a token that fits no header"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn malformed(what: &str) -> RegistryError {
    RegistryError::Malformed(what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(headers: &[&'static str], expected: Option<&Challenge>) {
        let values = headers.iter().map(|value| (WWW_AUTHENTICATE, HeaderValue::from_static(value)));
        let map: HeaderMap = values.collect();
        assert_eq!(Challenge::find(&map).as_ref(), expected, "{headers:?}");
    }

    fn bearer(realm: &str, service: Option<&str>) -> Challenge {
        Challenge::Bearer { realm: realm.to_owned(), service: service.map(str::to_owned) }
    }

    #[test]
    fn challenges_are_understood() {
        check(&[], None);
        check(&["Negotiate", "%%%"], None);
        check(&["Bearer service=\"x\""], None);
        check(&["Basic realm=\"x\""], Some(&Challenge::Basic));
        check(
            &["bearer REALM=\"https://t/a?b=\\\"c\",service=s"],
            Some(&bearer("https://t/a?b=\"c", Some("s"))),
        );
        check(&["Basic realm=\"x\", Bearer realm=\"https://t\""], Some(&bearer("https://t", None)));
        check(&["Basic realm=\"x\"", "Bearer realm=\"https://t\""], Some(&bearer("https://t", None)));
    }

    #[test]
    fn a_token_is_taken_under_either_name_and_only_when_it_fits_a_header() {
        assert_eq!(header(br#"{"token":"a"}"#).unwrap(), "Bearer a");
        assert_eq!(header(br#"{"token":"","access_token":"b"}"#).unwrap(), "Bearer b");
        for body in [&br#"{"token":"secret\n"}"#[..], b"{}", b"secret", br#"{"token":["secret"]}"#] {
            let error = header(body).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
