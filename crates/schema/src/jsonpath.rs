//! The part of Kubernetes' JSONPath (`k8s.io/client-go/util/jsonpath`) that CRDs use for columns, selectable
//! fields and scale: members, indexes, slices, wildcards, filters and unions of names. Missing members give
//! no result.

use crate::Effort;
use crate::error::JsonPathError;
use crate::go::number::{GoNumber, print_float};
use serde_json::Value;
use std::cmp::Ordering;

/// How many filters may be within each other.
const MOST_FILTERS: usize = 16;

/// A parsed path.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonPath(Vec<Step>);

/// From a value to those that a step finds in it; none where the value is of another type.
#[derive(Debug, Clone, PartialEq)]
enum Step {
    /// `.a`, `['a']`.
    Member(String),
    /// `['a','b']`.
    Members(Vec<String>),
    /// `[0]`; from the end if negative.
    Index(i64),
    /// `[from:to:step]`.
    Slice(Option<i64>, Option<i64>, i64),
    /// `[*]`, `.*`.
    All,
    /// `..a`: at any depth.
    Descend(String),
    /// `[?(left operator right)]`; without an operator, that `left` exists.
    Filter(Operand, Option<(Operator, Operand)>),
}

#[derive(Debug, Clone, PartialEq)]
enum Operand {
    Path(JsonPath),
    Literal(Value),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl JsonPath {
    /// Parses a path without braces, such as `.spec.list[0]` or `.status.conditions[?(@.type=="Ready")].status`.
    ///
    /// # Errors
    /// What is wrong with it; also filters that are nested too deeply to be read on any stack.
    pub fn parse(path: &str) -> Result<Self, JsonPathError> {
        let mut parser = Parser { chars: path.chars().collect(), at: 0, filters: 0 };
        let steps = parser.steps()?;
        if parser.at < parser.chars.len() {
            return Err(JsonPathError::UnrecognizedCharacter(parser.rest()));
        }
        Ok(Self(steps))
    }

    /// The first value that the path leads to; also `None` if it is not found with what is left of `effort`, of which each
    /// value that is looked at takes a step. A path can find one value many times, so that they would multiply without end;
    /// here none is looked at before it is its turn.
    pub fn first<'a>(&'a self, root: &'a Value, effort: &mut Effort) -> Option<&'a Value> {
        Walk::new(self, root).next(effort)
    }
}

/// A walk along a path, from one result to the next.
struct Walk<'a> {
    path: &'a JsonPath,
    /// What each step found and was not followed yet. No recursion: a path has as many steps as its author likes.
    stack: Vec<Candidates<'a>>,
}

impl<'a> Walk<'a> {
    fn new(path: &'a JsonPath, root: &'a Value) -> Self {
        Self { path, stack: vec![Candidates::One(Some(root))] }
    }

    fn next(&mut self, effort: &mut Effort) -> Option<&'a Value> {
        while let Some(candidates) = self.stack.last_mut() {
            effort.spend(1)?;
            match candidates.next(effort)? {
                None => {
                    self.stack.pop();
                }
                Some(value) => match self.path.0.get(self.stack.len() - 1) {
                    None => return Some(value),
                    Some(step) => self.stack.push(step.apply(value)),
                },
            }
        }
        None
    }
}

