//! Label selectors (`k8s.io/apimachinery/pkg/labels/selector.go`).

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
    /// What they ask of each label, ordered by key: what is evaluated. However many requirements are about a label, it is
    /// looked at once for each object.
    conditions: Vec<Condition>,
    /// How many of the conditions do not hold without the label.
    needed: usize,
}

/// One requirement of a label selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// The label.
    pub key: String,
    /// What its value must be.
    operator: Operator,
    /// The values that the operator compares with, sorted.
    pub values: Vec<String>,
}

/// The operators of label selectors. `=` and `==` mean the same and are told apart only to print what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
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

    /// Whether everything is selected.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// The requirements, ordered by key.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether an object is selected that has these labels, which are ordered by key, each key once. Costs at most the logarithm
    /// of the selector's length for each label, however long the selector is.
    pub fn matches_sorted<K: AsRef<str>, V: AsRef<str>>(&self, labels: &[(K, V)]) -> bool {
        if self.conditions.len() <= labels.len() {
            return self.matches(|key| {
                let at = labels.binary_search_by(|(known, _)| known.as_ref().cmp(key)).ok()?;
                Some(labels[at].1.as_ref())
            });
        }
        // Conditions on labels that the object does not have are not looked at: it is enough to know how many of those that
        // need the label have been met.
        let mut met = 0;
        for (key, value) in labels {
            let at = self.conditions.binary_search_by(|condition| condition.key.as_str().cmp(key.as_ref()));
            let Some(condition) = at.ok().map(|at| &self.conditions[at]) else { continue };
            if !condition.holds(Some(value.as_ref())) {
                return false;
            }
            met += usize::from(condition.needed);
        }
        met == self.needed
    }

    /// Whether labels are selected; `label` gives the value of a label, if it is there.
    pub fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.conditions.iter().all(|condition| condition.holds(label(&condition.key)))
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self.requirements.iter().map(ToString::to_string).collect();
        f.write_str(&parts.join(","))
    }
}

impl Requirement {
    /// A requirement, or what is wrong with it (`NewRequirement`): all errors at once, in Go's order.
    fn new(key: &str, operator: Operator, values: BTreeSet<String>) -> Result<Self, String> {
        let mut errors = label_key_errors(key, &Path::new("key"));
        let field = Path::new("values");
        // A closure, because the list is copied for an error only.
        let list = || Value::from(values.iter().cloned().collect::<Vec<_>>());
        let wrong_count = match operator {
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
        errors.extend(wrong_count.map(|text| Error::invalid(&field, list(), text)));
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
}

/// All that a selector asks of one label.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Condition {
    key: String,
    /// Whether it does not hold without the label.
    needed: bool,
    /// Whether it does not hold with the label.
    refused: bool,
    /// The only values that are right, sorted.
    among: Option<Vec<String>>,
    /// The values that are wrong, sorted.
    not: Vec<String>,
    /// The value must be a number greater than this one.
    above: Option<i64>,
    /// The value must be a number less than this one.
    below: Option<i64>,
}

impl Condition {
    /// The conditions of requirements that are ordered by key.
    fn all(requirements: &[Requirement]) -> Vec<Self> {
        let about_one = requirements.chunk_by(|a, b| a.key == b.key);
        about_one
            .map(|requirements| {
                let mut condition = Self { key: requirements[0].key.clone(), ..Self::default() };
                requirements.iter().for_each(|requirement| condition.add(requirement));
                condition.not.sort_unstable();
                condition
            })
            .collect()
    }

    fn add(&mut self, requirement: &Requirement) {
        let values = &requirement.values;
        // That the value is a number was checked when the requirement was made.
        let number = || values.first().and_then(|value| go_int(value));
        match requirement.operator {
            Operator::In | Operator::Equals | Operator::DoubleEquals => {
                let both = |among: Vec<String>| {
                    among.into_iter().filter(|value| values.binary_search(value).is_ok()).collect()
                };
                self.among = Some(self.among.take().map_or_else(|| values.clone(), both));
            }
            Operator::NotIn | Operator::NotEquals => self.not.extend(values.iter().cloned()),
            Operator::DoesNotExist => self.refused = true,
            Operator::Exists => {}
            Operator::GreaterThan => self.above = self.above.max(number()),
            Operator::LessThan => {
                self.below = [self.below, number()].into_iter().flatten().min();
            }
        }
        let without =
            matches!(requirement.operator, Operator::NotIn | Operator::NotEquals | Operator::DoesNotExist);
        self.needed |= !without;
    }

