use jiff::{SignedDuration, Timestamp};
use thiserror::Error;

/// What of a log is asked for: the query of `/containerLogs`, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogOptions {
    /// Keep sending until the container ends.
    pub(crate) follow: bool,
    /// The last run before the current one.
    pub(crate) previous: bool,
    /// Begin each line with its time.
    pub(crate) timestamps: bool,
    /// Nothing older than this.
    pub(crate) since: Option<Timestamp>,
    /// Only so many lines from the end.
    pub(crate) tail: Option<u64>,
    /// At most so many bytes.
    pub(crate) limit: Option<u64>,
}

/// Why a query is refused, in the kubelet's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum OptionsError {
    /// A value that cannot be read: 400.
    #[error(r#"{{"message": "Unable to decode query."}}"#)]
    Undecodable,
    /// Values that may not be, or not together: 422.
    #[error(r#"{{"message": "Invalid request."}}"#)]
    Invalid,
    /// One stream alone, which is a feature that is off: 400.
    #[error(r#"{{"message": "stream: only All is supported"}}"#)]
    Stream,
}

impl LogOptions {
    /// Reads a query. Where a name is repeated the first one counts; unknown names are passed over.
    ///
    /// # Errors
    /// [`OptionsError`] as the kubelet refuses it.
    pub(crate) fn parse(query: &[(String, String)], now: Timestamp) -> Result<Self, OptionsError> {
        let value = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let legacy = value("tail").filter(|tail| !tail.is_empty());
        let tail = match legacy {
            Some("all") => None,
            Some(lines) => Some(lines),
            None => value("tailLines"),
        };
        if value("stream").is_some_and(|stream| stream != "All" && !stream.is_empty()) {
            return Err(OptionsError::Stream);
        }
        Ok(Self {
            follow: flag(value("follow")),
            previous: flag(value("previous")),
            timestamps: flag(value("timestamps")),
            since: since(value("sinceSeconds"), value("sinceTime"), now)?,
            tail: number(tail, 0)?,
            limit: number(value("limitBytes"), 1)?,
        })
    }
}

/// As the API machinery reads a boolean: everything but `false` and `0` is true.
fn flag(value: Option<&str>) -> bool {
    value.is_some_and(|value| value != "0" && !value.eq_ignore_ascii_case("false"))
}

fn number(value: Option<&str>, least: i64) -> Result<Option<u64>, OptionsError> {
    let Some(value) = value.filter(|value| !value.is_empty()) else { return Ok(None) };
    let number: i64 = value.parse().map_err(|_| OptionsError::Undecodable)?;
    if number < least {
        return Err(OptionsError::Invalid);
    }
    Ok(u64::try_from(number).ok())
}

fn since(
    seconds: Option<&str>,
    time: Option<&str>,
    now: Timestamp,
) -> Result<Option<Timestamp>, OptionsError> {
    let seconds = number(seconds, 1)?;
    let time = time.filter(|time| !time.is_empty());
    let time: Option<Timestamp> = time.map(str::parse).transpose().map_err(|_| OptionsError::Undecodable)?;
    if seconds.is_some() && time.is_some() {
        return Err(OptionsError::Invalid);
    }
    let ago = seconds.map(|seconds| {
        let seconds = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
        now.checked_sub(seconds).unwrap_or(Timestamp::MIN)
    });
    Ok(ago.or(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-11-21T10:00:00Z";

    #[track_caller]
    fn check(query: &[(&str, &str)], expected: &Result<LogOptions, OptionsError>) {
        let pairs: Vec<_> = query.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        let parsed = LogOptions::parse(&pairs, NOW.parse().unwrap());
        assert_eq!(&parsed, expected, "{query:?}");
    }

    fn since_time(time: &str) -> LogOptions {
        LogOptions { since: Some(time.parse().unwrap()), ..LogOptions::default() }
    }

    fn last(lines: u64) -> LogOptions {
        LogOptions { tail: Some(lines), ..LogOptions::default() }
    }

    #[test]
    fn what_kubectl_sends_is_understood() {
        let all = LogOptions { follow: true, previous: true, timestamps: true, ..LogOptions::default() };
        check(&[], &Ok(LogOptions::default()));
        check(&[("follow", "true"), ("previous", "1"), ("timestamps", "TRUE")], &Ok(all));
        check(&[("follow", "False"), ("previous", "0")], &Ok(LogOptions::default()));
        check(&[("sinceSeconds", "60")], &Ok(since_time("2026-11-21T09:59:00Z")));
        check(&[("sinceTime", "2026-11-21T00:00:00+01:00")], &Ok(since_time("2026-11-20T23:00:00Z")));
        check(&[("tailLines", "5")], &Ok(last(5)));
        check(&[("tailLines", "0")], &Ok(last(0)));
        check(&[("tail", "7"), ("tailLines", "5")], &Ok(last(7)));
        check(&[("tail", "all"), ("tailLines", "5")], &Ok(LogOptions::default()));
        check(&[("limitBytes", "10")], &Ok(LogOptions { limit: Some(10), ..LogOptions::default() }));
        check(&[("stream", "All"), ("unknown", "x")], &Ok(LogOptions::default()));
    }

    #[test]
    fn nonsense_is_refused_as_the_kubelet_refuses_it() {
        check(&[("tailLines", "many")], &Err(OptionsError::Undecodable));
        check(&[("tailLines", "99999999999999999999")], &Err(OptionsError::Undecodable));
        check(&[("sinceTime", "yesterday")], &Err(OptionsError::Undecodable));
        check(&[("tailLines", "-1")], &Err(OptionsError::Invalid));
        check(&[("limitBytes", "0")], &Err(OptionsError::Invalid));
        check(&[("sinceSeconds", "0")], &Err(OptionsError::Invalid));
        check(&[("sinceSeconds", "1"), ("sinceTime", NOW)], &Err(OptionsError::Invalid));
        check(&[("stream", "Stdout")], &Err(OptionsError::Stream));
        check(
            &[("sinceSeconds", "9223372036854775807")],
            &Ok(LogOptions { since: Some(Timestamp::MIN), ..LogOptions::default() }),
        );
        check(&[("tailLines", "9223372036854775807")], &Ok(last(9_223_372_036_854_775_807)));
    }
}
