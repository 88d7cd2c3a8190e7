//! The variables of a container, and where they are used.

use std::collections::HashMap;

/// Replaces `$(NAME)` by the value of a variable declared so far. `$$` stands for `$`, so `$$(NAME)` stays `$(NAME)`;
/// an unknown name stays as it is written.
///
/// <https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/>
#[must_use]
pub fn expand(text: &str, variables: &[(String, String)]) -> String {
    let lookup: HashMap<&str, &str> = variables.iter().map(|(name, value)| (&**name, &**value)).collect();
    expand_with(text, &lookup)
}

fn expand_with(text: &str, lookup: &HashMap<&str, &str>) -> String {
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
                match lookup.get(name) {
                    Some(value) => result.push_str(value),
                    None => result.push_str(&rest[position..rest.len() - behind.len()]),
                }
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

/// The literal variables of a container in order, each expanded with those before it; a later one of the same name
/// wins.
#[must_use]
pub fn literal_variables(declared: &[(String, String)]) -> Vec<(String, String)> {
    let mut variables: Vec<(String, String)> = Vec::with_capacity(declared.len());
    for (name, value) in declared {
        let value = expand(value, &variables);
        match variables.iter_mut().find(|(existing, _)| existing == name) {
            Some(existing) => existing.1 = value,
            None => variables.push((name.clone(), value)),
        }
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expansion_follows_the_rules_of_kubernetes() {
        let variables = [("A".to_owned(), "1".to_owned()), ("EMPTY".to_owned(), String::new())];
        let check = |text: &str, expected: &str| assert_eq!(expand(text, &variables), expected, "{text}");
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

    #[test]
    fn variables_see_only_those_before_them() {
        let declared = [("B", "$(A)"), ("A", "1"), ("C", "$(A)$(B)"), ("A", "$(A)2")];
        let declared = declared.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let expected = [("B", "$(A)"), ("A", "12"), ("C", "1$(A)")];
        assert_eq!(
            literal_variables(&declared),
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
    }
}