    /// Whether a label with this value, or an object without the label, is right.
    fn holds(&self, value: Option<&str>) -> bool {
        let Some(value) = value else { return !self.needed };
        let is_in = |values: &[String]| values.binary_search_by(|known| known.as_str().cmp(value)).is_ok();
        if self.refused || is_in(&self.not) || !self.among.as_deref().is_none_or(is_in) {
            return false;
        }
        if self.above.is_none() && self.below.is_none() {
            return true;
        }
        // A label that is no number is neither greater nor less.
        go_int(value).is_some_and(|number| {
            self.above.is_none_or(|above| number > above) && self.below.is_none_or(|below| number < below)
        })
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
    if problems.is_empty() {
        ErrorList::new()
    } else {
        [Error::invalid(field, key, problems.join("; "))].into()
    }
}

/// What the lexer tells apart (`labels.Token`).
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

/// The token that is always written like this; `None` for identifiers.
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
        // At most as many bytes as the longest token has: a run of symbols may be as long as the selector, and looking at all
        // of it for each of its tokens would be quadratic.
        let symbols = rest.bytes().take(LONGEST_SYMBOL).take_while(|b| is_special(char::from(*b))).count();
        let special = &rest[..symbols];
        let token = if special.is_empty() {
            let end = rest.find(|c| is_special(c) || is_space(c)).unwrap_or(rest.len());
            (keyword(&rest[..end]).unwrap_or(Token::Identifier), &rest[..end])
        } else {
            // The longest run of symbols that is a token, so that `==` is not read as two `=`. Each prefix of a token is a
            // token too, so the search may stop at the first that is none.
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

/// One function for each rule of the grammar (`labels.Parser`), which has no nesting. The messages quote the token at hand and
/// so depend on what is looked at when: the order of the checks is Go's for that reason.
struct Parser {
    tokens: Vec<(Token, String)>,
    /// The token that is read next; may be behind the last one, which reads as the end.
    at: usize,
}

impl Parser {
    /// The next token. `in` and `notin` are identifiers here, because keys and values may be called so; only
    /// [`Parser::operator`] looks for them as keywords.
    fn peek(&self) -> (Token, &str) {
        let (token, text) = self.tokens.get(self.at).map_or((Token::End, ""), |(t, s)| (*t, s.as_str()));
        (if matches!(token, Token::In | Token::NotIn) { Token::Identifier } else { token }, text)
    }

    /// Takes the next token, as [`Parser::peek`] sees it.
    fn next(&mut self) -> (Token, String) {
        let (token, text) = self.peek();
        let taken = (token, text.to_string());
        self.at += 1;
        taken
    }

    /// `[requirement {"," requirement}]`, up to the end of the text.
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
        // Go's sort by key is not stable; a stable one prints the same text each time.
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        let conditions = Condition::all(&requirements);
        let needed = conditions.iter().filter(|condition| condition.needed).count();
        Ok(LabelSelector { requirements, conditions, needed })
    }

    /// `["!"] key`, or `key operator values`.
    fn requirement(&mut self) -> Result<Requirement, String> {
        let negated = self.peek().0 == Token::Not;
        if negated {
            self.at += 1;
        }
        let (token, key) = self.next();
        if token != Token::Identifier {
            return Err(format!("found '{key}', expected: identifier"));
        }
        // The key is checked here, with a nil path (printed as `<nil>`), and once more with the values, as in Go.
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
        // Not `next`: here `in` is a keyword.
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

    /// `"(" [value {"," value}] ")"`, after `in` or `notin`.
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
                    // Go quotes the first token of the list here, not the one that it found.
                    return Err(format!("found '{text}', expected: ')'"));
                }
                Ok(values)
            }
            Token::Close => {
                self.at += 1;
                // `in ()` is the set of the empty value, not an empty set.
                Ok(BTreeSet::from([String::new()]))
            }
            _ => Err(format!("found '{text}', expected: ',', ')' or identifier")),
        }
    }

    /// The values of a list, up to its parenthesis. A comma without a value before or after it stands for the empty value.
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

    /// The value after `=`, `==`, `!=`, `<` or `>`: one, or none for the empty value.
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
            // Several requirements about one label.
            ("app in (web,db),app in (db,x)", "c"),
            ("app in (web,db),app notin (x,db),app!=y", "ab"),
            ("app,!app", ""),
            ("app=web,app=db", ""),
            ("n>5,n>6,n<9,n<8", "e"),
            ("n>5,n>7", ""),
            ("n<7,n<9", ""),
            ("n>5,n!=7", ""),
            // More conditions than an object has labels.
            ("!a,!b,!c,d!=x,e notin (y),app=web,tier=front", "a"),
            ("!a,!b,!c,d!=x,e notin (y),app=web,x", ""),
            ("!a,!b,!c,!n", "abcd"),
        ] {
            let parsed = LabelSelector::parse(selector).unwrap();
            let selected: String = objects
                .iter()
                .filter(|(_, labels)| parsed.matches(|key| labels.get(key)?.as_str()))
                .map(|(name, _)| *name)
                .collect();
            assert_eq!(selected, expected, "{selector}");
            let sorted: String = objects
                .iter()
                .filter(|(_, labels)| {
                    let labels = labels.as_object().unwrap();
                    let mut labels: Vec<_> = labels.iter().map(|(k, v)| (k, v.as_str().unwrap())).collect();
                    labels.sort_unstable();
                    parsed.matches_sorted(&labels)
                })
                .map(|(name, _)| *name)
                .collect();
            assert_eq!(sorted, expected, "{selector}");
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
    fn a_long_run_of_symbols_is_read_once() {
        // With a look at the whole run for each of its symbols this would take hours.
        for (symbol, expected) in [
            (",", "found ',', expected: !, identifier, or 'end of string'"),
            ("!", "unable to parse requirement: found '!', expected: identifier"),
        ] {
            assert_eq!(LabelSelector::parse(&symbol.repeat(2_000_000)), Err(expected.into()));
        }
    }

    proptest! {
        #[test]
        fn any_text_never_panics(text in "[a-c=!(),<> \\\\/inot\u{0}\u{e9}-]{0,30}") {
            let _ = LabelSelector::parse(&text);
        }
    }
}
