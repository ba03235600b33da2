//! Label and field selectors: parsing with the error texts of `k8s.io/apimachinery/pkg/labels/selector.go` and
//! `pkg/fields/selector.go`, and matching. No I/O.

use crate::field::{Error, Path, aggregate};
use crate::validation::names;
use std::collections::BTreeSet;

/// How a label is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

/// One requirement on a label.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    operator: Operator,
    values: BTreeSet<String>,
}

/// A label selector; the empty one selects everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelSelector(Vec<Requirement>);

impl LabelSelector {
    /// Parses a selector such as `app=web,tier in (a,b),!old`. The error is the text of a 400.
    pub fn parse(text: &str) -> Result<Self, String> {
        Parser { tokens: lex(text), at: 0 }.selector().map(Self)
    }

    /// Whether this selects everything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all requirements hold for labels that `label` looks up.
    pub fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0.iter().all(|requirement| requirement.matches(label(&requirement.key)))
    }
}

impl Requirement {
    fn matches(&self, value: Option<&str>) -> bool {
        let compared = |test: fn(&i64, &i64) -> bool| {
            let bound = self.values.first().and_then(|v| v.parse().ok());
            match (value.and_then(|v| v.parse().ok()), bound) {
                (Some(value), Some(bound)) => test(&value, &bound),
                _ => false,
            }
        };
        match self.operator {
            Operator::In => value.is_some_and(|v| self.values.contains(v)),
            Operator::NotIn => value.is_none_or(|v| !self.values.contains(v)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan => compared(i64::gt),
            Operator::LessThan => compared(i64::lt),
        }
    }

    fn validate(&self) -> Result<(), String> {
        let path = Path::new("values");
        let mut errors = Vec::new();
        if matches!(self.operator, Operator::GreaterThan | Operator::LessThan) {
            for (i, value) in self.values.iter().enumerate().filter(|(_, v)| v.parse::<i64>().is_err()) {
                let why = "for 'Gt', 'Lt' operators, the value must be an integer";
                errors.push(Error::invalid(&path.index(i), value.as_str(), why));
            }
        }
        for (i, value) in self.values.iter().enumerate() {
            let wrong = names::is_label_value(value);
            if !wrong.is_empty() {
                let path = path.index(i).key(&self.key);
                errors.push(Error::invalid(&path, value.as_str(), wrong.join("; ")));
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(aggregate(&errors)) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Identifier,
    Symbol,
    In,
    NotIn,
    End,
}

#[derive(Debug, Clone)]
struct Token {
    kind: Kind,
    text: String,
}

fn lex(text: &str) -> Vec<Token> {
    const SYMBOLS: [&str; 9] = [")", ",", "!", "==", "!=", "=", "(", ">", "<"];
    let special = |c: char| "=!(),><".contains(c);
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', '\r', '\n']);
        let Some(first) = rest.chars().next() else { break };
        let end = if special(first) {
            // The longest symbol that the text begins with.
            SYMBOLS.iter().filter(|s| rest.starts_with(**s)).map(|s| s.len()).max().unwrap_or(1)
        } else {
            rest.find(|c: char| special(c) || [' ', '\t', '\r', '\n'].contains(&c)).unwrap_or(rest.len())
        };
        let (word, after) = rest.split_at(end);
        let kind = match word {
            _ if special(first) => Kind::Symbol,
            "in" => Kind::In,
            "notin" => Kind::NotIn,
            _ => Kind::Identifier,
        };
        tokens.push(Token { kind, text: word.into() });
        rest = after;
    }
    tokens.push(Token { kind: Kind::End, text: String::new() });
    tokens
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
}

impl Parser {
    /// The next token; `in` and `notin` are identifiers where values and keys stand.
    fn peek(&self) -> Token {
        let mut token = self.tokens[self.at.min(self.tokens.len() - 1)].clone();
        if matches!(token.kind, Kind::In | Kind::NotIn) {
            token.kind = Kind::Identifier;
        }
        token
    }

    fn next(&mut self) -> Token {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn peeks(&self, symbol: &str) -> bool {
        let token = self.peek();
        token.kind == Kind::Symbol && token.text == symbol
    }

    fn at_end_or_comma(&self) -> bool {
        self.peek().kind == Kind::End || self.peeks(",")
    }

    fn selector(mut self) -> Result<Vec<Requirement>, String> {
        let mut requirements = Vec::new();
        loop {
            let token = self.peek();
            if token.kind == Kind::End {
                return Ok(requirements);
            }
            if token.kind != Kind::Identifier && !self.peeks("!") {
                return Err(format!("found '{}', expected: !, identifier, or 'end of string'", token.text));
            }
            let requirement = self.requirement().map_err(|e| format!("unable to parse requirement: {e}"))?;
            requirements.push(requirement);
            let token = self.next();
            if token.kind == Kind::End {
                return Ok(requirements);
            }
            if token.text != "," {
                return Err(format!("found '{}', expected: ',' or 'end of string'", token.text));
            }
            let token = self.peek();
            if token.kind != Kind::Identifier && !self.peeks("!") {
                return Err(format!("found '{}', expected: identifier after ','", token.text));
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let absent = self.peeks("!");
        if absent {
            self.next();
        }
        let token = self.next();
        if token.kind != Kind::Identifier {
            return Err(format!("found '{}', expected: identifier", token.text));
        }
        let key = token.text;
        validate_key(&key)?;
        let plain = |operator| Ok(Requirement { key: key.clone(), operator, values: BTreeSet::new() });
        if absent {
            return plain(Operator::DoesNotExist);
        }
        if self.at_end_or_comma() {
            return plain(Operator::Exists);
        }
        let (operator, list) = self.operator()?;
        let values = if list { self.values()? } else { self.exact_value()? };
        let requirement = Requirement { key, operator, values };
        requirement.validate()?;
        Ok(requirement)
    }

    /// The operator, and whether a list of values follows.
    fn operator(&mut self) -> Result<(Operator, bool), String> {
        let token = self.tokens[self.at].clone();
        self.at += 1;
        Ok(match (token.kind, token.text.as_str()) {
            (Kind::In, _) => (Operator::In, true),
            (Kind::NotIn, _) => (Operator::NotIn, true),
            (Kind::Symbol, "=" | "==") => (Operator::In, false),
            (Kind::Symbol, "!=") => (Operator::NotIn, false),
            (Kind::Symbol, ">") => (Operator::GreaterThan, false),
            (Kind::Symbol, "<") => (Operator::LessThan, false),
            (_, text) => return Err(format!("found '{text}', expected: in, notin, =, ==, !=, gt, lt")),
        })
    }

    fn values(&mut self) -> Result<BTreeSet<String>, String> {
        let token = self.next();
        if token.text != "(" {
            return Err(format!("found '{}' expected: '('", token.text));
        }
        let token = self.peek();
        if self.peeks(")") {
            self.next();
            return Ok(BTreeSet::from([String::new()]));
        }
        if token.kind != Kind::Identifier && !self.peeks(",") {
            return Err(format!("found '{}', expected: ',', ')' or identifier", token.text));
        }
        let values = self.identifiers()?;
        let token = self.next();
        if token.text == ")" { Ok(values) } else { Err(format!("found '{}', expected: ')'", token.text)) }
    }

    fn identifiers(&mut self) -> Result<BTreeSet<String>, String> {
        let mut values = BTreeSet::new();
        loop {
            let token = self.next();
            match (token.kind, token.text.as_str()) {
                (Kind::Identifier, text) => {
                    values.insert(text.to_string());
                    let after = self.peek();
                    match after.text.as_str() {
                        "," => {}
                        ")" => return Ok(values),
                        text => return Err(format!("found '{text}', expected: ',' or ')'")),
                    }
                }
                (Kind::Symbol, ",") => {
                    if values.is_empty() {
                        values.insert(String::new());
                    }
                    if self.peeks(")") {
                        values.insert(String::new());
                        return Ok(values);
                    }
                    if self.peeks(",") {
                        self.next();
                        values.insert(String::new());
                    }
                }
                (_, text) => return Err(format!("found '{text}', expected: ',', or identifier")),
            }
        }
    }

    fn exact_value(&mut self) -> Result<BTreeSet<String>, String> {
        if self.at_end_or_comma() {
            return Ok(BTreeSet::from([String::new()]));
        }
        let token = self.next();
        match token.kind {
            Kind::Identifier => Ok(BTreeSet::from([token.text])),
            _ => Err(format!("found '{}', expected: identifier", token.text)),
        }
    }
}

fn validate_key(key: &str) -> Result<(), String> {
    const LABEL_KEY: &str = "a valid label key must consist of alphanumeric characters, '-', '_' or '.', and must \
        start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for \
        validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' \
        (e.g. 'example.com/MyName')";
    if key.matches('/').count() > 1 {
        return Err(Error::invalid(&Path::default(), key, LABEL_KEY).to_string());
    }
    let wrong = names::is_qualified_name(key);
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(Error::invalid(&Path::default(), key, wrong.join("; ")).to_string())
    }
}

/// A field selector: all terms must hold; the empty one selects everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSelector(Vec<Term>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    field: String,
    equal: bool,
    value: String,
}

impl FieldSelector {
    /// Parses a selector such as `metadata.name=a,type!=Opaque`. The error is the text of a 400.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut terms = Vec::new();
        for part in split_terms(text).into_iter().filter(|part| !part.is_empty()) {
            let (field, equal, value) = split_term(&part)
                .ok_or_else(|| format!("invalid selector: '{text}'; can't understand '{part}'"))?;
            terms.push(Term { field: field.into(), equal, value: unescape(value)? });
        }
        Ok(Self(terms))
    }

    /// Whether this selects everything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The fields that it names, in order.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|term| term.field.as_str())
    }

    /// Whether all terms hold for fields that `field` looks up.
    pub fn matches(&self, mut field: impl FnMut(&str) -> String) -> bool {
        self.0.iter().all(|term| (field(&term.field) == term.value) == term.equal)
    }
}

fn split_terms(text: &str) -> Vec<String> {
    let mut terms = vec![String::new()];
    let mut escaped = false;
    for c in text.chars() {
        match c {
            ',' if !escaped => terms.push(String::new()),
            c => terms.last_mut().expect("never empty").push(c),
        }
        escaped = c == '\\' && !escaped;
    }
    terms
}

fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    term.char_indices().find_map(|(i, _)| {
        [("!=", false), ("==", true), ("=", true)]
            .into_iter()
            .find(|(operator, _)| term[i..].starts_with(operator))
            .map(|(operator, equal)| (&term[..i], equal, &term[i + operator.len()..]))
    })
}

fn unescape(text: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                Some(c) => return Err(format!("invalid field selector: invalid escape sequence: \\{c}")),
                None => return Err("invalid field selector: invalid escape sequence: \\".into()),
            },
            '=' => return Err(format!("invalid field selector: unescaped character in value: {c}")),
            c => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn label_selectors_select_what_they_say() {
        let objects = [
            ("a", vec![("app", "web"), ("tier", "front")]),
            ("b", vec![("app", "web"), ("tier", "back")]),
            ("c", vec![("app", "db"), ("tier", "7")]),
            ("d", vec![("app", "")]),
            ("e", vec![]),
        ];
        for (selector, want) in [
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
            ("tier>5", "c"),
            ("tier<5", ""),
            ("in", ""),
        ] {
            let parsed = LabelSelector::parse(selector).unwrap_or_else(|e| panic!("{selector}: {e}"));
            let seen: String = objects
                .iter()
                .filter(|(_, labels)| {
                    parsed.matches(|key| labels.iter().find(|(k, _)| *k == key).map(|(_, v)| *v))
                })
                .map(|(name, _)| *name)
                .collect();
            assert_eq!(seen, want, "{selector}");
        }
    }

