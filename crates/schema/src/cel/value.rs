//! Values of the expression language, and how a custom object becomes one
//! (`k8s.io/apiserver/pkg/cel/common/values.go`): dates are timestamps, names are escaped, lists know their keys.

use crate::go::number::GoNumber;
use crate::{ListType, Schema, Type};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;

/// The key of a map; whole numbers of both kinds are one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Bool(bool),
    Int(i128),
    Text(Rc<str>),
}

/// A value.
#[derive(Debug, Clone)]
pub(super) enum Val {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(Rc<str>),
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
    Broken(Rc<str>),
}

/// A list that knows how its elements are told apart.
#[derive(Debug, Clone, Default)]
pub(super) struct List {
    pub(super) items: Vec<Val>,
    pub(super) kind: ListType,
}

impl Val {
    pub(super) fn text(text: &str) -> Self {
        Self::Text(text.into())
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
            Self::Text(_) => "string",
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
            Self::Broken(_) => "error",
        }
    }

    /// As the key of a map.
    pub(super) fn key(&self) -> Option<Key> {
        Some(match self {
            Self::Bool(b) => Key::Bool(*b),
            Self::Int(i) => Key::Int((*i).into()),
            Self::Uint(u) => Key::Int((*u).into()),
            Self::Double(d) if d.fract() == 0.0 && d.abs() < 1e18 => Key::Int(*d as i128),
            Self::Text(t) => Key::Text(Rc::clone(t)),
            _ => return None,
        })
    }

    /// Equality as CEL has it: numbers by value, unlike types are unequal.
    pub(super) fn equals(&self, other: &Val) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Text(a), Self::Text(b)) | (Self::Url(a), Self::Url(b)) => a == b,
            (Self::Bytes(a), Self::Bytes(b)) => a == b,
            (Self::Timestamp(a), Self::Timestamp(b)) => a == b,
            (Self::Duration(a), Self::Duration(b)) => a == b,
            (Self::Type(a), Self::Type(b)) => a == b,
            (Self::Quantity(a), Self::Quantity(b)) => a == b,
            (Self::Ip(a), Self::Ip(b)) => a == b,
            (Self::Cidr(a, x), Self::Cidr(b, y)) => a == b && x == y,
            (Self::Format(a), Self::Format(b)) => a == b,
            (Self::Optional(a), Self::Optional(b)) => match (a, b) {
                (Some(a), Some(b)) => a.equals(b),
                (a, b) => a.is_none() && b.is_none(),
            },
            (Self::List(a), Self::List(b)) => a.equals(b),
            (Self::Map(a), Self::Map(b)) => {
                a.len() == b.len() && a.iter().all(|(k, v)| b.get(k).is_some_and(|w| v.equals(w)))
            }
            (a, b) => a.order(b) == Some(std::cmp::Ordering::Equal),
        }
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
            (Self::Text(a), Self::Text(b)) => Some(a.cmp(b)),
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
            Self::Text(t) => t.is_empty(),
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
            Self::Text(t) | Self::Url(t) => t.len(),
            Self::Bytes(b) => b.len(),
            Self::List(l) => l.items.len(),
            Self::Map(m) => m.len(),
            _ => 1,
        };
        size as u64
    }
}

impl List {
    /// Sets and maps are equal whatever the order of their elements.
    fn equals(&self, other: &List) -> bool {
        if self.items.len() != other.items.len() {
            return false;
        }
        match &self.kind {
            ListType::Atomic => self.items.iter().zip(&other.items).all(|(a, b)| a.equals(b)),
            ListType::Set => self.items.iter().all(|a| other.items.iter().any(|b| a.equals(b))),
            ListType::Map(keys) => self.items.iter().all(|a| {
                let same = other.items.iter().find(|b| same_element(keys, a, b));
                same.is_some_and(|b| a.equals(b))
            }),
        }
    }

    /// Both lists: a set takes what it lacks, a map takes the other's element for an equal key.
    pub(super) fn plus(&self, other: &List) -> List {
        let mut items = self.items.clone();
        for new in &other.items {
            let place = match &self.kind {
                ListType::Atomic => None,
                ListType::Set => items.iter().position(|old| old.equals(new)),
                ListType::Map(keys) => items.iter().position(|old| same_element(keys, old, new)),
            };
            match place {
                Some(place) => items[place] = new.clone(),
                None => items.push(new.clone()),
            }
        }
        List { items, kind: self.kind.clone() }
    }
}