/// What a step finds, one after the other.
enum Candidates<'a> {
    One(Option<&'a Value>),
    Named(&'a Value, std::slice::Iter<'a, String>),
    Elements(std::iter::StepBy<std::slice::Iter<'a, Value>>),
    Members(serde_json::map::Values<'a>),
    /// The values that were not looked at yet, the next one last.
    Below(Vec<&'a Value>, &'a str),
    Filtered(std::slice::Iter<'a, Value>, &'a Operand, Option<&'a (Operator, Operand)>),
}

impl<'a> Candidates<'a> {
    /// The next one, if there is one; `None` if the effort is used up.
    fn next(&mut self, effort: &mut Effort) -> Option<Option<&'a Value>> {
        Some(match self {
            Self::One(value) => value.take(),
            Self::Named(value, names) => names.find_map(|name| value.get(name)),
            Self::Elements(list) => list.next(),
            Self::Members(members) => members.next(),
            Self::Below(todo, name) => loop {
                let Some(value) = todo.pop() else { return Some(None) };
                effort.spend(1)?;
                match value {
                    Value::Array(list) => todo.extend(list.iter().rev()),
                    Value::Object(members) => todo.extend(members.values().rev()),
                    _ => {}
                }
                if let Some(found) = value.get(*name) {
                    break Some(found);
                }
            },
            Self::Filtered(list, left, test) => loop {
                let Some(element) = list.next() else { return Some(None) };
                effort.spend(1)?;
                if holds(element, left, *test, effort) {
                    break Some(element);
                }
            },
        })
    }
}

impl Step {
    fn apply<'a>(&'a self, value: &'a Value) -> Candidates<'a> {
        let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
        match self {
            Self::Member(name) => Candidates::One(value.get(name)),
            Self::Members(names) => Candidates::Named(value, names.iter()),
            Self::Index(index) => {
                Candidates::One(resolve(*index, list.len()).and_then(|index| list.get(index)))
            }
            Self::Slice(from, to, step) => {
                let clamp = |n: i64| {
                    let n = if n < 0 { n + list.len() as i64 } else { n };
                    usize::try_from(n).unwrap_or_default().min(list.len())
                };
                let (from, to) = (from.map_or(0, clamp), to.map_or(list.len(), clamp));
                // A step backwards makes no sense and is one forwards.
                let step = usize::try_from(*step).unwrap_or(1).max(1);
                Candidates::Elements(list.get(from..to).unwrap_or_default().iter().step_by(step))
            }
            Self::All => match value {
                Value::Object(members) => Candidates::Members(members.values()),
                _ => Candidates::Elements(list.iter().step_by(1)),
            },
            Self::Descend(name) => Candidates::Below(vec![value], name),
            Self::Filter(left, test) => Candidates::Filtered(list.iter(), left, test.as_ref()),
        }
    }
}

fn resolve(index: i64, length: usize) -> Option<usize> {
    usize::try_from(if index < 0 { index + length as i64 } else { index }).ok()
}

fn holds(element: &Value, left: &Operand, test: Option<&(Operator, Operand)>, effort: &mut Effort) -> bool {
    let Some(left) = left.value(element, effort) else { return false };
    let Some((operator, right)) = test else { return true };
    let Some(right) = right.value(element, effort) else { return false };
    // Values of different types are unequal, and neither is less.
    let order = match (left, right) {
        (Value::Number(a), Value::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        _ => None,
    };
    match (operator, order) {
        (Operator::Equal, order) => order == Some(Ordering::Equal),
        (Operator::NotEqual, order) => order != Some(Ordering::Equal),
        (_, None) => false,
        (Operator::Less, Some(order)) => order == Ordering::Less,
        (Operator::LessOrEqual, Some(order)) => order != Ordering::Greater,
        (Operator::Greater, Some(order)) => order == Ordering::Greater,
        (Operator::GreaterOrEqual, Some(order)) => order != Ordering::Less,
    }
}

impl Operand {
    fn value<'a>(&'a self, element: &'a Value, effort: &mut Effort) -> Option<&'a Value> {
        match self {
            Self::Path(path) => path.first(element, effort),
            Self::Literal(value) => Some(value),
        }
    }
}

struct Parser {
    chars: Vec<char>,
    at: usize,
    /// How many filters are open.
    filters: usize,
}

impl Parser {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }
    fn rest(&self) -> String {
        self.chars[self.at.min(self.chars.len())..].iter().collect()
    }
    fn spaces(&mut self) {
        while self.peek() == Some(' ') {
            self.at += 1;
        }
    }

    fn steps(&mut self) -> Result<Vec<Step>, JsonPathError> {
        let mut steps = Vec::new();
        while let Some(c) = self.peek() {
            match c {
                // Both are where the path begins: at the object, or in a filter at the element.
                '$' | '@' if steps.is_empty() => self.at += 1,
                '.' => {
                    self.at += 1;
                    let recursive = self.peek() == Some('.');
                    self.at += usize::from(recursive);
                    match self.peek() {
                        Some('[') | None => {}
                        Some('*') => {
                            self.at += 1;
                            steps.push(Step::All);
                        }
                        Some(_) => {
                            let name = self.name();
                            if name.is_empty() {
                                return Err(JsonPathError::UnrecognizedCharacter(self.rest()));
                            }
                            steps.push(if recursive { Step::Descend(name) } else { Step::Member(name) });
                        }
                    }
                }
                '[' => steps.push(self.bracket()?),
                _ => break,
            }
        }
        Ok(steps)
    }

    /// A member's name; a backslash takes away a character's meaning.
    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(c) = self.peek() {
            match c {
                '\\' => {
                    self.at += 1;
                    name.extend(self.peek());
                    self.at += 1;
                }
                '.' | '[' | ']' | ' ' | '=' | '!' | '<' | '>' | ')' | '(' | ',' | '{' | '}' => break,
                c => {
                    name.push(c);
                    self.at += 1;
                }
            }
        }
        name
    }

    fn bracket(&mut self) -> Result<Step, JsonPathError> {
        self.at += 1;
        self.spaces();
        let step = match self.peek() {
            Some('?') => return self.filter(),
            Some('*') => {
                self.at += 1;
                Step::All
            }
            Some('\'' | '"') => {
                let mut names = vec![self.quoted()?];
                self.spaces();
                while self.peek() == Some(',') {
                    self.at += 1;
                    self.spaces();
                    names.push(self.quoted()?);
                    self.spaces();
                }
                // `['a']` is the same step as `.a`.
                if names.len() == 1 { Step::Member(names.remove(0)) } else { Step::Members(names) }
            }
            _ => {
                let mut body = String::new();
                while let Some(c) = self.peek().filter(|c| *c != ']') {
                    body.push(c);
                    self.at += 1;
                }
                numbers(&body)?
            }
        };
        self.spaces();
        self.close(']')?;
        Ok(step)
    }

    fn close(&mut self, bracket: char) -> Result<(), JsonPathError> {
        if self.peek() != Some(bracket) {
            return Err(JsonPathError::UnterminatedArray);
        }
        self.at += 1;
        Ok(())
    }

    fn quoted(&mut self) -> Result<String, JsonPathError> {
        let Some(quote) = self.peek().filter(|c| matches!(c, '\'' | '"')) else {
            return Err(JsonPathError::UnrecognizedCharacter(self.rest()));
        };
        self.at += 1;
        let mut text = String::new();
        loop {
            let Some(c) = self.peek() else { return Err(JsonPathError::UnterminatedQuotes) };
            self.at += 1;
            match c {
                '\\' => {
                    text.extend(self.peek());
                    self.at += 1;
                }
                c if c == quote => return Ok(text),
                c => text.push(c),
            }
        }
    }

    /// At `?` of `[?(left operator right)]`.
    fn filter(&mut self) -> Result<Step, JsonPathError> {
        self.at += 1;
        self.close('(').map_err(|_| JsonPathError::UnterminatedFilter)?;
        // A filter holds paths, and they filters: the parser, `find` and `drop` go down into them recursively.
        self.filters += 1;
        if self.filters > MOST_FILTERS {
            return Err(JsonPathError::TooManyFilters);
        }
        let left = self.operand()?;
        self.spaces();
        let mut operator = String::new();
        while let Some(c) = self.peek().filter(|c| matches!(c, '=' | '!' | '<' | '>')) {
            operator.push(c);
            self.at += 1;
        }
        let operator = match operator.as_str() {
            "" => None,
            "==" => Some(Operator::Equal),
            "!=" => Some(Operator::NotEqual),
            "<" => Some(Operator::Less),
            "<=" => Some(Operator::LessOrEqual),
            ">" => Some(Operator::Greater),
            ">=" => Some(Operator::GreaterOrEqual),
            other => return Err(JsonPathError::UnrecognizedOperator(other.into())),
        };
        let test = match operator {
            Some(operator) => Some((operator, self.operand()?)),
            None => None,
        };
        self.spaces();
        self.close(')').map_err(|_| JsonPathError::UnterminatedFilter)?;
        self.close(']')?;
        self.filters -= 1;
        Ok(Step::Filter(left, test))
    }

    fn operand(&mut self) -> Result<Operand, JsonPathError> {
        self.spaces();
        match self.peek() {
            Some('@' | '$' | '.') => Ok(Operand::Path(JsonPath(self.steps()?))),
            Some('\'' | '"') => Ok(Operand::Literal(self.quoted()?.into())),
            _ => {
                let mut word = String::new();
                while let Some(c) =
                    self.peek().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '+' | '.'))
                {
                    word.push(c);
                    self.at += 1;
                }
                let literal = serde_json::from_str::<Value>(&word).ok();
                match literal.filter(|v| v.is_number() || v.is_boolean()) {
                    Some(value) => Ok(Operand::Literal(value)),
                    None => Err(JsonPathError::UnrecognizedIdentifier(word)),
                }
            }
        }
    }
}

