//! What people are told of the certificates of a pod: the kubelet's Events.

use std::convert::Infallible;
use std::future::pending;

use coracle_lifecycle::Notice;
use jiff::{SignedDuration, Timestamp};
use tokio::time::sleep_until;

use super::{CertificateError, Request, Term};
use crate::pods::worker::instant;

/// How long after its time a certificate that was not renewed is overdue.
const OVERDUE: SignedDuration = SignedDuration::from_mins(10);

/// Tells of a certificate in use that it is overdue, and that it has expired, when that comes to be. Never ends.
pub(super) async fn tell(request: &Request, term: Option<Term>) -> Infallible {
    let at = async |time: Option<Timestamp>, reason: &str, message: &str| {
        if let Some(time) = time {
            sleep_until(instant(time)).await;
            warn(request, reason, message.to_owned());
        }
    };
    let overdue_at = term.map(|term| term.refresh_at + OVERDUE);
    let expires_at = term.and_then(|term| term.expires_at);
    tokio::join!(
        at(overdue_at, "CertificateOverdueForRefresh", "PodCertificate refresh overdue"),
        at(expires_at, "CertificateExpired", "PodCertificate expired"),
    );
    pending().await
}

/// Tells that a signer has said no, once and for all.
pub(super) fn refused(request: &Request, error: &CertificateError) {
    let namespace = &request.pod.namespace;
    match error {
        CertificateError::Denied { name, reason, message } => {
            let what = format!("{namespace}/{name} was denied, reason={reason:?}, message={message:?}");
            warn(request, "Denied", format!("PodCertificateRequest {what}"));
        }
        CertificateError::Failed { name, reason, message } => {
            let what = format!("{namespace}/{name} failed, reason={reason:?}, message={message:?}");
            warn(request, "Failed", format!("PodCertificateRequest {what}"));
        }
        _ => {}
    }
}

fn warn(request: &Request, reason: &str, message: String) {
    if let Some(pod) = request.directory.pod(&request.pod.uid) {
        let notice = Notice { is_warning: true, reason: reason.to_owned(), message, container: None };
        request.recorder.pod(&pod, notice);
    }
}
