use std::error::Error;

use tracing::{debug, info, warn};

use crate::answers::chain;

/// Logs what fails again and again once at `warn` for each cause, and once when it works again.
pub(super) struct Complaint {
    what: &'static str,
    last: Option<String>,
}

impl Complaint {
    /// Complaints about `what`, a noun phrase.
    pub(super) fn about(what: &'static str) -> Self {
        Self { what, last: None }
    }

    /// It failed.
    pub(super) fn failed(&mut self, error: &dyn Error) {
        let cause = chain(error);
        if self.last.as_ref() == Some(&cause) {
            debug!(cause, "{} failed again", self.what);
        } else {
            warn!(cause, "{} failed, will be tried again", self.what);
            self.last = Some(cause);
        }
    }

    /// It worked.
    pub(super) fn worked(&mut self) {
        if self.last.take().is_some() {
            info!("{} works again", self.what);
        }
    }
}
