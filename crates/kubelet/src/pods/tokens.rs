use std::collections::HashMap;
use std::time::Duration;

use coracle_lifecycle::PodIdentity;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ServiceAccountTokenProjection;
use parking_lot::{Mutex, MutexGuard};
use thiserror::Error;
use tokio::sync::Notify;
use tokio::time::sleep;
use tracing::warn;

use super::PodApi;
use super::api::CallError;
use crate::clock;

/// How long the API server's authorizer may be behind a binding that this node knows of already, and how often it is asked
/// again for that.
const AUTHORIZER_LAG: Duration = Duration::from_millis(250);
const LAGS: u32 = 4;
/// However long a token lives, it is renewed at this age.
const LONGEST_USE: SignedDuration = SignedDuration::from_hours(24);
/// When a token that could not be renewed, and is still good, is tried again.
const RETRY: SignedDuration = SignedDuration::from_mins(1);
/// Tokens of many pods that were made together are renewed within so many milliseconds of each other.
const JITTER: i64 = 10_000;

/// Why there is no token. Never holds one.
#[derive(Debug, Error)]
pub(super) enum TokenError {
    #[error("failed to fetch a token of {account:?}: {source}")]
    Call { account: String, source: Box<CallError> },
    #[error("the API server gave no token of {0:?}")]
    None(String),
}

/// The service account tokens of one pod, bound to it. They go with this value.
pub(super) struct Tokens {
    api: PodApi,
    pod: PodIdentity,
    known: Mutex<Known>,
    renewed: Notify,
}

#[derive(Default)]
struct Known {
    tokens: HashMap<Wanted, Token>,
    /// When it was told last that one is due.
    told_at: Option<Timestamp>,
}

/// What a token is asked for with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Wanted {
    account: String,
    audience: Option<String>,
    seconds: Option<i64>,
}

#[derive(Clone)]
struct Token {
    text: String,
    renew_at: Timestamp,
    expires_at: Timestamp,
}

impl Tokens {
    pub(super) fn new(api: PodApi, pod: PodIdentity) -> Self {
        Self { api, pod, known: Mutex::default(), renewed: Notify::new() }
    }

    /// A token as a volume asks for it. One that is known and not due to be renewed is given again, and so is one that is
    /// due, could not be renewed and is still good.
    ///
    /// # Errors
    /// When there is no good token.
    pub(super) async fn get(
        &self,
        account: &str,
        projection: &ServiceAccountTokenProjection,
    ) -> Result<String, TokenError> {
        let wanted = Wanted {
            account: account.to_owned(),
            audience: projection.audience.clone().filter(|audience| !audience.is_empty()),
            seconds: projection.expiration_seconds,
        };
        let known = self.lock().tokens.get(&wanted).cloned();
        if let Some(token) = known.as_ref().filter(|token| clock::now() < token.renew_at) {
            return Ok(token.text.clone());
        }
        match self.ask(&wanted).await {
            Ok(token) => Ok(self.keep(wanted, token)),
            Err(error) => match known.filter(|token| clock::now() < token.expires_at) {
                Some(token) => {
                    warn!(pod = %self.pod.name, namespace = %self.pod.namespace, %error, "a token is not renewed yet");
                    Ok(self.keep(wanted, Token { renew_at: clock::now() + RETRY, ..token }))
                }
                None => Err(error),
            },
        }
    }

    /// Waits until a token is due to be renewed. What is done about it may take a while: it is not told again at once.
    pub(super) async fn due(&self) {
        loop {
            let renewed = self.renewed.notified();
            let Some(due_at) = self.lock().due_at() else {
                renewed.await;
                continue;
            };
            let wait = Duration::try_from(due_at.duration_since(clock::now())).unwrap_or_default();
            tokio::select! {
                () = sleep(wait) => break,
                () = renewed => {}
            }
        }
        self.lock().told_at = Some(clock::now());
    }

    async fn ask(&self, wanted: &Wanted) -> Result<Token, TokenError> {
        let (account, audience) = (wanted.account.as_str(), wanted.audience.as_deref());
        for tries in 1_u32.. {
            match self.api.token(&self.pod, account, audience, wanted.seconds).await {
                Ok(Some((text, expires_at))) => return Ok(Token::new(text, expires_at, clock::now())),
                Ok(None) => break,
                Err(error) if error.is_forbidden() && tries < LAGS => sleep(AUTHORIZER_LAG).await,
                Err(source) => {
                    return Err(TokenError::Call { account: account.to_owned(), source: Box::new(source) });
                }
            }
        }
        Err(TokenError::None(account.to_owned()))
    }

    fn keep(&self, wanted: Wanted, token: Token) -> String {
        let text = token.text.clone();
        self.lock().tokens.insert(wanted, token);
        self.renewed.notify_waiters();
        text
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock()
    }
}

impl Known {
    fn due_at(&self) -> Option<Timestamp> {
        let first = self.tokens.values().map(|token| token.renew_at).min()?;
        Some(self.told_at.map_or(first, |told_at| first.max(told_at + RETRY)))
    }
}

impl Token {
    /// A token is renewed when 80 % of its life are over.
    fn new(text: String, expires_at: Timestamp, now: Timestamp) -> Self {
        let life = expires_at.duration_since(now);
        let share = SignedDuration::from_millis(i64::try_from(life.as_millis() * 4 / 5).unwrap_or(i64::MAX));
        let jitter = SignedDuration::from_millis(fastrand::i64(0..JITTER));
        let renew_at = now + share.min(LONGEST_USE) - jitter;
        Self { text, renew_at: renew_at.max(now), expires_at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_renewed_at_four_fifths_of_its_life_or_after_a_day() {
        let now = Timestamp::UNIX_EPOCH;
        for (life, expected) in [(600, 480), (3_607, 2_885), (1_000_000, 86_400)] {
            let token = Token::new(String::new(), now + SignedDuration::from_secs(life), now);
            let use_time = token.renew_at.duration_since(now).as_secs();
            assert!((expected - 11..=expected).contains(&use_time), "{life}: {use_time}");
        }
        assert_eq!(Token::new(String::new(), now, now).renew_at, now);
    }
}