/// `0`, `-1`, `1:`, `:2`, `0:4:2`.
fn numbers(body: &str) -> Result<Step, JsonPathError> {
    let number = |text: &str| -> Result<Option<i64>, JsonPathError> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some).map_err(|_| JsonPathError::InvalidIndex(body.into()))
    };
    let parts: Vec<&str> = body.split(':').collect();
    match parts.as_slice() {
        [index] => number(index)?.map(Step::Index).ok_or_else(|| JsonPathError::InvalidIndex(body.into())),
        [from, to] => Ok(Step::Slice(number(from)?, number(to)?, 1)),
        [from, to, step] => Ok(Step::Slice(number(from)?, number(to)?, number(step)?.unwrap_or(1))),
        _ => Err(JsonPathError::InvalidIndex(body.into())),
    }
}

/// A result as a cell shows it (`PrintResults`): text as it is, lists and objects as JSON.
pub fn print(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "<nil>".into(),
        Value::Number(number) => match GoNumber::new(number) {
            GoNumber::Int(int) => int.to_string(),
            GoNumber::Float(float) => print_float(float),
        },
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn finds_what_columns_ask_for() {
        let object = json!({
            "metadata": {"labels": {"a.b/c": "lab"}},
            "spec": {"list": ["x", "y", "z"], "ports": [{"name": "a", "port": 1}, {"name": "b", "port": 22}]},
            "status": {"conditions": [{"type": "Other", "status": "False"}, {"type": "Ready", "status": "True"}]},
        });
        for (path, expected) in [
            (".spec.list[0]", json!(["x"])),
            (".spec.list[-1]", json!(["z"])),
            (".spec.list[0:2]", json!(["x", "y"])),
            (".spec.list[*]", json!(["x", "y", "z"])),
            (".spec.list[9]", json!([])),
            (".status.conditions[?(@.type==\"Ready\")].status", json!(["True"])),
            (".status.conditions[?(@.type == 'Ready')].status", json!(["True"])),
            (".spec.ports[?(@.port>10)].name", json!(["b"])),
            (".metadata.labels.a\\.b/c", json!(["lab"])),
            (".metadata.labels['a.b/c']", json!(["lab"])),
            (".spec.nothing.here", json!([])),
            ("..port", json!([1, 22])),
        ] {
            let parsed = JsonPath::parse(path).unwrap_or_else(|e| panic!("{path}: {e}"));
            let (mut walk, mut effort) = (Walk::new(&parsed, &object), Effort::new(1_000));
            let found: Vec<Value> = std::iter::from_fn(|| walk.next(&mut effort)).cloned().collect();
            assert_eq!(Value::from(found), expected, "{path}");
            assert_eq!(parsed.first(&object, &mut effort), expected.get(0), "{path}");
        }
    }

    #[test]
    fn refuses_what_it_cannot_read() {
        for path in [".spec[", ".spec[?(@.a==]", ".spec['a]", ".a[x]", ".a}"] {
            assert!(JsonPath::parse(path).is_err(), "{path}");
        }
    }

    #[test]
    fn paths_cannot_exhaust_stack_or_memory() {
        let nested = |levels: usize| format!("{}.a{}", ".a[?(@".repeat(levels), ")]".repeat(levels));
        assert!(JsonPath::parse(&nested(MOST_FILTERS)).is_ok());
        for levels in [MOST_FILTERS + 1, 20_000] {
            assert_eq!(JsonPath::parse(&nested(levels)), Err(JsonPathError::TooManyFilters));
        }
        let mut object = json!({});
        for _ in 0..100 {
            object = json!({ "a": object });
        }
        for path in ["..a".repeat(30), "['a','a']".repeat(60), "..a".repeat(100_000)] {
            let parsed = JsonPath::parse(&path).unwrap();
            let mut effort = Effort::new(10_000);
            parsed.first(&object, &mut effort);
            let (mut walk, mut effort) = (Walk::new(&parsed, &object), Effort::new(100_000));
            while walk.next(&mut effort).is_some() {}
            assert!(walk.stack.len() <= 100 * 30);
        }
        // The first of many costs no more than one.
        let long = json!({ "a": vec![json!({"b": 1}); 100_000] });
        let mut effort = Effort::new(100);
        assert_eq!(JsonPath::parse(".a[*].b").unwrap().first(&long, &mut effort), Some(&json!(1)));
    }
}
