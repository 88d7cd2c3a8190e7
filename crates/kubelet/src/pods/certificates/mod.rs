//! The certificates of pods (KEP-4317): a key made here, a request to a signer of the cluster, and another one in time.

mod key;
mod p521;
mod request;
mod warnings;

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use coracle_lifecycle::projection::PodCertificate;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use thiserror::Error;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::CallError;
use crate::clock;
use crate::waits::Waits;
pub(super) use key::Keys;
pub(super) use request::Request;

/// How long a volume waits for a signer before people are told.
const PATIENCE: Duration = Duration::from_secs(2);
/// When a request that failed is made anew: the authorizer may be behind a binding that this node knows of already.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_mins(1);
/// Certificates of many pods that were issued together are renewed within so many milliseconds of each other.
const JITTER: i64 = 10_000;

/// Why there is no certificate. Never holds a key.
#[derive(Debug, Error)]
pub(super) enum CertificateError {
    #[error("this node cannot make keys of type {0:?} for podCertificate")]
    KeyType(String),
    #[error("failed to make a key: {0}")]
    Key(#[from] rcgen::Error),
    #[error("failed to make a key: {0}")]
    Encoding(String),
    #[error(
        "the API server serves no podcertificaterequests.certificates.k8s.io in a version this node knows"
    )]
    NotServed,
    #[error("serviceaccount {0:?} not found")]
    NoAccount(String),
    #[error("failed to request a certificate of signer {signer:?}: {source}")]
    Call { signer: String, source: CallError },
    #[error("credential bundle is not issued yet")]
    Pending,
    #[error("PodCertificateRequest {0:?} appears to have been deleted")]
    Deleted(String),
    #[error("PodCertificateRequest was permanently denied: reason={reason:?} message={message:?}")]
    Denied { name: String, reason: String, message: String },
    #[error("PodCertificateRequest was permanently failed: reason={reason:?} message={message:?}")]
    Failed { name: String, reason: String, message: String },
    #[error("the node is stopping")]
    Stopping,
}

impl CertificateError {
    /// Of a key that cannot be made or written down.
    fn encoding(error: impl Display) -> Self {
        Self::Encoding(error.to_string())
    }

    /// Whether another request of the pod's would end the same way.
    fn is_final(&self) -> bool {
        matches!(self, Self::KeyType(_) | Self::Denied { .. } | Self::Failed { .. })
    }
}

/// The certificates of one pod. They, their keys and what renews them go with this value.
pub(super) struct Certificates {
    keys: Arc<Keys>,
    kept: Mutex<Kept>,
    changed: Arc<Notify>,
}

#[derive(Default)]
struct Kept {
    /// By the volume, and the place among its sources of this kind.
    states: HashMap<(String, usize), watch::Receiver<State>>,
    tasks: JoinSet<()>,
}

/// What has become of a source.
#[derive(Clone)]
enum State {
    /// Nothing was issued yet, and why if that is known.
    Awaited(Option<Arc<CertificateError>>),
    Issued(PodCertificate),
    /// It is over, also for what was issued before.
    Refused(Arc<CertificateError>),
}

/// What a signer has issued.
struct Issued {
    certificate: PodCertificate,
    term: Term,
}

/// When a certificate is to be renewed, and when it is good no more.
#[derive(Clone, Copy)]
struct Term {
    refresh_at: Timestamp,
    expires_at: Option<Timestamp>,
}

impl Certificates {
    /// None yet.
    pub(super) fn new(keys: Arc<Keys>) -> Self {
        Self { keys, kept: Mutex::default(), changed: Arc::default() }
    }

    /// The certificate of one source of a volume as it is now. The first time it is requested, and from then on kept.
    ///
    /// # Errors
    /// When it was refused, or is not issued yet: [`Self::changed`] tells when it is.
    pub(super) async fn get(
        &self,
        volume: &str,
        position: usize,
        request: impl FnOnce() -> Request,
    ) -> Result<PodCertificate, Arc<CertificateError>> {
        let mut state = self.state(volume, position, request);
        let is_known = |state: &State| !matches!(state, State::Awaited(_));
        let _ = timeout(PATIENCE, state.wait_for(is_known)).await;
        let state = state.borrow().clone();
        match state {
            State::Issued(certificate) => Ok(certificate),
            State::Refused(error) | State::Awaited(Some(error)) => Err(error),
            State::Awaited(None) => Err(Arc::new(CertificateError::Pending)),
        }
    }

    /// Waits until one of the certificates was issued, renewed or refused.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn state(
        &self,
        volume: &str,
        position: usize,
        request: impl FnOnce() -> Request,
    ) -> watch::Receiver<State> {
        let mut kept = self.kept.lock();
        let Kept { states, tasks } = &mut *kept;
        let begin = || {
            let (told, state) = watch::channel(State::Awaited(None));
            tasks.spawn(keep(request(), Arc::clone(&self.keys), told, Arc::clone(&self.changed)));
            state
        };
        states.entry((volume.to_owned(), position)).or_insert_with(begin).clone()
    }
}

/// Requests a certificate, and another one whenever it is due, for as long as this is polled.
async fn keep(request: Request, keys: Arc<Keys>, state: watch::Sender<State>, changed: Arc<Notify>) {
    let mut term = None;
    loop {
        let obtained = tokio::select! {
            obtained = obtain(&request, &keys, term, &state) => obtained,
            never = warnings::tell(&request, term) => match never {},
        };
        let news = match obtained {
            Ok(issued) => {
                term = Some(issued.term);
                State::Issued(issued.certificate)
            }
            Err(error) => {
                warnings::refused(&request, &error);
                State::Refused(Arc::new(error))
            }
        };
        let is_over = matches!(news, State::Refused(_));
        state.send_replace(news);
        changed.notify_one();
        if is_over {
            return;
        }
    }
}

/// Waits until the certificate that is in use is due to be renewed, if there is one, and requests another until one is
/// issued.
///
/// # Errors
/// When it makes no sense to ask again.
async fn obtain(
    request: &Request,
    keys: &Keys,
    term: Option<Term>,
    state: &watch::Sender<State>,
) -> Result<Issued, CertificateError> {
    if let Some(term) = term {
        sleep(until(term.refresh_at)).await;
    }
    let mut waits = Waits::new(FIRST_WAIT, LONGEST_WAIT);
    loop {
        match issue(request, keys, state).await {
            Err(error) if !error.is_final() => {
                debug!(%error, "a pod certificate is requested again");
                await_still(state, error);
                sleep(waits.next()).await;
            }
            outcome => return outcome,
        }
    }
}

async fn issue(
    request: &Request,
    keys: &Keys,
    state: &watch::Sender<State>,
) -> Result<Issued, CertificateError> {
    let asked = request.ask(keys).await?;
    await_still(state, CertificateError::Pending);
    asked.outcome().await
}

/// Says why nothing was issued yet. What was issued before stays.
fn await_still(state: &watch::Sender<State>, error: CertificateError) {
    state.send_if_modified(|state| match state {
        State::Awaited(why) => {
            *why = Some(Arc::new(error));
            true
        }
        State::Issued(_) | State::Refused(_) => false,
    });
}

fn until(refresh_at: Timestamp) -> Duration {
    let jitter = SignedDuration::from_millis(fastrand::i64(0..JITTER));
    let wait = refresh_at.duration_since(clock::now()).saturating_add(jitter);
    // A signer's hint that is over already must not become a storm of requests.
    Duration::try_from(wait).unwrap_or_default().max(LONGEST_WAIT)
}
