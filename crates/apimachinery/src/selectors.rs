//! Label and field selectors: parsing with Go's errors, matching, printing
//! (`k8s.io/apimachinery/pkg/labels/selector.go`, `pkg/fields/selector.go`).

use crate::field::{self, Error, ErrorList, Path};
use crate::validation::names;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt;

/// A label selector. The default selects everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabelSelector {
    /// All must hold; ordered by key.
    requirements: Vec<Requirement>,
    /// Selects nothing, whatever the requirements are.
    nothing: bool,
}

/// One requirement of a label selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// The label.
    pub key: String,
    /// What its value must be.
    pub operator: Operator,
    /// The values that the operator speaks of, sorted.
    pub values: Vec<String>,
}

/// The operators of label selectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `key=value`
    Equals,
    /// `key==value`
    DoubleEquals,
    /// `key!=value`: also true without the label.
    NotEquals,
    /// `key in (a,b)`
    In,
    /// `key notin (a,b)`: also true without the label.
    NotIn,
    /// `key`
    Exists,
    /// `!key`
    DoesNotExist,
    /// `key>1`
    GreaterThan,
    /// `key<1`
    LessThan,
}

impl LabelSelector {
    /// Parses `app=web,tier in (front, back),!legacy`. Errors: in Go's words, for a 400.
    pub fn parse(text: &str) -> Result<Self, String> {
        Parser { tokens: lex(text), at: 0 }.selector()
    }

    /// Reads a `metav1.LabelSelector` (`matchLabels`, `matchExpressions`): an empty one selects everything, an absent
    /// one nothing (`LabelSelectorAsSelector` in `apis/meta/v1/helpers.go`). Errors: an unknown operator, or values
    /// that break its rules.
    pub fn from_object(selector: Option<&Value>) -> Result<Self, String> {
        let Some(selector) = selector.filter(|s| !s.is_null()) else {
            return Ok(Self { requirements: Vec::new(), nothing: true });
        };
        let mut requirements = Vec::new();
        for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
            let value = value.as_str().unwrap_or_default().to_string();
            requirements.push(Requirement::new(key, Operator::Equals, BTreeSet::from([value]))?);
        }
        for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
            let operator = match expression["operator"].as_str().unwrap_or_default() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => {
                    return Err(format!("{} is not a valid label selector operator", field::go_quote(other)));
                }
            };
            let values = expression["values"].as_array().into_iter().flatten();
            let values = values.filter_map(|v| v.as_str().map(str::to_string)).collect();
            let key = expression["key"].as_str().unwrap_or_default();
            requirements.push(Requirement::new(key, operator, values)?);
        }
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self { requirements, nothing: false })
    }

    /// Whether everything is selected.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }

    /// The requirements, ordered by key.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether labels are selected; `label` gives the value of a label, if it is there.
    pub fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(label(&r.key)))
    }

    /// Whether the labels of an object (`metadata.labels`) are selected.
    pub fn matches_object(&self, object: &Value) -> bool {
        self.matches(|key| object["metadata"]["labels"].get(key)?.as_str())
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self.requirements.iter().map(ToString::to_string).collect();
        f.write_str(&parts.join(","))
    }
}

