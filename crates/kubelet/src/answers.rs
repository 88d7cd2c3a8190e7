use kube::runtime::watcher;

/// What the API server said, without the structure around it.
pub(crate) fn words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// Whether a watch only ended because its place in history is gone. That is an answer and no outage: the list that
/// follows needs no wait.
pub(crate) fn is_expired(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchError(status) if status.code == 410)
}
