//! Values of the expression language.

use crate::go::number::print_float;
use crate::{Effort, ListType};
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::rc::Rc;

/// So many bytes of a text are compared or copied in one step.
pub(super) const BYTES_PER_STEP: u64 = 16;

/// A value, or what went wrong, in the words of cel-go: they end up in the answer as they are.
pub(super) type Outcome = Result<Val, String>;

/// The key of a map. Whole numbers of all kinds are one kind of key, as `1 == 1u` holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Bool(bool),
    Int(i128),
    String(Rc<str>),
}

/// A value.
#[derive(Debug, Clone)]
pub(super) enum Val {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Rc<str>),
    Bytes(Rc<[u8]>),
    List(Rc<List>),
    Map(Rc<BTreeMap<Key, Val>>),
    Timestamp(Timestamp),
    Duration(SignedDuration),
    Optional(Option<Rc<Val>>),
    Type(&'static str),
    /// A `resource.Quantity`, in billionths.
    Quantity(i128),
    Url(Rc<str>),
    Ip(IpAddr),
    Cidr(IpAddr, u8),
    /// A named string format.
    Format(&'static str),
    /// Data that could not be read as its schema says; using it is an error.
    Error(Rc<str>),
}

/// A list that knows how its elements are told apart.
#[derive(Debug, Clone, Default)]
pub(super) struct List {
    pub(super) items: Vec<Val>,
    pub(super) kind: ListType,
}

impl Val {
    pub(super) fn string(text: &str) -> Self {
        Self::String(text.into())
    }
    pub(super) fn list(items: Vec<Val>) -> Self {
        Self::List(Rc::new(List { items, kind: ListType::Atomic }))
    }
    pub(super) fn some(value: Val) -> Self {
        Self::Optional(Some(Rc::new(value)))
    }

    /// The name of the type, as `type()` and errors print it.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::String(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Timestamp(_) => "google.protobuf.Timestamp",
            Self::Duration(_) => "google.protobuf.Duration",
            Self::Optional(_) => "optional_type",
            Self::Type(_) => "type",
            Self::Quantity(_) => "kubernetes.Quantity",
            Self::Url(_) => "kubernetes.URL",
            Self::Ip(_) => "net.IP",
            Self::Cidr(..) => "net.CIDR",
            Self::Format(_) => "kubernetes.NamedFormat",
            Self::Error(_) => "error",
        }
    }

    /// As the key of a map.
    pub(super) fn key(&self) -> Option<Key> {
        Some(match self {
            Self::Bool(b) => Key::Bool(*b),
            Self::Int(i) => Key::Int((*i).into()),
            Self::Uint(u) => Key::Int((*u).into()),
            Self::Double(d) if d.fract() == 0.0 && d.abs() < 1e18 => Key::Int(*d as i128),
            Self::String(t) => Key::String(Rc::clone(t)),
            _ => return None,
        })
    }

    /// Equality as CEL has it: numbers by value, unlike types are unequal. `None` if it takes more than what is left of
    /// `effort`: Kubernetes counts the lengths of lists only, and a value that is built of one part again and again is as large
    /// as two to the power of its depth.
    pub(super) fn equals(&self, other: &Val, effort: &mut Effort) -> Option<bool> {
        effort.spend(1)?;
        Some(match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::String(a), Self::String(b)) | (Self::Url(a), Self::Url(b)) => {
                effort.spend(a.len().min(b.len()) as u64 / BYTES_PER_STEP)?;
                a == b
            }
            (Self::Bytes(a), Self::Bytes(b)) => {
                effort.spend(a.len().min(b.len()) as u64 / BYTES_PER_STEP)?;
                a == b
            }
            (Self::Timestamp(a), Self::Timestamp(b)) => a == b,
            (Self::Duration(a), Self::Duration(b)) => a == b,
            (Self::Type(a), Self::Type(b)) => a == b,
            (Self::Quantity(a), Self::Quantity(b)) => a == b,
            (Self::Ip(a), Self::Ip(b)) => a == b,
            (Self::Cidr(a, x), Self::Cidr(b, y)) => a == b && x == y,
            (Self::Format(a), Self::Format(b)) => a == b,
            (Self::Optional(a), Self::Optional(b)) => match (a, b) {
                (Some(a), Some(b)) => a.equals(b, effort)?,
                (a, b) => a.is_none() && b.is_none(),
            },
            (Self::List(a), Self::List(b)) => a.equals(b, effort)?,
            (Self::Map(a), Self::Map(b)) => {
                if a.len() != b.len() {
                    return Some(false);
                }
                for (key, value) in a.iter() {
                    let Some(other) = b.get(key) else { return Some(false) };
                    if !value.equals(other, effort)? {
                        return Some(false);
                    }
                }
                true
            }
            (a, b) => a.order(b) == Some(std::cmp::Ordering::Equal),
        })
    }

    /// Appends a text that two values of one schema have in common if and only if they are equal; of those that are equal to
    /// nothing, not even to themselves, it appends one that is found nowhere. `None` as in [`Val::equals`].
    fn digest(&self, out: &mut Vec<u8>, effort: &mut Effort) -> Option<()> {
        let before = out.len();
        effort.spend(1)?;
        let mut text = |kind: u8, bytes: &[u8]| {
            out.push(kind);
            out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            out.extend_from_slice(bytes);
        };
        match self {
            Self::Null => out.push(0),
            Self::Bool(b) => out.extend([1, u8::from(*b)]),
            Self::Int(_) | Self::Uint(_) | Self::Double(_) => match self.key() {
                Some(Key::Int(whole)) => text(2, &whole.to_le_bytes()),
                // Not a number: unlike every other, and unlike what is beside it.
                _ => match self.number() {
                    Some(number) if !number.is_nan() => text(3, &number.to_bits().to_le_bytes()),
                    _ => text(4, &(before as u64).to_le_bytes()),
                },
            },
            Self::String(t) => text(5, t.as_bytes()),
            Self::Bytes(b) => text(6, b),
            Self::List(list) => {
                let mut digests = list.digests(effort)?;
                if list.kind != ListType::Atomic {
                    digests.sort();
                }
                out.extend([
                    7,
                    match list.kind {
                        ListType::Atomic => 0,
                        ListType::Set | ListType::Map(_) => 1,
                    },
                ]);
                out.extend_from_slice(&(digests.len() as u64).to_le_bytes());
                digests.iter().for_each(|digest| out.extend_from_slice(digest));
            }
            Self::Map(map) => {
                out.push(8);
                out.extend_from_slice(&(map.len() as u64).to_le_bytes());
                for (key, value) in map.iter() {
                    match key {
                        Key::Bool(b) => out.extend([1, u8::from(*b)]),
                        Key::Int(i) => out.extend(i.to_le_bytes()),
                        Key::String(t) => {
                            out.extend_from_slice(&(t.len() as u64).to_le_bytes());
                            out.extend_from_slice(t.as_bytes());
                        }
                    }
                    value.digest(out, effort)?;
                }
            }
            // Sets of objects hold what JSON can hold, or a time made of it.
            Self::Optional(Some(inner)) => {
                out.push(9);
                inner.digest(out, effort)?;
            }
            other => text(10, format!("{other:?}").as_bytes()),
        }
        effort.spend((out.len() - before) as u64 / BYTES_PER_STEP)
    }

    /// The order of two values of one kind; numbers of all kinds compare.
    pub(super) fn order(&self, other: &Val) -> Option<std::cmp::Ordering> {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => Some(a.cmp(b)),
            (Self::Uint(a), Self::Uint(b)) => Some(a.cmp(b)),
            (Self::Int(a), Self::Uint(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
            (Self::Uint(a), Self::Int(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
            (Self::Double(a), b) => a.partial_cmp(&b.number()?),
            (a, Self::Double(b)) => a.number()?.partial_cmp(b),
            (Self::String(a), Self::String(b)) => Some(a.cmp(b)),
            (Self::Bytes(a), Self::Bytes(b)) => Some(a.cmp(b)),
            (Self::Bool(a), Self::Bool(b)) => Some(a.cmp(b)),
            (Self::Timestamp(a), Self::Timestamp(b)) => Some(a.cmp(b)),
            (Self::Duration(a), Self::Duration(b)) => Some(a.cmp(b)),
            _ => None,
        }
    }

    fn number(&self) -> Option<f64> {
        match self {
            Self::Int(i) => Some(*i as f64),
            Self::Uint(u) => Some(*u as f64),
            Self::Double(d) => Some(*d),
            _ => None,
        }
    }

    /// The zero of its kind, for `optional.ofNonZeroValue`.
    pub(super) fn is_zero(&self) -> bool {
        match self {
            Self::Null => true,
            Self::Bool(b) => !b,
            Self::Int(i) => *i == 0,
            Self::Uint(u) => *u == 0,
            Self::Double(d) => *d == 0.0,
            Self::String(t) => t.is_empty(),
            Self::Bytes(b) => b.is_empty(),
            Self::List(l) => l.items.is_empty(),
            Self::Map(m) => m.is_empty(),
            Self::Duration(d) => d.is_zero(),
            _ => false,
        }
    }

    /// How much there is of it, for costs.
    pub(super) fn size(&self) -> u64 {
        let size = match self {
            Self::String(t) | Self::Url(t) => t.len(),
            Self::Bytes(b) => b.len(),
            Self::List(l) => l.items.len(),
            Self::Map(m) => m.len(),
            _ => 1,
        };
        size as u64
    }
}

impl List {
    /// Sets and maps are equal whatever the order of their elements. Elements are looked up, in time linear in both lists
    /// (`k8s.io/apiserver/pkg/cel/common/values.go`). `None` as in [`Val::equals`].
    fn equals(&self, other: &List, effort: &mut Effort) -> Option<bool> {
        if self.items.len() != other.items.len() {
            return Some(false);
        }
        match &self.kind {
            ListType::Atomic => {
                for (a, b) in self.items.iter().zip(&other.items) {
                    if !a.equals(b, effort)? {
                        return Some(false);
                    }
                }
                Some(true)
            }
            ListType::Set => {
                let there: HashSet<Vec<u8>> = other.digests(effort)?.into_iter().collect();
                Some(self.digests(effort)?.iter().all(|digest| there.contains(digest)))
            }
            ListType::Map(keys) => {
                let there = places(&other.items, keys, effort)?;
                for item in &self.items {
                    let place = key_digest(item, keys, effort)?.and_then(|key| there.get(&key).copied());
                    match place {
                        Some(place) if item.equals(&other.items[place], effort)? => {}
                        _ => return Some(false),
                    }
                }
                Some(true)
            }
        }
    }

    fn digests(&self, effort: &mut Effort) -> Option<Vec<Vec<u8>>> {
        self.items.iter().map(|item| digest(item, effort)).collect()
    }

    /// Both lists: a set takes what it lacks, a map takes the other's element for an equal key.
    pub(super) fn plus(&self, other: &List, effort: &mut Effort) -> Option<List> {
        effort.spend((self.items.len() + other.items.len()) as u64)?;
        let mut items = self.items.clone();
        let mut there = match &self.kind {
            ListType::Atomic => {
                items.extend(other.items.iter().cloned());
                return Some(List { items, kind: ListType::Atomic });
            }
            ListType::Set => {
                let digests = self.digests(effort)?.into_iter().enumerate();
                digests.rev().map(|(place, digest)| (digest, place)).collect()
            }
            ListType::Map(keys) => places(&items, keys, effort)?,
        };
        for new in &other.items {
            let digest = match &self.kind {
                ListType::Map(keys) => key_digest(new, keys, effort)?,
                ListType::Atomic | ListType::Set => Some(digest(new, effort)?),
            };
            match digest.as_ref().and_then(|digest| there.get(digest)) {
                Some(place) => items[*place] = new.clone(),
                None => {
                    if let Some(digest) = digest {
                        there.insert(digest, items.len());
                    }
                    items.push(new.clone());
                }
            }
        }
        Some(List { items, kind: self.kind.clone() })
    }
}

/// The digest of one value by itself.
fn digest(value: &Val, effort: &mut Effort) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    value.digest(&mut out, effort)?;
    Some(out)
}

/// The digest of the keys of an element of a list of type map; `None` inside for what is no object, which is like no other.
fn key_digest(element: &Val, keys: &[String], effort: &mut Effort) -> Option<Option<Vec<u8>>> {
    let Val::Map(members) = element else { return Some(None) };
    let mut out = Vec::new();
    for key in keys.iter().filter_map(|key| escape(key)) {
        // A key that is missing is one that is missing there, too.
        match members.get(&Key::String(key.as_str().into())) {
            Some(value) => value.digest(&mut out, effort)?,
            None => out.push(u8::MAX),
        }
    }
    Some(Some(out))
}

/// Where the first element with each key is.
fn places(items: &[Val], keys: &[String], effort: &mut Effort) -> Option<HashMap<Vec<u8>, usize>> {
    let mut places = HashMap::with_capacity(items.len());
    for (place, item) in items.iter().enumerate() {
        if let Some(key) = key_digest(item, keys, effort)? {
            places.entry(key).or_insert(place);
        }
    }
    Some(places)
}

const KEYWORDS: [&str; 22] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
    "__proto__",
];