impl Requirement {
    fn new(key: &str, operator: Operator, values: BTreeSet<String>) -> Result<Self, String> {
        let mut errors = label_key_errors(key, &Path::new("key"));
        let field = Path::new("values");
        let list = || Value::from(values.iter().cloned().collect::<Vec<_>>());
        let complaint = match operator {
            Operator::In | Operator::NotIn if values.is_empty() => {
                Some("for 'in', 'notin' operators, values set can't be empty")
            }
            Operator::Equals | Operator::DoubleEquals | Operator::NotEquals if values.len() != 1 => {
                Some("exact-match compatibility requires one single value")
            }
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
                Some("values set must be empty for exists and does not exist")
            }
            Operator::GreaterThan | Operator::LessThan if values.len() != 1 => {
                Some("for 'Gt', 'Lt' operators, exactly one value is required")
            }
            _ => None,
        };
        errors.extend(complaint.map(|text| Error::invalid(&field, list(), text)));
        for (index, value) in values.iter().enumerate() {
            let compares = matches!(operator, Operator::GreaterThan | Operator::LessThan);
            if compares && go_int(value).is_none() {
                let text = "for 'Gt', 'Lt' operators, the value must be an integer";
                errors.push(Error::invalid(&field.index(index), value.as_str(), text));
            }
        }
        for (index, value) in values.iter().enumerate() {
            let problems = names::is_label_value(value);
            if !problems.is_empty() {
                errors.push(Error::invalid(
                    &field.index(index).key(key),
                    value.as_str(),
                    problems.join("; "),
                ));
            }
        }
        if !errors.is_empty() {
            return Err(field::aggregate(&errors));
        }
        Ok(Self { key: key.into(), operator, values: values.into_iter().collect() })
    }

    fn matches(&self, value: Option<&str>) -> bool {
        let has = |value: &str| self.values.iter().any(|v| v == value);
        match self.operator {
            Operator::In | Operator::Equals | Operator::DoubleEquals => value.is_some_and(has),
            Operator::NotIn | Operator::NotEquals => !value.is_some_and(has),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan | Operator::LessThan => {
                let numbers = (value.and_then(go_int), self.values.first().and_then(|v| go_int(v)));
                match numbers {
                    (Some(left), Some(right)) if self.operator == Operator::GreaterThan => left > right,
                    (Some(left), Some(right)) => left < right,
                    _ => false,
                }
            }
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, values) = (&self.key, self.values.join(","));
        match self.operator {
            Operator::Exists => f.write_str(key),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::Equals => write!(f, "{key}={values}"),
            Operator::DoubleEquals => write!(f, "{key}=={values}"),
            Operator::NotEquals => write!(f, "{key}!={values}"),
            Operator::In => write!(f, "{key} in ({values})"),
            Operator::NotIn => write!(f, "{key} notin ({values})"),
            Operator::GreaterThan => write!(f, "{key}>{values}"),
            Operator::LessThan => write!(f, "{key}<{values}"),
        }
    }
}

/// Go's `strconv.ParseInt(text, 10, 64)`.
fn go_int(text: &str) -> Option<i64> {
    text.parse().ok()
}

fn label_key_errors(key: &str, field: &Path) -> ErrorList {
    let problems = names::is_qualified_name(key);
    if problems.is_empty() { Vec::new() } else { vec![Error::invalid(field, key, problems.join("; "))] }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Close,
    Comma,
    Not,
    DoubleEquals,
    Equals,
    Greater,
    In,
    Less,
    NotEquals,
    NotIn,
    Open,
    Identifier,
    Error,
    End,
}

fn keyword(text: &str) -> Option<Token> {
    Some(match text {
        ")" => Token::Close,
        "," => Token::Comma,
        "!" => Token::Not,
        "==" => Token::DoubleEquals,
        "=" => Token::Equals,
        ">" => Token::Greater,
        "in" => Token::In,
        "<" => Token::Less,
        "!=" => Token::NotEquals,
        "notin" => Token::NotIn,
        "(" => Token::Open,
        _ => return None,
    })
}

/// The length of the longest token of symbols.
const LONGEST_SYMBOL: usize = 2;

