/// Replaces `$(NAME)` by what `lookup` gives for the name. `$$` stands for `$`, so `$$(NAME)` stays `$(NAME)`; an unknown
/// name stays as it is written.
///
/// <https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/>
#[must_use]
pub fn expand<'a>(text: &str, lookup: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(position) = rest.find('$') {
        result.push_str(&rest[..position]);
        let after = &rest[position + 1..];
        rest = match (after.strip_prefix('$'), reference(after)) {
            (Some(escaped), _) => {
                result.push('$');
                escaped
            }
            (None, Some((name, behind))) => {
                result.push_str(lookup(name).unwrap_or(&rest[position..rest.len() - behind.len()]));
                behind
            }
            (None, None) => {
                result.push('$');
                after
            }
        };
    }
    result.push_str(rest);
    result
}

/// The name in `(NAME)…`, and what stands behind it.
fn reference(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix('(')?.split_once(')')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expansion_follows_the_rules_of_kubernetes() {
        let lookup = |name: &str| match name {
            "A" => Some("1"),
            "EMPTY" => Some(""),
            _ => None,
        };
        let check = |text: &str, expected: &str| assert_eq!(expand(text, lookup), expected, "{text}");
        check("", "");
        check("plain", "plain");
        check("$(A)", "1");
        check("x$(A)y$(A)z", "x1y1z");
        check("$(EMPTY)", "");
        check("$(B)", "$(B)");
        check("$$(A)", "$(A)");
        check("$$$(A)", "$1");
        check("$$$$(A)", "$$(A)");
        check("$A", "$A");
        check("$", "$");
        check("$$", "$");
        check("$(A", "$(A");
        check("$()", "$()");
        check("ü$(A)ü", "ü1ü");
    }
}