    #[test]
    fn bad_label_selectors_are_refused_in_the_words_of_go() {
        for (selector, want) in [
            ("tier gt 5", "unable to parse requirement: found 'gt', expected: in, notin, =, ==, !=, gt, lt"),
            ("app=web,", "found '', expected: identifier after ','"),
            ("=web", "found '=', expected: !, identifier, or 'end of string'"),
            ("app=bad value", "found 'value', expected: ',' or 'end of string'"),
            ("app in web", "unable to parse requirement: found 'web' expected: '('"),
            ("set in (broken", "unable to parse requirement: found '', expected: ',' or ')'"),
            ("!app=web", "found '=', expected: ',' or 'end of string'"),
            (
                "tier>x",
                "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must be an integer",
            ),
        ] {
            assert_eq!(LabelSelector::parse(selector), Err(want.to_string()), "{selector}");
        }
        let long = LabelSelector::parse("a/b/c=x").expect_err("two slashes");
        assert!(
            long.starts_with(
                "unable to parse requirement: <nil>: Invalid value: \"a/b/c\": a valid label key"
            )
        );
        let value = LabelSelector::parse("app=-x").expect_err("a dash in front");
        assert!(value.starts_with(
            "unable to parse requirement: values[0][app]: Invalid value: \"-x\": a valid label"
        ));
    }

    #[test]
    fn field_selectors_select_what_they_say() {
        let field = |name: &str| if name == "metadata.name" { "a".to_string() } else { String::new() };
        for (selector, want) in [
            ("metadata.name=a", true),
            ("metadata.name!=a", false),
            ("metadata.name==a,type=", true),
            ("", true),
        ] {
            let parsed = FieldSelector::parse(selector).expect(selector);
            assert_eq!(parsed.matches(field), want, "{selector}");
        }
        assert_eq!(FieldSelector::parse("x\\,y=a\\=b").map(|s| s.0[0].value.clone()), Ok("a=b".to_string()));
        assert!(FieldSelector::parse("nonsense").is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in "[a-z=!(),<>\\\\ /.-]{0,24}|\\PC{0,24}") {
            let _ = LabelSelector::parse(&text);
            let _ = FieldSelector::parse(&text);
        }
    }
}
