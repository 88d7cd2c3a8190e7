use thiserror::Error;

/// Why a file of variables cannot be read. No message holds a value.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EnvironmentFileError {
    /// A line is no variable.
    #[error("line {0}: not of the form NAME='value'")]
    Malformed(usize),
    /// A value has no end.
    #[error("line {0}: the value has no closing quote")]
    Unclosed(usize),
    /// Not text.
    #[error("not UTF-8")]
    NotText,
}

/// The value of a variable in a file of lines `NAME='value'`, where values may span lines, blank lines and those that
/// begin with `#` say nothing, and the last of several lines for one name counts; `None` when the file does not hold it.
///
/// KEP-3721.
///
/// # Errors
/// When the file is not of this form.
pub fn file_variable(content: &[u8], wanted: &str) -> Result<Option<String>, EnvironmentFileError> {
    let text = std::str::from_utf8(content).map_err(|_| EnvironmentFileError::NotText)?;
    let mut found = None;
    let mut rest = text;
    while let Some(start) = rest.find(|character: char| !character.is_ascii_whitespace()) {
        rest = &rest[start..];
        let line = || 1 + text[..text.len() - rest.len()].matches('\n').count();
        if rest.starts_with('#') {
            rest = rest.split_once('\n').map_or("", |(_, behind)| behind);
            continue;
        }
        let malformed = || EnvironmentFileError::Malformed(line());
        let (name, value) = rest.split_once("='").ok_or_else(malformed)?;
        if name.is_empty() || name.contains(|character: char| character.is_whitespace() || character == '=') {
            return Err(malformed());
        }
        let (value, behind) = value.split_once('\'').ok_or_else(|| EnvironmentFileError::Unclosed(line()))?;
        let (trailing, behind) = behind.split_once('\n').unwrap_or((behind, ""));
        if !matches!(trailing.trim().as_bytes(), [] | [b'#', ..]) {
            return Err(malformed());
        }
        if name == wanted {
            found = Some(value.to_owned());
        }
        rest = behind;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str =
        "# comment\n\n  A='1'\nB='two\nlines # kept'\nQUOTED='\"x\" $(A)' # why\nEMPTY=''\r\nA='last'";

    #[test]
    fn values_are_what_stands_between_the_quotes() {
        let check = |name: &str, expected: Option<&str>| {
            assert_eq!(file_variable(FILE.as_bytes(), name), Ok(expected.map(ToOwned::to_owned)), "{name}");
        };
        check("A", Some("last"));
        check("B", Some("two\nlines # kept"));
        check("QUOTED", Some("\"x\" $(A)"));
        check("EMPTY", Some(""));
        check("lines", None);
        assert_eq!(file_variable(b"", "A"), Ok(None));
    }

    #[test]
    fn what_is_of_another_form_is_refused_by_its_line() {
        let check = |content: &[u8], error: EnvironmentFileError| {
            assert_eq!(file_variable(content, "A"), Err(error), "{content:?}");
        };
        check(b"A=1", EnvironmentFileError::Malformed(1));
        check(b"B='1'\nA ='1'", EnvironmentFileError::Malformed(2));
        check(b"='1'", EnvironmentFileError::Malformed(1));
        check(b"A='1' B='2'", EnvironmentFileError::Malformed(1));
        check(b"A='1'x", EnvironmentFileError::Malformed(1));
        check(b"\n\nA='1", EnvironmentFileError::Unclosed(3));
        check(b"A='\xff'", EnvironmentFileError::NotText);
    }
}