/// The tokens of a selector with their text, the last one being the end. As in Go, a NUL ends the text.
fn lex(text: &str) -> Vec<(Token, String)> {
    let is_special = |c: char| "=!(),><".contains(c);
    let is_space = |c: char| matches!(c, ' ' | '\t' | '\r' | '\n');
    let mut rest = text.split('\0').next().unwrap_or_default();
    let mut tokens = Vec::new();
    loop {
        rest = rest.trim_start_matches(is_space);
        if rest.is_empty() {
            tokens.push((Token::End, String::new()));
            return tokens;
        }
        // No token is longer, and a run of symbols may be as long as the selector.
        let symbols = rest.bytes().take(LONGEST_SYMBOL).take_while(|b| is_special(char::from(*b))).count();
        let special = &rest[..symbols];
        let token = if special.is_empty() {
            let end = rest.find(|c| is_special(c) || is_space(c)).unwrap_or(rest.len());
            (keyword(&rest[..end]).unwrap_or(Token::Identifier), &rest[..end])
        } else {
            // The longest run of symbols that is a token.
            let longest = (1..=special.len())
                .take_while(|&n| keyword(&special[..n]).is_some())
                .last()
                .and_then(|n| Some((keyword(&special[..n])?, &special[..n])));
            longest.unwrap_or((Token::Error, special))
        };
        rest = &rest[token.1.len()..];
        tokens.push((token.0, token.1.to_string()));
    }
}

struct Parser {
    tokens: Vec<(Token, String)>,
    at: usize,
}

impl Parser {
    /// The token at hand; a value may be called `in` or `notin`.
    fn peek(&self) -> (Token, &str) {
        let (token, text) = self.tokens.get(self.at).map_or((Token::End, ""), |(t, s)| (*t, s.as_str()));
        (if matches!(token, Token::In | Token::NotIn) { Token::Identifier } else { token }, text)
    }

    fn next(&mut self) -> (Token, String) {
        let (token, text) = self.peek();
        let taken = (token, text.to_string());
        self.at += 1;
        taken
    }

    fn selector(&mut self) -> Result<LabelSelector, String> {
        let mut requirements = Vec::new();
        loop {
            match self.peek() {
                (Token::Identifier | Token::Not, _) => {
                    let requirement =
                        self.requirement().map_err(|e| format!("unable to parse requirement: {e}"))?;
                    requirements.push(requirement);
                    match self.next() {
                        (Token::End, _) => break,
                        (Token::Comma, _) => match self.peek() {
                            (Token::Identifier | Token::Not, _) => {}
                            (_, text) => {
                                return Err(format!("found '{text}', expected: identifier after ','"));
                            }
                        },
                        (_, text) => return Err(format!("found '{text}', expected: ',' or 'end of string'")),
                    }
                }
                (Token::End, _) => break,
                (_, text) => {
                    return Err(format!("found '{text}', expected: !, identifier, or 'end of string'"));
                }
            }
        }
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(LabelSelector { requirements, nothing: false })
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let negated = self.peek().0 == Token::Not;
        if negated {
            self.at += 1;
        }
        let (token, key) = self.next();
        if token != Token::Identifier {
            return Err(format!("found '{key}', expected: identifier"));
        }
        if let Some(error) = label_key_errors(&key, &Path::default()).first() {
            return Err(error.to_string());
        }
        if negated {
            return Requirement::new(&key, Operator::DoesNotExist, BTreeSet::new());
        }
        if matches!(self.peek().0, Token::End | Token::Comma) {
            return Requirement::new(&key, Operator::Exists, BTreeSet::new());
        }
        let operator = self.operator()?;
        let values = match operator {
            Operator::In | Operator::NotIn => self.values()?,
            _ => self.exact_value()?,
        };
        Requirement::new(&key, operator, values)
    }

    fn operator(&mut self) -> Result<Operator, String> {
        // Here `in` is a keyword.
        let (token, text) = self.tokens.get(self.at).cloned().unwrap_or((Token::End, String::new()));
        self.at += 1;
        Ok(match token {
            Token::In => Operator::In,
            Token::Equals => Operator::Equals,
            Token::DoubleEquals => Operator::DoubleEquals,
            Token::Greater => Operator::GreaterThan,
            Token::Less => Operator::LessThan,
            Token::NotIn => Operator::NotIn,
            Token::NotEquals => Operator::NotEquals,
            _ => return Err(format!("found '{text}', expected: in, notin, =, ==, !=, gt, lt")),
        })
    }

