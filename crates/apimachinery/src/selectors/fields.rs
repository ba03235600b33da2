//! Field selectors (`k8s.io/apimachinery/pkg/fields/selector.go`).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A field selector. The default selects everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldSelector {
    terms: Vec<FieldTerm>,
    /// The same, by field: a selector may be long and is compared with every object of a list, of which each field is looked at
    /// once.
    conditions: BTreeMap<String, Condition>,
}

/// All that is required of one field.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Condition {
    /// The values that it must have; more than one can never be had.
    equal: BTreeSet<String>,
    /// The values that it must not have.
    different: BTreeSet<String>,
}

impl Condition {
    fn holds(&self, value: &str) -> bool {
        self.equal.len() <= 1
            && self.equal.first().is_none_or(|equal| equal == value)
            && !self.different.contains(value)
    }
}

/// One term of a field selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldTerm {
    /// The field label, such as `metadata.name`.
    pub field: String,
    /// What it must be, or must not be.
    pub value: String,
    /// Whether the field must have that value (`=`, `==`) or must not (`!=`).
    pub equal: bool,
}

impl FieldSelector {
    /// Parses `metadata.name=a,type!=b`; `\` escapes `,`, `=` and itself in values. Errors: in Go's words, for a 400.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = split_terms(text);
        // Go sorts the terms as they were written, before it reads them; an error is then about the first in that order.
        parts.sort_unstable();
        let mut terms = Vec::new();
        for part in parts.into_iter().filter(|part| !part.is_empty()) {
            let (field, operator, value) = split_term(part)
                .ok_or_else(|| format!("invalid selector: '{text}'; can't understand '{part}'"))?;
            let value = unescape(value)?;
            // `=` alone, without a field and a value, selects everything and is left out.
            if !(field.is_empty() && value.is_empty()) {
                terms.push(FieldTerm { field: field.into(), value, equal: operator != "!=" });
            }
        }
        let mut selector = Self::default();
        terms.into_iter().for_each(|term| selector.add(term));
        Ok(selector)
    }

    /// Whether everything is selected.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// The terms, sorted as text.
    pub fn terms(&self) -> &[FieldTerm] {
        &self.terms
    }

    /// Adds `field=value`.
    pub fn require(&mut self, field: &str, value: &str) {
        self.add(FieldTerm { field: field.into(), value: value.into(), equal: true });
    }

    fn add(&mut self, term: FieldTerm) {
        let condition = self.conditions.entry(term.field.clone()).or_default();
        let values = if term.equal { &mut condition.equal } else { &mut condition.different };
        values.insert(term.value.clone());
        self.terms.push(term);
    }

    /// The value that `field` must have for anything to be selected.
    pub fn required_value(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|term| term.equal && term.field == field).map(|term| term.value.as_str())
    }

    /// Whether an object is selected; `value` gives the value of a field, empty if it has none.
    pub fn matches(&self, mut value: impl FnMut(&str) -> String) -> bool {
        self.conditions.iter().all(|(field, condition)| condition.holds(&value(field)))
    }

    /// The first field that is neither `metadata.name`, `metadata.namespace` nor among `supported`.
    pub fn unsupported<'a>(&'a self, supported: &[String]) -> Option<&'a str> {
        let known = |field: &str| {
            ["metadata.name", "metadata.namespace"].contains(&field) || supported.iter().any(|s| s == field)
        };
        self.terms.iter().map(|term| term.field.as_str()).find(|field| !known(field))
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, term) in self.terms.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            let operator = if term.equal { "=" } else { "!=" };
            // The backslash first, or those that escape the others would be escaped again.
            let value = term.value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
            write!(f, "{comma}{}{operator}{value}", term.field)?;
        }
        Ok(())
    }
}

/// Splits at commas that are not escaped.
fn split_terms(text: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (index, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&text[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

/// Splits at the first operator; `None` if there is none.
fn split_term(term: &str) -> Option<(&str, &str, &str)> {
    // At each place the operators of two characters are tried first, since `=` is the start of `==`.
    term.char_indices().find_map(|(index, _)| {
        let operator = ["!=", "==", "="].into_iter().find(|op| term[index..].starts_with(op))?;
        Some((&term[..index], operator, &term[index + operator.len()..]))
    })
}

/// The value that was written with escapes. Errors: an unknown escape, or a character that should have been escaped.
fn unescape(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(escaped @ ('\\' | ',' | '=')) => out.push(escaped),
                other => {
                    let sequence: String = std::iter::once('\\').chain(other).collect();
                    return Err(format!("invalid field selector: invalid escape sequence: {sequence}"));
                }
            },
            // Go prints the character's number.
            ',' | '=' => {
                return Err(format!("invalid field selector: unescaped character in value: {}", c as u32));
            }
            _ => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn field_selectors_select() {
        let value = |field: &str| if field == "metadata.name" { "a,b".to_string() } else { String::new() };
        for (selector, expected) in [
            ("", true),
            (r"metadata.name=a\,b", true),
            (r"metadata.name==a\,b,type=", true),
            ("metadata.name!=x,type!=y", true),
            ("metadata.name=a", false),
            (",", true),
            (r"metadata.name=a\,b,metadata.name=a\,b", true),
            (r"metadata.name=a\,b,metadata.name=c", false),
            (r"metadata.name!=c,metadata.name!=a\,b", false),
            (r"metadata.name=a\,b,metadata.name!=a\,b", false),
            ("type=,type!=x", true),
        ] {
            let parsed = FieldSelector::parse(selector).unwrap();
            assert_eq!(parsed.matches(value), expected, "{selector}");
            assert_eq!(FieldSelector::parse(&parsed.to_string()).unwrap(), parsed, "{parsed}");
        }
        // Each field is looked at once, however often the selector names it.
        let long = (0..1000).map(|i| format!("type!={i}")).collect::<Vec<_>>().join(",");
        let mut looks = 0;
        assert!(FieldSelector::parse(&long).unwrap().matches(|_| {
            looks += 1;
            String::new()
        }));
        assert_eq!(looks, 1);
        let parsed = FieldSelector::parse("nope=x,metadata.name=a").unwrap();
        assert_eq!(parsed.unsupported(&[]), Some("nope"));
        assert_eq!(parsed.required_value("metadata.name"), Some("a"));
    }

    #[test]
    fn field_selectors_are_refused_in_go_words() {
        for (selector, expected) in [
            ("name", "invalid selector: 'name'; can't understand 'name'"),
            ("a=b=c", "invalid field selector: unescaped character in value: 61"),
            (r"a=b\c", r"invalid field selector: invalid escape sequence: \c"),
            (r"a=b\", r"invalid field selector: invalid escape sequence: \"),
        ] {
            assert_eq!(FieldSelector::parse(selector), Err(expected.into()), "{selector}");
        }
    }

    proptest! {
        #[test]
        fn any_text_never_panics(text in "[a-c=!(),<> \\\\/inot\u{0}\u{e9}-]{0,30}") {
            let _ = FieldSelector::parse(&text);
        }
    }
}