fn same_element(keys: &[String], a: &Val, b: &Val) -> bool {
    let (Val::Map(a), Val::Map(b)) = (a, b) else { return false };
    keys.iter().filter_map(|k| escape(k)).all(|key| {
        let key = Key::Text(key.as_str().into());
        match (a.get(&key), b.get(&key)) {
            (Some(a), Some(b)) => a.equals(b),
            (a, b) => a.is_none() && b.is_none(),
        }
    })
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

/// A part of a custom object as expressions see it. With `root` it is a whole resource.
pub(super) fn from_json(json: &Json, schema: Option<&Schema>, root: bool) -> Val {
    let Some(schema) = schema else { return untyped(json) };
    if schema.int_or_string {
        return untyped(json);
    }
    match (json, schema.kind) {
        (Json::Null, _) => Val::Null,
        (Json::Object(members), _) => {
            let mut out = BTreeMap::new();
            let resource = root || schema.embedded_resource;
            for (name, member) in members {
                let meta = resource && matches!(name.as_str(), "apiVersion" | "kind" | "metadata");
                if meta {
                    out.insert(Key::Text(name.as_str().into()), metadata(name, member));
                } else if let Some(property) = schema.properties.get(name) {
                    if let Some(name) = escape(name) {
                        let value = from_json(member, Some(property), property.embedded_resource);
                        out.insert(Key::Text(name.as_str().into()), value);
                    }
                } else if let Some(additional) = &schema.additional {
                    let value = from_json(member, Some(additional), additional.embedded_resource);
                    out.insert(Key::Text(name.as_str().into()), value);
                }
            }
            Val::Map(Rc::new(out))
        }
        (Json::Array(elements), _) => {
            let items = schema.items.as_deref();
            let items =
                elements.iter().map(|e| from_json(e, items, items.is_some_and(|i| i.embedded_resource)));
            Val::List(Rc::new(List { items: items.collect(), kind: schema.list_type.clone() }))
        }
        (Json::String(text), Some(Type::String)) => formatted(text, schema.format.as_deref()),
        (Json::Number(number), Some(Type::Number)) => Val::Double(GoNumber::new(number).as_f64()),
        (Json::Number(number), Some(Type::Integer)) => match GoNumber::new(number) {
            GoNumber::Int(int) => Val::Int(int),
            GoNumber::Float(float) if float.fract() == 0.0 && float.abs() < 9.2e18 => Val::Int(float as i64),
            GoNumber::Float(_) => Val::Broken("integer expected".into()),
        },
        _ => untyped(json),
    }
}

/// Of metadata, expressions see the name and nothing else.
fn metadata(name: &str, member: &Json) -> Val {
    let Some(members) = member.as_object().filter(|_| name == "metadata") else { return untyped(member) };
    let seen = members.iter().filter(|(name, _)| matches!(name.as_str(), "name" | "generateName"));
    Val::Map(Rc::new(seen.map(|(k, v)| (Key::Text(k.as_str().into()), untyped(v))).collect()))
}

fn formatted(text: &str, format: Option<&str>) -> Val {
    let broken = |what: &str| Val::Broken(format!("Invalid {what} {text:?}").as_str().into());
    match format {
        Some("date") => {
            let date = text.parse::<jiff::civil::Date>().ok();
            let midnight = date.and_then(|d| d.to_zoned(jiff::tz::TimeZone::UTC).ok());
            midnight.map_or_else(|| broken("date"), |z| Val::Timestamp(z.timestamp()))
        }
        Some("date-time" | "datetime") => text.parse().map_or_else(|_| broken("date"), Val::Timestamp),
        Some("duration") => parse_duration(text).map_or_else(|| broken("duration"), Val::Duration),
        Some("byte") => {
            use base64::Engine as _;
            let bytes = base64::engine::general_purpose::STANDARD.decode(text).ok();
            bytes.map_or_else(|| broken("base64"), |b| Val::Bytes(b.into()))
        }
        _ => Val::text(text),
    }
}

fn untyped(json: &Json) -> Val {
    match json {
        Json::Null => Val::Null,
        Json::Bool(b) => Val::Bool(*b),
        Json::Number(number) => match GoNumber::new(number) {
            GoNumber::Int(int) => Val::Int(int),
            GoNumber::Float(float) => Val::Double(float),
        },
        Json::String(text) => Val::text(text),
        Json::Array(elements) => Val::list(elements.iter().map(untyped).collect()),
        Json::Object(members) => Val::Map(Rc::new(
            members.iter().map(|(k, v)| (Key::Text(k.as_str().into()), untyped(v))).collect(),
        )),
    }
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