    fn values(&mut self) -> Result<BTreeSet<String>, String> {
        let (token, text) = self.next();
        if token != Token::Open {
            return Err(format!("found '{text}' expected: '('"));
        }
        let (token, text) = self.peek();
        let text = text.to_string();
        match token {
            Token::Identifier | Token::Comma => {
                let values = self.identifiers()?;
                if self.next().0 != Token::Close {
                    return Err(format!("found '{text}', expected: ')'"));
                }
                Ok(values)
            }
            Token::Close => {
                self.at += 1;
                Ok(BTreeSet::from([String::new()]))
            }
            _ => Err(format!("found '{text}', expected: ',', ')' or identifier")),
        }
    }

    fn identifiers(&mut self) -> Result<BTreeSet<String>, String> {
        let mut values = BTreeSet::new();
        loop {
            match self.next() {
                (Token::Identifier, text) => {
                    values.insert(text);
                    match self.peek() {
                        (Token::Comma, _) => {}
                        (Token::Close, _) => return Ok(values),
                        (_, text) => return Err(format!("found '{text}', expected: ',' or ')'")),
                    }
                }
                (Token::Comma, _) => {
                    if values.is_empty() {
                        values.insert(String::new());
                    }
                    match self.peek().0 {
                        Token::Close => {
                            values.insert(String::new());
                            return Ok(values);
                        }
                        Token::Comma => {
                            values.insert(String::new());
                        }
                        _ => {}
                    }
                }
                (_, text) => return Err(format!("found '{text}', expected: ',', or identifier")),
            }
        }
    }

    fn exact_value(&mut self) -> Result<BTreeSet<String>, String> {
        if matches!(self.peek().0, Token::End | Token::Comma) {
            return Ok(BTreeSet::from([String::new()]));
        }
        match self.next() {
            (Token::Identifier, text) => Ok(BTreeSet::from([text])),
            (_, text) => Err(format!("found '{text}', expected: identifier")),
        }
    }
}

/// A field selector. The default selects everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldSelector {
    terms: Vec<FieldTerm>,
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
        parts.sort_unstable();
        let mut terms = Vec::new();
        for part in parts.into_iter().filter(|part| !part.is_empty()) {
            let (field, operator, value) = split_term(part)
                .ok_or_else(|| format!("invalid selector: '{text}'; can't understand '{part}'"))?;
            let value = unescape(value)?;
            // A term about nothing selects everything.
            if !(field.is_empty() && value.is_empty()) {
                terms.push(FieldTerm { field: field.into(), value, equal: operator != "!=" });
            }
        }
        Ok(Self { terms })
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
        self.terms.push(FieldTerm { field: field.into(), value: value.into(), equal: true });
    }

    /// The value that `field` must have for anything to be selected.
    pub fn required_value(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|term| term.equal && term.field == field).map(|term| term.value.as_str())
    }

    /// Whether an object is selected; `value` gives the value of a field, empty if it has none.
    pub fn matches(&self, mut value: impl FnMut(&str) -> String) -> bool {
        self.terms.iter().all(|term| (value(&term.field) == term.value) == term.equal)
    }

    /// The first field that is not among `supported` beside name and namespace.
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

