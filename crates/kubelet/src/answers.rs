use std::error::Error;

use kube::runtime::watcher;

/// What the API server said, without the structure around it, or why it could not be asked.
pub(crate) fn words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        // What cannot be read may be quoted by the error, and may be a secret.
        kube::Error::SerdeError(_) => "the API server's answer cannot be read".to_owned(),
        other => chain(other),
    }
}

/// Whether a watch only ended because its place in history is gone. That is an answer and no outage: the list that
/// follows needs no wait.
pub(crate) fn is_expired(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchError(status) if status.code == 410)
}

/// An error and its causes on one line, each said once.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let part = error.to_string();
        if !text.contains(&part) {
            text = format!("{text}: {part}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_said_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer: inner")]
        struct Outer(#[source] Inner);
        #[derive(Debug, thiserror::Error)]
        #[error("inner")]
        struct Inner(#[source] std::fmt::Error);
        let text = chain(&Outer(Inner(std::fmt::Error)));
        assert_eq!(text, format!("outer: inner: {}", std::fmt::Error));
    }
}