/// The name under which expressions know a property (`k8s.io/apiserver/pkg/cel/escaping.go`); `None` if they
/// cannot know it.
pub(super) fn escape(name: &str) -> Option<String> {
    let first = name.chars().next()?;
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '/');
    if first.is_ascii_digit() || !name.chars().all(legal) {
        return None;
    }
    if KEYWORDS.contains(&name) {
        return Some(format!("__{name}__"));
    }
    let name = name.replace("__", "__underscores__");
    Some(name.replace('.', "__dot__").replace('-', "__dash__").replace('/', "__slash__"))
}

/// A duration as Go reads it: `1h30m`, `-1.5s`, `250ms`.
pub(super) fn parse_duration(text: &str) -> Option<SignedDuration> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(SignedDuration::ZERO);
    }
    let mut nanos: i128 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let unit_length = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_length);
        let scale: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        // So many digits fit an `i128` with any unit, and no `i64` holds more nanoseconds.
        if whole.is_empty() && fraction.is_empty() || fraction.len() > 18 || whole.len() > 18 {
            return None;
        }
        let parse = |digits: &str| if digits.is_empty() { Some(0) } else { digits.parse::<i128>().ok() };
        let exponent = u32::try_from(fraction.len()).ok()?;
        nanos += parse(whole)? * scale + parse(fraction)? * scale / 10_i128.pow(exponent);
        rest = tail;
    }
    let nanos = i64::try_from(if negative { -nanos } else { nanos }).ok()?;
    Some(SignedDuration::from_nanos(nanos))
}