/// Splits at the first operator.
fn split_term(term: &str) -> Option<(&str, &str, &str)> {
    term.char_indices().find_map(|(index, _)| {
        let operator = ["!=", "==", "="].into_iter().find(|op| term[index..].starts_with(op))?;
        Some((&term[..index], operator, &term[index + operator.len()..]))
    })
}

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
    use serde_json::json;

    #[test]
    fn label_selectors_select() {
        let objects = [
            ("a", json!({"app": "web", "tier": "front"})),
            ("b", json!({"app": "web", "tier": "back"})),
            ("c", json!({"app": "db"})),
            ("d", json!({"app": ""})),
            ("e", json!({"n": "7"})),
        ];
        for (selector, expected) in [
            ("app=web", "ab"),
            ("app==web,tier=back", "b"),
            ("app!=web", "cde"),
            ("app", "abcd"),
            ("!app", "e"),
            ("app=", "d"),
            ("app in (web, db)", "abc"),
            ("app notin (web)", "cde"),
            ("app in ()", "d"),
            ("app in (,web)", "abd"),
            (" app = web , tier in ( front ) ", "a"),
            ("", "abcde"),
            ("n>5", "e"),
            ("n<7", ""),
            ("app in (in,notin)", ""),
        ] {
            let parsed = LabelSelector::parse(selector).unwrap();
            let selected: String = objects
                .iter()
                .filter(|(_, labels)| parsed.matches_object(&json!({"metadata": {"labels": labels}})))
                .map(|(name, _)| *name)
                .collect();
            assert_eq!(selected, expected, "{selector}");
            assert_eq!(LabelSelector::parse(&parsed.to_string()).unwrap(), parsed, "{parsed}");
        }
    }

    #[test]
    fn label_selectors_are_refused_in_go_words() {
        const OPERATORS: &str = "expected: in, notin, =, ==, !=, gt, lt";
        for (selector, expected) in [
            ("tier gt 5", format!("unable to parse requirement: found 'gt', {OPERATORS}")),
            ("tier>x", "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must be an integer".into()),
            ("app=web,", "found '', expected: identifier after ','".into()),
            ("app web", format!("unable to parse requirement: found 'web', {OPERATORS}")),
            ("=web", "found '=', expected: !, identifier, or 'end of string'".into()),
            ("app=bad value", "found 'value', expected: ',' or 'end of string'".into()),
            ("app in web", "unable to parse requirement: found 'web' expected: '('".into()),
            ("!app=web", "found '=', expected: ',' or 'end of string'".into()),
            ("app=(", "unable to parse requirement: found '(', expected: identifier".into()),
            ("app in (a b)", "unable to parse requirement: found 'b', expected: ',' or ')'".into()),
        ] {
            assert_eq!(LabelSelector::parse(selector), Err(expected), "{selector}");
        }
        let bad_key = LabelSelector::parse("a/b/c=x").unwrap_err();
        assert!(bad_key.starts_with(
            "unable to parse requirement: <nil>: Invalid value: \"a/b/c\": a valid label key must"
        ));
        let bad_value = LabelSelector::parse("app=-x").unwrap_err();
        assert!(bad_value.starts_with(
            "unable to parse requirement: values[0][app]: Invalid value: \"-x\": a valid label must"
        ));
    }

    #[test]
    fn selectors_in_objects_are_read() {
        let labels = json!({"metadata": {"labels": {"a": "1", "b": "2"}}});
        for (selector, expected) in [
            (Some(json!({})), true),
            (None, false),
            (Some(json!({"matchLabels": {"a": "1"}})), true),
            (Some(json!({"matchExpressions": [{"key": "b", "operator": "NotIn", "values": ["2"]}]})), false),
            (Some(json!({"matchExpressions": [{"key": "c", "operator": "DoesNotExist"}]})), true),
        ] {
            let parsed = LabelSelector::from_object(selector.as_ref()).unwrap();
            assert_eq!(parsed.matches_object(&labels), expected, "{selector:?}");
        }
        let bad = json!({"matchExpressions": [{"key": "a", "operator": "Near"}]});
        assert_eq!(
            LabelSelector::from_object(Some(&bad)),
            Err("\"Near\" is not a valid label selector operator".into())
        );
    }

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
        ] {
            let parsed = FieldSelector::parse(selector).unwrap();
            assert_eq!(parsed.matches(value), expected, "{selector}");
            assert_eq!(FieldSelector::parse(&parsed.to_string()).unwrap(), parsed, "{parsed}");
        }
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
            let _ = LabelSelector::parse(&text);
            let _ = FieldSelector::parse(&text);
        }
    }

    #[test]
    fn a_long_run_of_symbols_is_read_once() {
        // With a look at the whole run for each of its symbols this would take hours.
        for (symbol, expected) in [
            (",", "found ',', expected: !, identifier, or 'end of string'"),
            ("!", "unable to parse requirement: found '!', expected: identifier"),
        ] {
            assert_eq!(LabelSelector::parse(&symbol.repeat(2_000_000)), Err(expected.into()));
        }
    }
}