pub(super) fn no_overload() -> Outcome {
    Err("no such overload".into())
}

/// A value as `string()` gives it.
pub(super) fn print(value: &Val) -> String {
    match value {
        Val::Bool(b) => b.to_string(),
        Val::Int(i) => i.to_string(),
        Val::Uint(u) => u.to_string(),
        Val::Double(d) => print_float(*d),
        Val::String(t) | Val::Url(t) => t.to_string(),
        Val::Bytes(b) => String::from_utf8_lossy(b).into_owned(),
        Val::Timestamp(t) => t.to_string(),
        Val::Duration(d) => {
            let text = format!("{:.9}", d.as_secs_f64());
            format!("{}s", text.trim_end_matches('0').trim_end_matches('.'))
        }
        Val::Type(name) => (*name).into(),
        Val::Ip(ip) => ip.to_string(),
        Val::Cidr(ip, bits) => format!("{ip}/{bits}"),
        other => format!("<{}>", other.type_name()),
    }
}

pub(super) fn length(count: usize) -> Val {
    Val::Int(i64::try_from(count).unwrap_or(i64::MAX))
}

/// `a.b`, or with `test` `has(a.b)`.
pub(super) fn select_field(operand: &Val, field: &str, test: bool) -> Outcome {
    match operand {
        Val::Map(map) => {
            let found = map.get(&Key::String(field.into()));
            match (found, test) {
                (found, true) => Ok(Val::Bool(found.is_some())),
                (Some(value), false) => Ok(value.clone()),
                (None, false) => Err(format!("no such key: {field}")),
            }
        }
        Val::Optional(None) if test => Ok(Val::Bool(false)),
        Val::Optional(None) => Ok(Val::Optional(None)),
        Val::Optional(Some(inner)) if test => select_field(inner, field, true),
        Val::Optional(Some(inner)) => Ok(select_optional(inner, field)),
        _ => Err("no such overload".into()),
    }
}

/// `a.?b`: the field if it is there.
pub(super) fn select_optional(operand: &Val, field: &str) -> Val {
    match operand {
        Val::Optional(None) => Val::Optional(None),
        Val::Optional(Some(inner)) => select_optional(inner, field),
        operand => Val::Optional(select_field(operand, field, false).ok().map(Rc::new)),
    }
}
